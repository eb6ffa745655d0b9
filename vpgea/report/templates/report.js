(() => {
"use strict";
const at = id => document.getElementById(id);
const make = (tag, name, text) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
};

/* --- what is compressed in this file --- */
const bytesOf = id => Uint8Array.from(atob(at(id).textContent.trim()), c => c.charCodeAt(0));
const textOf = id => new Response(new Blob([bytesOf(id)]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
const save = (name, type, text) => {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([text], {type}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
};
for (const button of document.querySelectorAll("[data-file]"))
  button.onclick = async () => save(button.dataset.name, button.dataset.type, await textOf(button.dataset.file));
for (const button of document.querySelectorAll("[data-svg]"))
  button.onclick = () => {
    const drawn = at("figure-" + button.dataset.svg).querySelector("svg").cloneNode(true);
    const style = document.createElementNS("http://www.w3.org/2000/svg", "style");
    style.textContent = at("figure-style").textContent;
    drawn.prepend(style);
    save(button.dataset.svg + ".svg", "image/svg+xml", new XMLSerializer().serializeToString(drawn));
  };

if (!at("traces")) return;

/* --- the list of questions --- */
const PAGE = 200;
const GRADES = {correct: "right", wrong: "wrong", error: "grader failed", timeout: "grader took too long"};
const grade = status => GRADES[status] || status;
let index, shown = [], current = -1, limit = PAGE;
const kept = new Map();
const field = name => at("f-" + name);
const filters = ["group", "status", "change", "reason", "cut", "from", "to", "search"];

const options = (name, values, label = v => v) => {
  for (const value of values) {
    const option = make("option", "", label(value));
    option.value = value;
    field(name).append(option);
  }
  field(name).disabled = !values.length;
};
const every = pick => [...new Set(index.questions.flatMap(pick))].filter(Boolean).sort();

const fits = question => {
  const value = Object.fromEntries(filters.map(name => [name, field(name).value]));
  if (value.group !== "" && question.g !== +value.group) return false;
  if (value.change && question.c !== value.change) return false;
  const wanted = value.search.toLowerCase();
  if (wanted && !question.k.toLowerCase().includes(wanted) && !question.q.toLowerCase().includes(wanted)) return false;
  return question.s.some(([, status, tokens, cut, reasons]) =>
    (!value.status || status === value.status) &&
    (!value.reason || reasons.includes(value.reason)) &&
    (!value.cut || cut === (value.cut === "cut")) &&
    (value.from === "" || (tokens !== null && tokens >= +value.from)) &&
    (value.to === "" || (tokens !== null && tokens <= +value.to)));
};

const counts = question => [0, 1, 2].map(column => {
  const own = question.s.filter(one => one[0] === column);
  return own.length ? `${own.filter(one => one[1] === "correct").length}/${own.length}` : "";
}).filter(Boolean).join(" → ");

const list = () => {
  const items = shown.slice(0, limit).map((number, place) => {
    const question = index.questions[number], item = make("li"), button = make("button");
    button.type = "button";
    button.append(question.k, make("small", "", `${index.groups[question.g]}; right ${counts(question)}`));
    button.setAttribute("aria-current", number === current);
    button.onclick = () => open(place);
    item.append(button);
    return item;
  });
  if (shown.length > limit) {
    const more = make("button", "", `${shown.length - limit} more`), item = make("li");
    more.type = "button";
    more.onclick = () => { limit += PAGE; list(); };
    item.append(more);
    items.push(item);
  }
  at("list").replaceChildren(...items);
  at("count").textContent = `${shown.length} of ${index.questions.length} questions.`;
};
const filter = () => {
  shown = index.questions.map((question, number) => number).filter(number => fits(index.questions[number]));
  limit = PAGE;
  list();
};

/* --- one question with its samples --- */
const LEVELS = [[4, 3], [2, 2], [0.5, 1]];
const shade = ratio => {
  const level = LEVELS.find(([least]) => Math.abs(ratio) >= least);
  return level ? (ratio > 0 ? "r" : "b") + level[1] : "";
};
const body = sample => {
  const text = make("pre", "text"), parts = [make("span"), make("span", "after")];
  let plain = "", into = parts[0];
  const flush = () => { if (plain) into.append(plain); plain = ""; };
  text.tabIndex = 0;
  sample.p.forEach((piece, place) => {
    const ratio = place < sample.r.length && sample.r[place] !== null ? sample.r[place] / 100 : null;
    const name = [ratio === null ? "" : shade(ratio), place === sample.m ? "here" : ""].filter(Boolean).join(" ");
    const part = parts[sample.z && place >= sample.z ? 1 : 0];
    if (part !== into) { flush(); into = part; }
    if (!name) { plain += piece; return; }
    flush();
    const node = make("span", name, piece);
    node.title = `log q - log π ${ratio === null ? "-" : ratio.toFixed(2)}` + (place === sample.m ? ": the note dependence stands here" : "");
    part.append(node);
  });
  flush();
  highlight(parts[1].textContent ? parts[1] : parts[0], sample.facts["answer found"]);
  text.append(...parts);
  return text;
};
const highlight = (part, answer) => {
  const last = part.lastChild;
  const place = answer && answer !== "none" && last && last.nodeType === 3 ? last.data.lastIndexOf(answer) : -1;
  if (place < 0) return;
  const found = last.splitText(place);
  found.splitText(answer.length);
  const mark = make("mark", "", answer);
  mark.title = "the answer that was found";
  found.replaceWith(mark);
};
const card = sample => {
  const box = make("div", "sample"), head = make("h4"), copy = make("button", "", "copy");
  copy.type = "button";
  copy.onclick = () => navigator.clipboard?.writeText(sample.p.join(""));
  const word = make("span", sample.status === "correct" ? "right" : "wrong", (sample.status === "correct" ? "✓ " : "✗ ") + grade(sample.status));
  head.append(`${sample.from}, ${sample.name}`, word, copy);
  const facts = [`${sample.tokens ?? "?"} tokens`, ...(sample.cut ? ["cut"] : []), ...Object.entries(sample.facts).map(([k, v]) => `${k}: ${v}`)];
  box.append(head, make("p", "note", facts.join("; ")));
  if (sample.reasons.length) box.append(make("p", "reason", `rejected: ${sample.reasons.join(", ")}`));
  box.append(body(sample));
  return box;
};
const legend = () => {
  const line = make("p", "note legend");
  line.append("log q - log π: ");
  for (const [name, text] of [["r3", "≥ 4"], ["r2", "≥ 2"], ["r1", "≥ 0.5: the note makes it likelier"], ["b1", "≤ -0.5"], ["b2", "≤ -2"], ["b3", "≤ -4: the plain prompt does"]])
    line.append(make("span", name, text));
  line.append(make("span", "here", "the token of the note dependence"));
  return line;
};
const open = async (place, isChosen = true) => {
  const number = shown[place], question = index.questions[number];
  if (!question) return;
  current = number;
  if (!kept.has(number)) kept.set(number, JSON.parse(await textOf("t" + number)));
  if (current !== number) return;
  const detail = kept.get(number), columns = make("div", "columns");
  index.columns.forEach((title, column) => {
    const own = detail.t.filter(sample => sample.col === column);
    if (!own.length) return;
    const box = make("div");
    box.append(make("h3", "", title), ...own.map(card));
    columns.append(box);
  });
  const parts = [make("h3", "", `${question.k} (${index.groups[question.g]})`), make("pre", "text", detail.q || "the question is not stored"), make("p", "", `reference: ${detail.a || "-"}`)];
  if (detail.t.some(sample => sample.r.length)) parts.push(legend());
  at("trace").replaceChildren(...parts, columns);
  for (const button of at("list").querySelectorAll("button")) button.setAttribute("aria-current", false);
  const item = at("list").children[place];
  if (item) {
    item.firstChild.setAttribute("aria-current", true);
    const above = item.offsetTop - at("list").offsetTop, height = at("list").clientHeight - item.offsetHeight;
    at("list").scrollTop = Math.max(Math.min(at("list").scrollTop, above), above - height);
  }
  if (isChosen) history.replaceState(null, "", "#" + new URLSearchParams({q: question.k, g: question.g}));
};
const step = by => {
  const place = Math.max(0, Math.min(shown.length - 1, shown.indexOf(current) + by));
  if (place >= limit) { limit = place + PAGE; list(); }
  open(place);
};
const linked = () => {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const number = wanted.has("q") ? index.questions.findIndex(one => one.k === wanted.get("q") && String(one.g) === (wanted.get("g") ?? String(one.g))) : -1;
  if (number < 0) return false;
  for (const name of filters) field(name).value = "";
  filter();
  at("traces").scrollIntoView();
  open(shown.indexOf(number));
  return true;
};

const colour = () => at("trace").classList.toggle("colour", field("colour").checked);
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || !index) return;
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) { if (event.key === "Escape") event.target.blur(); return; }
  const action = {j: () => step(1), k: () => step(-1), c: () => { field("colour").click(); }, "/": () => field("search").focus()}[event.key];
  if (action) { event.preventDefault(); action(); }
});
at("filters").addEventListener("submit", event => event.preventDefault());

(async () => {
  index = JSON.parse(await textOf("traces-index"));
  options("group", index.groups.map((group, place) => place), place => index.groups[place]);
  options("status", every(one => one.s.map(sample => sample[1])), grade);
  options("change", every(one => [one.c]));
  options("reason", every(one => one.s.flatMap(sample => sample[4])));
  for (const name of filters) field(name).addEventListener("input", filter);
  field("colour").addEventListener("input", colour);
  at("filters").hidden = at("browser").hidden = false;
  colour();
  filter();
  addEventListener("hashchange", linked);
  if (!linked() && shown.length) await open(0, false);
  document.documentElement.dataset.ready = "yes";
})();
})();
