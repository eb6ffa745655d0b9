"""Whole command lines in this process, with odd options and values; nothing is sampled or trained."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from hypothesis import strategies as st

from tests.campaigns.fuzz.probe import ACCEPTED, Probe, odd_texts
from tests.support import tiny
from vpgea.config.problems import FIELDS
from vpgea_cli.main import run

_CODES = (0, 1, 2, 3, 4)
_SURFACE = Path(__file__).parents[3] / "cli" / "surface.txt"
_OPTIONS = sorted({word for line in _SURFACE.read_text().splitlines() for word in line.split() if word.startswith("-")})
_COMMANDS = (
    "config show", "config validate --offline", "config init", "rollout --dry-run --offline",
    "rollout --model none --offline", "filter none --dry-run --offline", "distill none --dry-run --offline",
    "loop --dry-run --offline", "inspect", "export none -o out", "eval --model none --offline",
    "serve --model none --offline", "", "confg",
)  # fmt: skip
# Nothing that could name a place outside of the folder, or a server.
_words = odd_texts.filter(lambda text: not set(text) & set("/~") and ".." not in text)
_values = st.one_of(
    _words,
    st.integers(-2, 9).map(str),
    st.sampled_from(["questions.jsonl", "odd.yaml", "empty", "none", "0/2", "2/2", "1e9"]),
)
_sets = st.builds("{}={}".format, st.one_of(st.sampled_from(sorted(FIELDS)), _words), _values).filter(
    lambda text: not text.startswith("sglang.")
)
_pieces = st.one_of(
    st.builds(lambda text: ["--set", text], _sets),
    st.builds(lambda option, value: [option, value], st.sampled_from(_OPTIONS), _values),
    st.sampled_from(_OPTIONS).map(lambda option: [option]),
    st.builds(lambda option, tail: [option + tail], st.sampled_from(_OPTIONS), _words),
    _values.map(lambda value: [value]),
)
_fitting = st.sampled_from(
    [
        ["--json"],
        ["--set", "rollout.seed=3"],
        ["--config", "odd.yaml"],
        ["--dataset", "questions.jsonl"],
        ["--limit", "2"],
        ["--shard", "0/2"],
        ["--help"],
    ]
)
_lines = st.builds(
    lambda command, pieces: [*command.split(), *(word for piece in pieces for word in piece)],
    st.sampled_from(_COMMANDS),
    st.one_of(st.lists(_fitting, max_size=3), st.lists(_fitting | _pieces, max_size=3), st.lists(_pieces, max_size=4)),
)


@contextmanager
def probe(folder: Path) -> Iterator[Probe]:
    """Whatever is typed, three lines say what is wrong, and never that there is a bug."""
    place = folder / "place"
    place.mkdir()
    os.chdir(place)
    tiny.write_questions(place / "questions.jsonl")
    (place / "odd.yaml").write_text("rollout: {seed: 3}\nmodel: {path: empty}\n")
    (place / "empty").mkdir()

    def check(arguments: list[str]) -> str:
        told = StringIO()
        with redirect_stdout(StringIO()), redirect_stderr(told):
            code = run(arguments)
        assert code in _CODES, f"exit code {code}"
        for word in ("Traceback", "a bug in vpgea"):
            assert word not in told.getvalue(), told.getvalue()
        return ACCEPTED if code == 0 else "refused"

    yield Probe(_lines, check)
