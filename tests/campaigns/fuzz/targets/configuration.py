"""Configuration files: good ones with odd lines, and YAML's darker corners."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

from tests.campaigns.fuzz.probe import ACCEPTED, Edit, Probe, damaged, edits, odd_scalars, odd_texts, odd_values
from vpgea.config.problems import FIELDS, SECTIONS
from vpgea.config.resolve import dump_yaml, loads, resolve
from vpgea.config.schema import RunConfig
from vpgea.config.strict_yaml import scalar

_LAUGHS = "\n".join(
    [
        "a0: &a0 [ha, ha]",
        *(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 12)),
        "distill: {lora_target: *a11}",
    ]
)
_CORNERS = [
    "!!python/object/apply:os.system ['true']", "model: !!python/name:os.system", "&a [*a]", "model: &m {path: *m}",
    "<<: {model: {}}", "model: {<<: {path: x}}", "? {a: b}\n: c", "? [a]\n: b", "!!set {a}", "!!binary aGE=",
    "!!omap [a: b]", "!!timestamp 2001-01-01", "!!int x", "!!float []", "!!bool maybe", "!!int ''", "!!null x",
    "---\na: b\n---\nc: d", "%YAML 9.9\n---\n", "%TAG ! tag:x,1:\n---\n!a b", "model: |\n  x\n y", "\t- a", "a: b: c",
    "*nowhere", "[" * 2000, "{a: " * 500, "- " * 1500, "[" * 200 + "]" * 200, _LAUGHS, "0o9", "0x", "+", ".", "-.inf",
    "1" * 5000, "rollout: {seed: " + "1" * 5000 + "}", "0o" + "7" * 5000, "rollout: {temperature: 1e999}",
    "rollout: {temperature: .nan}", "rollout:", "rollout: {}", "1: 2", "null: {}", "model.path: x",
    "views: {chat_template_kwargs: {a: {b: c}}}", "views: {chat_template_kwargs: {1: 2, true: null}}", "\0", "\ufffe",
    "\x85", "\u2028",
]  # fmt: skip
_DUMPED = dump_yaml(RunConfig())


class Document(NamedTuple):
    """A text, and how its bytes are damaged when it is read as a file."""

    text: str
    damages: list[Edit] | None


@st.composite
def _mutated(draw: st.DrawFn) -> str:
    """The default configuration, of which some lines are replaced, repeated, indented or dropped."""
    lines = _DUMPED.splitlines()
    for _ in range(draw(st.integers(0, 3))):
        index = draw(st.integers(0, len(lines) - 1))
        key, colon, rest = lines[index].partition(":")
        how = draw(st.sampled_from(["value", "value", "corner", "again", "indent", "drop", "key"]))
        if how == "value":
            lines[index] = f"{key}: {draw(_values)}"
        elif how == "corner":
            lines[index] = f"{key}: {draw(st.sampled_from(_CORNERS))}"
        elif how == "again":
            lines.insert(draw(st.integers(0, len(lines))), lines[index])
        elif how == "indent":
            lines[index] = f"  {lines[index]}"
        elif how == "key":
            lines[index] = f"{key}{draw(odd_texts)}{colon}{rest}"
        else:
            lines[index] = "#"
    return "\n".join(lines)


def _encodable(value: object) -> bool:
    try:
        scalar(value).encode()
    except (UnicodeEncodeError, ValueError):  # ValueError: an integer of too many digits
        return False
    return True


_values = st.one_of(odd_values.filter(_encodable).map(scalar), odd_texts)
_small = st.builds(
    "{}: {{{}: {}}}".format,
    st.sampled_from(sorted({key.split(".", maxsplit=1)[0] for key in SECTIONS})),
    st.sampled_from(sorted({key.rpartition(".")[2] for key in FIELDS})),
    st.one_of(_values, odd_scalars.map(str)),
)
_texts = st.one_of(
    _mutated(), _small, st.sampled_from(_CORNERS), st.lists(odd_texts | _small, max_size=4).map("\n".join)
)
_documents = st.builds(Document, _texts, st.one_of(st.none(), st.lists(edits, max_size=2)))


@contextmanager
def probe(folder: Path) -> Iterator[Probe]:
    """Texts through `loads`, damaged bytes through a file; what is accepted survives being written and read again."""
    path = folder / "run.yaml"

    def check(document: Document) -> str:
        if document.damages is None:
            config = loads(document.text)
        else:
            path.write_bytes(damaged(document.text.encode("utf-8", "surrogatepass"), document.damages))
            config = resolve(file=path).config
        assert loads(dump_yaml(config)) == config, "it does not survive being written"
        return ACCEPTED

    yield Probe(_documents, check)
