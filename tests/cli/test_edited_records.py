"""A figure that was changed in a JSON record, which has no checksum, is found by what it was derived from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from tests.support.loops import essence
from vpgea.config.resolve import load
from vpgea.errors import DamagedError, UsageError
from vpgea.inspection.verify import foreign_phases, verify
from vpgea.phases.loop import Loop
from vpgea.runs.history import finished_lines
from vpgea.runs.manifest import Manifest
from vpgea.runs.records import RoundLine
from vpgea.storage.files import write_json
from vpgea_cli.main import run


@pytest.fixture
def folder(small_run: Path) -> Iterator[Path]:
    """A copy of a loop of one round, where it was made."""
    yield shutil.copytree(small_run.parent / "whole" / "run", small_run.parent / "copy" / "run")
    shutil.rmtree(small_run.parent / "copy")


def edit(file: Path, *keys: str, to: object) -> None:
    """One entry of a JSON file; of a file of lines the first key is the line's number."""
    lines = file.suffix == ".jsonl"
    text = file.read_text(encoding="utf-8")
    value = [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
    places: list[Any] = [int(keys[0]), *keys[1:]] if lines else [*keys]
    reduce(lambda inner, key: inner[key], places[:-1], value)[places[-1]] = to
    file.write_text("".join(json.dumps(line) + "\n" for line in value) if lines else json.dumps(value, indent=2))


FIRST = "round-000"
EDITS = [  # file, entry, what is written there; the files that doctor finds
    ("base/round.json", ("accuracy",), 0.123, ["base/round.json"]),
    (f"{FIRST}/round.json", ("tokens",), 7.5, [f"{FIRST}/round.json"]),
    (f"{FIRST}/round.json", ("accepted_share",), 0.25, [f"{FIRST}/round.json"]),
    (f"{FIRST}/round.json", ("kl",), 0.5, [f"{FIRST}/round.json"]),
    (f"{FIRST}/round.json", ("length_price",), 0.0, [f"{FIRST}/round.json"]),
    (f"{FIRST}/eval/results.json", ("metrics", "accuracy", "value"), 0.123, [f"{FIRST}/eval/results.json"]),
    (f"{FIRST}/eval/results.json", ("metrics", "e3", "value"), 7.0, [f"{FIRST}/eval/results.json"]),
    (f"{FIRST}/eval/results.json", ("samples",), 1, [f"{FIRST}/eval/results.json"]),
    (f"{FIRST}/eval/results.json", ("metrics", "accuracy", "low"), 0.2, [f"{FIRST}/eval/results.json"]),
    (f"{FIRST}/eval/results.json", ("metrics", "tokens_p95", "high"), 0.9, [f"{FIRST}/eval/results.json"]),
    (f"{FIRST}/round.json", ("accuracy_low",), 0.2, [f"{FIRST}/round.json"]),
    (f"{FIRST}/filter/summary.json", ("counts", "posterior_accepted"), 99, [f"{FIRST}/filter/summary.json"]),
    (f"{FIRST}/filter/summary.json", ("counts", "posterior_rejected_wrong"), 99, [f"{FIRST}/filter/summary.json"]),
    (f"{FIRST}/filter/summary.json", ("tokens", "score_tokens"), 99, [f"{FIRST}/filter/summary.json"]),
    (f"{FIRST}/filter/summary.json", ("checks", "answer_tokens"), 99.0, [f"{FIRST}/filter/summary.json"]),
    (
        f"{FIRST}/filter/summary.json",
        ("elbo", "kl", "value"),
        0.5,
        [f"{FIRST}/filter/summary.json", f"{FIRST}/round.json"],
    ),
    (
        f"{FIRST}/rollout/parts/0-of-1/COMPLETE",
        ("summary", "at_cap"),
        99,
        [f"{FIRST}/rollout/parts/0-of-1/COMPLETE"],
    ),
    (f"{FIRST}/rollout/manifest.json", ("config", "rollout.temperature"), 0.5, [f"{FIRST}/rollout/manifest.json"]),
    (f"{FIRST}/rollout/manifest.json", ("contents", "model"), "0" * 16, [f"{FIRST}/rollout/manifest.json"]),
    (f"{FIRST}/distill/metrics.jsonl", ("0", "tokens"), 1, [f"{FIRST}/distill/metrics.jsonl"]),
    (
        f"{FIRST}/distill/metrics.jsonl",
        ("1", "reference_kl"),
        0.5,
        [f"{FIRST}/distill/metrics.jsonl", f"{FIRST}/round.json"],
    ),
    ("metrics.jsonl", ("1", "accuracy"), 0.123, ["metrics.jsonl"]),
]


def test_each_changed_figure_is_found_where_it_stands(folder: Path) -> None:
    assert verify(folder).findings == []
    for name, keys, value, expected in EDITS:
        before = (folder / name).read_bytes()
        edit(folder / name, *keys, to=value)
        found = [str(finding.path) for finding in verify(folder).findings]
        (folder / name).write_bytes(before)
        assert found == expected, (name, keys)


@pytest.mark.parametrize(
    ("name", "keys", "value"),
    [
        (f"{FIRST}/round.json", ("accuracy_gain_high",), -0.5),
        (f"{FIRST}/eval/results.json", ("metrics", "tokens", "high"), 1e6),
        (f"{FIRST}/filter/summary.json", ("elbo", "elbo", "value"), 0.5),
        (f"{FIRST}/distill/metrics.jsonl", ("1", "reference_kl"), 0.5),
        ("metrics.jsonl", ("0", "tokens"), 1.0),
    ],
)
def test_what_was_changed_is_made_again(folder: Path, name: str, keys: tuple[str, ...], value: object) -> None:
    before = essence(folder)
    edit(folder / name, *keys, to=value)
    assert run(["doctor", str(folder), "--repair", "--quiet"]) == 0
    assert (folder / "damaged" / name).is_file()
    shutil.rmtree(folder / "damaged")
    assert essence(folder) == before


LINES: list[Callable[[Path], list[str]]] = [
    lambda folder: ["loop", "-c", str(folder.parents[1] / "loop.yaml"), "-o", str(folder), "--rounds", "2", "-q"],
    lambda folder: ["inspect", str(folder)],
    lambda folder: ["export", str(folder), "-o", str(folder.parent / "out"), "-q"],
]


def test_nothing_is_decided_by_a_line_that_its_phases_deny(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A price of length rests by accuracy_gain_high alone, say, and the best round is that of the highest e3."""
    edit(folder / FIRST / "eval" / "results.json", "metrics", "accuracy_gain", "high", to=-0.5)
    with pytest.raises(DamagedError, match=r"round\.json is not what its phases say"):
        finished_lines(folder)
    for command in LINES:
        capsys.readouterr()
        assert run(command(folder)) == 2
        error, why, mend = capsys.readouterr().err.splitlines()[-3:]
        assert error == f"error: {folder / FIRST / 'round.json'} is not what its phases say"
        assert "accuracy_gain_high is" in why
        assert "eval/results.json has -0.5" in why
        assert mend == f"mend:  `vpgea doctor {folder} --repair` makes again what was changed"


def test_a_figure_that_is_no_number_equals_itself(folder: Path) -> None:
    """The KL of a step whose gradient was not finite."""
    for name, keys in (
        ("metrics.jsonl", ("1", "loss_reference_kl")),
        (f"{FIRST}/round.json", ("loss_reference_kl",)),
        (f"{FIRST}/distill/metrics.jsonl", ("1", "reference_kl")),
    ):
        edit(folder / name, *keys, to=float("nan"))
    assert verify(folder).findings == []
    assert len(finished_lines(folder)) == 2
    edit(folder / FIRST / "distill" / "metrics.jsonl", "1", "reference_kl", to=0.5)
    found = [str(one.path) for one in verify(folder).findings]
    assert found == [f"{FIRST}/distill/metrics.jsonl", f"{FIRST}/round.json"], "two of three copies say the same"


def test_where_no_two_of_three_copies_agree_the_first_is_made_again_too(folder: Path) -> None:
    edit(folder / FIRST / "filter" / "summary.json", "elbo", "kl", "value", to=0.5)
    edit(folder / "metrics.jsonl", "1", "kl", to=0.7)
    found = [str(one.path) for one in verify(folder).findings]
    assert found == [f"{FIRST}/filter/summary.json", f"{FIRST}/round.json"]


def test_an_interval_that_another_version_drew_is_told_by_its_copies(folder: Path) -> None:
    results = folder / FIRST / "eval" / "results.json"
    edit(results, "drawn_by", to=None)  # as it was before that was recorded
    assert verify(folder).findings == []
    edit(results, "metrics", "accuracy", "low", to=0.2)
    assert [str(one.path) for one in verify(folder).findings] == [f"{FIRST}/eval/results.json", f"{FIRST}/round.json"]


@pytest.mark.parametrize(
    ("name", "keys", "value"),
    [(f"{FIRST}/filter/summary.json", ("counts",), {}), (f"{FIRST}/distill/metrics.jsonl", ("1",), {})],
)
def test_a_record_without_what_a_line_is_made_of_is_damaged(
    folder: Path, name: str, keys: tuple[str, ...], value: object
) -> None:
    edit(folder / name, *keys, to=value)
    assert [str(one.path) for one in verify(folder).findings] == [name]
    with pytest.raises(DamagedError, match=Path(name).name):
        finished_lines(folder)


def test_lines_that_were_exchanged_are_told(folder: Path) -> None:
    base, first = (folder / name / "round.json" for name in ("base", FIRST))
    first.write_bytes(base.read_bytes())
    assert [str(one.path) for one in verify(folder).findings] == [f"{FIRST}/round.json"]
    with pytest.raises(DamagedError, match="damaged file"):
        finished_lines(folder)


# --- the base model, which later rounds of full fine-tuning read as their reference alone -----------------------------


def test_the_base_model_has_one_content_in_all_of_a_run(
    folder: Path, small_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As if its weights had been changed where the fingerprint does not look, or the record of them."""
    evaluation, whole = folder / "base" / "eval", Manifest.read(folder / "base" / "eval" / "manifest.json").contents
    for content, own, expected in (("1" * 16, whole["model"], "base/eval"), (whole["model"], "0" * 16, "parts")):
        for file in (evaluation / "manifest.json", evaluation / "parts" / "0-of-1" / "manifest.json"):
            edit(file, "contents", "model", to=content)
        edit(folder / "parts" / "0-of-1" / "manifest.json", "contents", "model", to=own)
        assert [str(one.path).removesuffix("/0-of-1/manifest.json") for one in verify(folder).findings] == [expected]
    assert run(["loop", "-c", str(small_run), "-o", str(folder), "--quiet"]) == 2
    assert "was started with another content of the model" in capsys.readouterr().err


def test_each_round_looks_at_the_base_model(small_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def change(line: RoundLine) -> None:
        edit(folder / "parts" / "0-of-1" / "manifest.json", "contents", "model", to="0" * 16)

    with pytest.raises(UsageError, match="started with another content of the model"):
        Loop.open(load(small_run), folder).run(change)
    assert not (folder / FIRST).exists()


# --- folders of another run or round, whole in themselves ----------------------------------------------------------


def test_what_was_made_from_a_foreign_phase_is_foreign_and_nothing_else(folder: Path) -> None:
    first = folder / FIRST
    for file in (first / "filter" / "manifest.json", first / "filter" / "parts" / "0-of-1" / "manifest.json"):
        edit(file, "contents", "model", to="1" * 16)
    found = [str(one.path) for one in verify(folder).findings]
    assert found == [f"{FIRST}/{phase}" for phase in ("filter", "distill", "eval")]


def test_a_round_of_another_run_is_told_by_its_settings(folder: Path) -> None:
    """All of it is whole, and fits together: only the run says that it has another seed."""
    rollout = folder / FIRST / "rollout"
    for place in (rollout, rollout / "parts" / "0-of-1"):
        own = Manifest.read(place / "manifest.json")
        assert own.identity["rollout.seed"] == 0
        seed = {"rollout.seed": 7}
        other = replace(own, identity={**own.identity, **seed}, config={**own.config, **seed})
        write_json(place / "manifest.json", other.as_json())
    (found,) = [one for one in foreign_phases(folder) if one.path == Path(FIRST, "rollout")]
    assert found.problem == "it was made from the rollout.seed 7, and that of the run is 0"


def test_a_part_of_another_run_is_told_from_a_manifest_of_another_run(folder: Path) -> None:
    rollout = folder / FIRST / "rollout"
    for place, expected in ((rollout / "parts" / "0-of-1", "parts/0-of-1"), (rollout, "manifest.json")):
        before = (place / "manifest.json").read_bytes()
        own = Manifest.read(place / "manifest.json")
        changed = {"rollout.seed": 7}
        other = replace(own, identity={**own.identity, **changed}, config={**own.config, **changed})
        if own.content_fingerprint is not None:
            other = replace(other, content_fingerprint="1" * 16)
        write_json(place / "manifest.json", other.as_json())
        assert f"{FIRST}/rollout/{expected}" in [str(one.path) for one in verify(folder).findings]
        (place / "manifest.json").write_bytes(before)
