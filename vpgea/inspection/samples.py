"""One sample with everything that is known of it: tokens, both views' log-probabilities, grade, checks, weight."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from vpgea.config.resolve import resolve
from vpgea.config.schema import ModelConfig
from vpgea.errors import UsageError
from vpgea.filtering.measurements import MEASUREMENTS
from vpgea.inspection.folders import Source, chunks, require_rows
from vpgea.modeling.local_model import LocalModel
from vpgea.storage.files import read_json
from vpgea.storage.schemas import IDENTITY, POSTERIOR, PRIOR
from vpgea.storage.shards import read_table

# Measured columns that are numbers or words for people to read; ids and log-probabilities stand with the tokens.
_CHECKS = tuple(
    name
    for name in MEASUREMENTS.names
    if name not in (*IDENTITY, "status", "extracted", "other_view_logprobs", "crossview_answer_ids")
)
_ABOUT = ("round", "seed", "question", "answer", "options", "finish_reason", "cut_off", "thinking_tokens")
_ORIGIN = ("model_fingerprint", "template_fingerprint", "engine", "temperature", "top_p", "top_k", "max_new_tokens")
_VERDICT = ("status", "extracted", "reasons", "utility", "advantage", "gate")

SampleKey = tuple[str, str, int]


@dataclass(frozen=True, kw_only=True)
class TokenRow:
    """One token of a completion. part: z (thinking with its end) or y. text: None without the tokenizer.

    prior, posterior: log-probabilities in nats, None where not measured. log_ratio: posterior - prior, log q - log pi.
    weight: the advantage or gate that multiplies this token's term of the loss; 0: masked; None: not decided yet.
    """

    position: int
    id: int
    text: str | None
    part: str
    weight: float | None
    prior: float | None
    posterior: float | None
    log_ratio: float | None


@dataclass(frozen=True, kw_only=True)
class SampleDetail:
    """prompts: view → ids and, with the tokenizer, text. notes: what could not be shown, and why."""

    id: str
    about: dict[str, Any]
    verdict: dict[str, Any]
    checks: dict[str, Any]
    origin: dict[str, Any]
    prompts: dict[str, dict[str, Any]]
    completion: str | None
    tokens: list[TokenRow]
    crossview_answer: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def parse_key(text: str) -> SampleKey:
    """QUESTION_ID/VIEW/INDEX; a question's id may hold slashes. Raises UsageError."""
    question, view, index = [*text.rsplit("/", 2), "", ""][:3]
    if not question or view not in (PRIOR, POSTERIOR) or not index.isdecimal():
        raise UsageError(
            f"not a sample id: {text!r}",
            why="a sample is named QUESTION_ID/VIEW/INDEX, with the view prior or posterior",
            mend="for example q17/prior/0; --head lists some",
        )
    return question, view, int(index)


def sample_detail(source: Source, key: SampleKey) -> SampleDetail:
    """Everything on one sample, joined over a filter's tables and, where it is at hand, the rollout's.

    Raises UsageError when there is no such sample (nearest ids are named), or a shard is damaged.
    """
    require_rows(source)
    if _find(source.rows(), key) is None:
        raise _unknown(source, key)
    notes: list[str] = []
    measured = _find(source.measurements(), key) or {}
    selected = _find(source.selection(), key) or {}
    drawn = _find(_sample_shards(source, notes), key) or {}
    if source.is_shard and not (measured or selected or drawn):
        drawn = _find([source.path], key) or {}
    row = {**drawn, **measured, **selected}
    strings = _strings(source, row, notes)
    return SampleDetail(
        id="/".join(map(str, key)),
        about={name: row[name] for name in _ABOUT if name in row},
        verdict={name: row[name] for name in _VERDICT if row.get(name) is not None},
        checks={name: row[name] for name in _CHECKS if row.get(name) is not None},
        origin={name: row[name] for name in _ORIGIN if name in row},
        prompts=_prompts(key[1], drawn, selected, strings),
        completion=row.get("completion"),
        tokens=_tokens(row, strings, notes),
        crossview_answer=_ids_and_text(row.get("crossview_answer_ids"), strings),
        notes=notes,
    )


def _find(shards: Sequence[Path], key: SampleKey) -> dict[str, Any] | None:
    """The sample's row from the first shard that has it."""
    for path in shards:
        table = read_table(path)
        same = [pc.equal(table[name], value) for name, value in zip(IDENTITY[1:], key, strict=True)]
        found = table.filter(pc.and_(pc.and_(same[0], same[1]), same[2]))
        if found.num_rows:
            row: dict[str, Any] = found.slice(0, 1).to_pylist()[0]
            return row
    return None


def _sample_shards(source: Source, notes: list[str]) -> list[Path]:
    """Shards with the samples as they were drawn; of a filter folder, those of the rollout it names, if it is near."""
    if source.manifest is None or source.root is None:
        return []
    if source.manifest.phase != "filter":
        return chunks(source.root)
    wanted = source.manifest.inputs["rollout"]
    for manifest in sorted(source.root.absolute().parent.glob("*/manifest.json")):
        if read_json(manifest).get("content_fingerprint") == wanted:
            return chunks(manifest.parent)
    notes.append(f"the rollout {wanted} does not stand beside the filter folder: question and answer are not shown")
    return []


def _unknown(source: Source, key: SampleKey) -> UsageError:
    """Names the question's samples, or the questions with the nearest ids."""
    question, samples = key[0], _by_question(source)
    what, named = f"no such sample: {'/'.join(map(str, key))}", f"{source.path}"
    if question in samples:
        views = {view: [i for v, i in samples[question] if v == view] for view in (PRIOR, POSTERIOR)}
        ranges = [f"{view} {min(found)}-{max(found)}" for view, found in views.items() if found]
        return UsageError(
            what, why=f"question {question} has {', '.join(ranges)} in {named}", mend="give one of these samples"
        )
    nearest = difflib.get_close_matches(question, samples, n=3, cutoff=0.0)
    ids = [f"{name}/{samples[name][0][0]}/{samples[name][0][1]}" for name in nearest]
    mend = f"the nearest are {', '.join(ids)}" if ids else "it holds no samples yet"
    return UsageError(what, why=f"{named} has no question {question!r}", mend=mend)


def _by_question(source: Source) -> dict[str, list[tuple[str, int]]]:
    samples: dict[str, list[tuple[str, int]]] = {}
    for path in source.rows():
        for row in read_table(path, columns=IDENTITY).to_pylist():
            samples.setdefault(row["question_id"], []).append((row["view"], row["sample_index"]))
    return samples


@dataclass(frozen=True)
class Strings:
    """Ids as text, special tokens included; `name` is what the tokenizer calls one id."""

    decode: Callable[[list[int]], str]
    name: Callable[[int], str | None]


def _strings(source: Source, row: dict[str, Any], notes: list[str]) -> Strings | None:
    """Those of the recorded model's tokenizer; None, with a note, when it is not here or is another one by now.

    Code that comes with a model is never run for looking at its samples.
    """
    if source.manifest is None:
        notes.append("the shard stands in no phase folder: ids are shown without their strings")
        return None
    recorded = resolve(inherited=[("this folder", source.manifest.config)]).config.model
    model = ModelConfig(path=recorded.path, revision=recorded.revision)
    ids, text = row.get("completion_ids", []), row.get("completion", "")
    try:
        found = LocalModel.resolve(model)
        for load in (_quick_strings, _transformers_strings):
            strings = load(found)
            if strings is not None and strings.decode(ids) == text:
                return strings
        notes.append(f"ids are shown without their strings: {model.path} has another tokenizer by now")
    except UsageError as error:
        notes.append(f"ids are shown without their strings: {error.what}")
    return None


def _quick_strings(model: LocalModel) -> Strings | None:
    """From tokenizer.json alone: importing transformers takes seconds, and for most models this gives the same."""
    from tokenizers import Tokenizer

    file = model.folder / "tokenizer.json"
    if not file.is_file():
        return None
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception:  # the library raises nothing narrower; transformers then says what is wrong with the file
        return None
    return Strings(lambda ids: tokenizer.decode(ids, skip_special_tokens=False), tokenizer.id_to_token)


def _transformers_strings(model: LocalModel) -> Strings:
    tokenizer = model.tokenizer
    return Strings(lambda ids: tokenizer.decode(ids, skip_special_tokens=False), tokenizer.convert_ids_to_tokens)


def _prompts(
    view: str, drawn: dict[str, Any], selected: dict[str, Any], strings: Strings | None
) -> dict[str, dict[str, Any]]:
    """The prompts that are stored. A selection's is the prior's, whichever view sampled; a rollout's the sampler's."""
    ids: dict[str, Any] = {PRIOR: selected.get("prompt_ids"), POSTERIOR: selected.get("posterior_prompt_ids")}
    ids[view] = ids[view] or drawn.get("prompt_ids")
    prompts = {name: _ids_and_text(found, strings) for name, found in ids.items()}
    return {name: prompt for name, prompt in prompts.items() if prompt is not None}


def _ids_and_text(ids: list[int] | None, strings: Strings | None) -> dict[str, Any] | None:
    if ids is None:
        return None
    text = None if strings is None else strings.decode(ids)
    return {"ids": ids, "text": text}


def _tokens(row: dict[str, Any], strings: Strings | None, notes: list[str]) -> list[TokenRow]:
    if "completion_ids" not in row:
        notes.append("only measurements are stored here: the completion stands in the rollout")
        return []
    ids, thinking, other = row["completion_ids"], row["thinking_tokens"], row.get("other_view_logprobs")
    if other is None:
        notes.append("the view that did not sample it was not asked for its log-probabilities")
    if row["temperature"] != 1 or row["top_p"] != 1 or row["top_k"] != 0:
        notes.append("the sampling view's log-probabilities are those after temperature, top-p and top-k")
    padded = [*(other or []), *[None] * (len(ids) - len(other or []))]
    prior, posterior = (row["logprobs"], padded) if row["view"] == PRIOR else (padded, row["logprobs"])
    texts = [None if strings is None else token_text(strings, token) for token in ids]
    return [
        TokenRow(
            position=position,
            id=ids[position],
            text=texts[position],
            part="z" if position < thinking else "y",
            weight=_weight(row, is_thinking=position < thinking),
            prior=pi,
            posterior=q,
            log_ratio=None if pi is None or q is None else q - pi,
        )
        for position, (pi, q) in enumerate(zip(prior, posterior, strict=True))
    ]


def _weight(row: dict[str, Any], *, is_thinking: bool) -> float | None:
    """Prior samples carry their advantage on every token, posterior paths their gate on z alone: y copies the note."""
    if "gate" not in row:
        return None
    if row["view"] == PRIOR:
        return float(row["advantage"] or 0.0)
    return float(row["gate"] or 0.0) if is_thinking else 0.0


def token_text(strings: Strings, token: int) -> str:
    """One id as text; of an id that is no whole character, the tokenizer's own name for it."""
    text = strings.decode([token])
    return str(strings.name(token)) if "\ufffd" in text or not text else text
