"""`vpgea eval --benchmark`: several benchmarks in one run, what is written of their protocols, and what is refused."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.evaluations import Sample, write_evaluation
from tests.support.forks import Forks
from vpgea.inspection.verify import verify
from vpgea.phases import protocol_results
from vpgea.protocols.card import ProtocolCard
from vpgea.protocols.protocol import LIBRARY
from vpgea.protocols.published import UNATTRIBUTED, published_model
from vpgea.storage.files import read_json, write_json
from vpgea.storage.records import read_record

Cli = Callable[..., subprocess.CompletedProcess[str]]
DATA = Path(__file__).parents[1] / "data" / "questions"
SMALL = ("--set", "eval.max_new_tokens=24", "--set", "eval.bootstrap=100", "--limit", "6", "--skip-bad-rows")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of several sets, each by its name."""
    folder = tmp_path_factory.mktemp("sets")
    for place, file in (
        ("gsm8k/test", "gsm8k_test_25"),
        ("math500/test", "math500_25"),
        ("mmlu_pro/test", "mmlu_pro_25"),
    ):
        path = folder / f"{place}.jsonl.gz"
        path.parent.mkdir()
        shutil.copy(DATA / f"{file}.jsonl.gz", path)
    return folder


def asked(benchmarks: str, model: Path, sets: Path, root: Path, samples: int = 2) -> list[str | Path]:
    """So many samples of each question."""
    where: list[str | Path] = ["--model", model, "--dataset", sets, "-o", root]
    return ["eval", "--benchmark", benchmarks, *where, "-n", str(samples), *SMALL]


@pytest.fixture(scope="module")
def measured(forks: Forks, sets: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Two benchmarks by the default protocol, two samples each."""
    root = tmp_path_factory.mktemp("benchmarks") / "base"
    arguments = asked("gsm8k,math500", tiny_model, sets, root)
    done = forks.start([*arguments, "--json"], root.parent, "measured", {"COLUMNS": "200"})
    assert done.wait(120) == 0, done.err.read_text()
    return root, (json.loads(done.out.read_text()), done.err.read_text())


def test_each_benchmark_has_a_result_and_a_card(measured: tuple[Path, Any]) -> None:
    root, (found, said) = measured
    assert found["complete"] is True
    assert list(found["benchmarks"]) == ["gsm8k", "math500"]
    for name in found["benchmarks"]:
        card = read_record(root / name / "protocol.json", ProtocolCard)
        manifest = read_json(root / name / "manifest.json")
        assert (card.benchmark, card.name, card.version) == (name, "deepseek", 1)
        assert manifest["identity"]["protocol.version"] == 1
        assert manifest["identity"]["protocol.rows"] == card.rows.sha256
        assert manifest["inputs"]["protocol"] == card.fingerprint
        assert card.figure == "mean@2", "never the protocol's number of samples"
        assert manifest["identity"]["eval.temperature"] == 0.6, "the protocol's, since nothing else says one"
        assert len(card.shown.ids) == len(card.shown.tokens) > 0
        assert card.shown.text.endswith("<think>\n")
        assert found["benchmarks"][name]["results"]["metrics"]["accuracy"]["n"] == 12
    assert "--- ids ---" in said
    assert "is not measured as its protocol says: eval.max_new_tokens is 24, not 32768" in said


def test_a_run_goes_on_and_another_protocol_needs_another_folder(
    here: Cli, measured: tuple[Path, Any], sets: Path, tiny_model: Path
) -> None:
    root, (found, _) = measured
    arguments = asked("gsm8k", tiny_model, sets, root)
    again = here(*arguments, "--json")
    assert json.loads(again.stdout)["benchmarks"]["gsm8k"] == found["benchmarks"]["gsm8k"]
    other = here(*arguments, "--protocol", "lighteval")
    assert other.returncode == 2
    assert "differs" in other.stderr


@pytest.fixture(scope="module")
def grown(
    forks: Forks, measured: tuple[Path, Any], sets: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any]:
    """Both benchmarks with another seed against `measured`, one sample and then two: the limit comes first."""
    root = tmp_path_factory.mktemp("grown") / "tuned"
    arguments = asked("gsm8k,math500", tiny_model, sets, root, samples=1)
    more: list[str | Path] = [
        "--baseline",
        measured[0],
        "--seed",
        "5",
        "--until-width",
        "0.0001",
        "--max-samples",
        "2",
        "--json",
    ]
    done = forks.start([*arguments, *more], root.parent, "grown")
    assert done.wait(120) == 0, done.err.read_text()
    return root, (json.loads(done.out.read_text())["benchmarks"], done.err.read_text())


def test_each_benchmark_is_held_against_its_own_baseline(measured: tuple[Path, Any], grown: tuple[Path, Any]) -> None:
    base, (before, _) = measured
    _, (found, _) = grown
    for name in ("gsm8k", "math500"):
        results, metrics = found[name]["results"], found[name]["results"]["metrics"]
        assert results["baseline"] == str(base / name)
        own = before["benchmarks"][name]["results"]["metrics"]
        for gain, figure in (("accuracy_gain", "accuracy"), ("token_saving", "tokens")):
            assert "questions are in one" not in (metrics[gain]["warning"] or ""), "they are the same"
            difference = metrics[figure]["value"] - own[figure]["value"]
            expected = difference if gain == "accuracy_gain" else -difference / own[figure]["value"]
            assert metrics[gain]["value"] == pytest.approx(expected)


def test_each_benchmark_is_sampled_until_its_own_interval_is_narrow(here: Cli, grown: tuple[Path, Any]) -> None:
    root, (found, said) = grown
    for name in ("gsm8k", "math500"):
        assert found[name]["path"] == str(root / name / "samples-0002")
        assert found[name]["protocol"]["figure"] == "mean@2"
        assert found[name]["results"]["samples"] == 12
    assert said.count("1 samples per question: the interval of accuracy_gain") == 2
    assert said.count("2 is the limit") == 2
    compared = here("compare", root, root, "--json")
    assert [one["name"] for one in json.loads(compared.stdout)["sets"]] == ["gsm8k", "math500"]


def test_a_benchmark_that_the_baseline_lacks_is_said_before_anything_is_sampled(
    here: Cli, measured: tuple[Path, Any], grown: tuple[Path, Any], sets: Path, tiny_model: Path, tmp_path: Path
) -> None:
    arguments = asked("gsm8k,mmlu-pro", tiny_model, sets, tmp_path / "out")
    for base in (measured[0], grown[0]):
        done = here(*arguments, "--baseline", base)
        assert done.returncode == 2
        assert f"the baseline {base} has no evaluation of mmlu-pro" in done.stderr
        assert "it has gsm8k, math500" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def others(
    forks: Forks, sets: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, str]]:
    """math500 by another protocol, another version of the same, and on fewer questions; and what is then said."""
    root = tmp_path_factory.mktemp("others")
    newer = (LIBRARY / "math500.deepseek.yaml").read_text().replace("version: 1", "version: 2")
    (root / "newer.yaml").write_text(newer)
    short = ("--set", "eval.max_new_tokens=4", "--set", "grading.workers=1", "--limit", "2")
    begun = {
        name: forks.start([*asked("math500", tiny_model, sets, root / name, samples=1), *short, *more], root, name)
        for name, more in (
            ("other", ("--protocol", "lighteval")),
            ("newer", ("--protocol", root / "newer.yaml")),
            ("fewer", ()),
        )
    }
    for one in begun.values():
        assert one.wait(120) == 0, one.err.read_text()
    said = {"other": "protocol.name is", "newer": "protocol.version is", "fewer": "questions"}
    return {name: (root / name / "math500", text) for name, text in said.items()}


def test_no_later_baseline_is_refused_after_hours(
    here: Cli,
    measured: tuple[Path, Any],
    others: dict[str, tuple[Path, str]],
    sets: Path,
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    """The first benchmark's could be compared, and still nothing of it is sampled."""
    out, base = tmp_path / "out", tmp_path / "base"
    base.mkdir()
    (base / "gsm8k").symlink_to(measured[0] / "gsm8k")
    for folder, said in others.values():
        (base / "math500").unlink(missing_ok=True)
        (base / "math500").symlink_to(folder)
        for more in ((), ("--until-width", "0.1")):
            done = here(*asked("gsm8k,math500", tiny_model, sets, out), "--baseline", base, *more)
            assert done.returncode == 2, said
            assert f"this evaluation was measured otherwise than {base / 'math500'}" in done.stderr
            assert said in done.stderr
    assert not list(out.rglob("*.arrow"))
    assert not (out / "gsm8k").exists()


def test_no_later_folder_is_refused_after_hours(
    here: Cli, measured: tuple[Path, Any], grown: tuple[Path, Any], sets: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """In the words in which it would be at its turn, and nothing of the first benchmark is sampled."""
    out = tmp_path / "out"
    out.mkdir()
    narrow = ("-n", "1", "--until-width", "0.1")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "samples-0002").symlink_to(grown[0] / "math500" / "samples-0002")
    for there, more, said in (
        (measured[0] / "math500", ("--set", "eval.temperature=0.5"), "other inputs: eval.temperature differs"),
        (measured[0] / "math500", ("--no-resume",), "it already holds data"),
        (measured[0] / "math500", narrow, "holds an evaluation itself"),
        (grown[0] / "math500", narrow, "other inputs: eval.seed differs"),
        (tmp_path / "two", narrow, "other inputs: eval.seed differs"),  # to which one sample would go on
    ):
        (out / "math500").unlink(missing_ok=True)
        (out / "math500").symlink_to(there)
        done = here(*asked("gsm8k,math500", tiny_model, sets, out), *more)
        assert done.returncode == 2, said
        assert said in done.stderr
        assert not (out / "gsm8k").exists()
        if there != tmp_path / "two":
            alone = here(*asked("math500", tiny_model, sets, out), *more)
            assert alone.stderr.splitlines()[-3:] == done.stderr.splitlines()[-3:]


def test_a_card_that_is_damaged_or_gone_is_found(
    here: Cli, measured: tuple[Path, Any], sets: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """And written again by the command that wrote it; the rows are not in the folder."""
    folder = shutil.copytree(measured[0], tmp_path / "out") / "math500"
    card = folder / "protocol.json"
    whole = read_json(card)
    assert verify(folder).findings == []
    for change, why in (
        ({"name": 3}, "name is of another type"),
        ({"version": 2}, "protocol.version is 2 in it, and 1 in the manifest"),
        ({"fingerprint": "0" * 16}, "protocol is"),
        ({"settings": [{**whole["settings"][0], "used": 7}]}, "eval.samples is 7 in it, and 2 in the manifest"),
        ({"deviations": []}, "its deviations are [], and its settings have"),
        (None, "it is gone"),
    ):
        if change is None:
            card.unlink()
        else:
            write_json(card, whole | change)
        (found,) = verify(folder).findings
        assert found.path == Path("protocol.json")
        assert why in found.problem
    refused = here("doctor", folder, "--repair")
    assert refused.returncode == 2
    assert "run the same `vpgea eval --benchmark` again" in refused.stderr
    assert here("compare", folder, folder).returncode == 2, "it is not complete"
    assert here(*asked("math500", tiny_model, sets, folder.parent)).returncode == 0
    assert here("doctor", folder).returncode == 0
    assert read_json(card) == whole
    plain = write_evaluation(tmp_path / "plain", [Sample(question=f"q{number}", correct=True) for number in range(5)])
    shutil.copy(card, plain)
    assert "it is of a protocol, and the samples were asked by none" in [one.problem for one in verify(plain).findings]


def test_a_regraded_folder_has_its_card_and_is_guarded_as_any_other(
    here: Cli, measured: tuple[Path, Any], others: dict[str, tuple[Path, str]], tmp_path: Path
) -> None:
    root, again = measured[0] / "math500", tmp_path / "again"
    assert here("regrade", root, "-o", again, "-q", "--set", "grading.workers=1").returncode == 0
    before, card = (read_record(one / "protocol.json", ProtocolCard) for one in (root, again))
    assert card == replace(before, regraded="by the same grader, math")
    assert here("compare", root, again).returncode == 0
    assert here("report", root, again, "-o", tmp_path / "page.html").returncode == 0
    assert "again was graded again</th>" in (tmp_path / "page.html").read_text()
    for folder, said in others.values():
        for command in (("compare", folder, again), ("report", again, folder, "-o", tmp_path / "none.html")):
            refused = here(*command)
            assert refused.returncode == 2, said
            assert said in refused.stderr


def test_a_card_names_the_grader_that_was_changed(
    here: Cli, measured: tuple[Path, Any], sets: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a known model's evaluation is held against its band by the new grades, and against nothing else."""
    name, out, again = "DeepSeek-R1-Distill-Qwen-7B", tmp_path / "out", tmp_path / "again"
    shutil.copytree(measured[0], out)
    monkeypatch.setattr(protocol_results, "known_model", lambda *_: published_model(name))  # its size is not tiny
    done = here(*asked("gsm8k,math500", tiny_model, sets, out))
    for value in ("0.920", "0.892"):
        of = "DeepSeek-R1-Distill-Qwen-1.5B or DeepSeek-R1-Distill-Qwen-7B"
        assert f"gsm8k: VPG-EA states {value} of {of} ({UNATTRIBUTED})" in " ".join(done.stderr.split())
    plain = read_record(out / "gsm8k" / "protocol.json", ProtocolCard)
    assert (plain.model, plain.reproduction) == (name, None)
    monkeypatch.undo()
    regraded = ("regrade", out / "math500", "--set", "grading.workers=1")
    assert here(*regraded, "-o", again, "--grader", "exact", "-q").returncode == 0
    before, card = (read_record(one / "protocol.json", ProtocolCard) for one in (out / "math500", again))
    assert card.regraded == "grading.grader is exact, and was math"
    assert card.deviations == [*before.deviations, "grading.grader is exact, not math"]
    assert (card.shown, card.rows, card.figure) == (before.shown, before.rows, before.figure)
    found = read_json(again / "results.json")["metrics"]["accuracy"]
    assert card.reproduction is not None
    assert (card.reproduction.model, card.reproduction.verdict) == (name, "not comparable")
    assert "grading.grader is exact" in card.reproduction.why
    assert card.reproduction.accuracy == found["value"]
    (out / "math500" / "protocol.json").unlink()
    lost = here("regrade", out / "math500", "-o", tmp_path / "lost")
    assert lost.returncode == 2
    assert "has no protocol.json" in lost.stderr
    assert not (tmp_path / "lost").exists()


def test_the_prompt_of_the_training_is_told_apart(here: Cli, sets: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Also where the set has letters, an official examples' split is missing, and the rows are an own file."""
    arguments = ("eval", "--model", tiny_model, "-o", tmp_path / "out", *SMALL, "-n", "1")
    file = sets / "math500" / "test.jsonl.gz"
    done = here(*arguments, "--benchmark", "math500", "--protocol", "lighteval", "--dataset", file)
    assert done.returncode == 0, done.stderr
    assert "--- the training's template would ask ---" in done.stderr
    card = read_record(tmp_path / "out" / "math500" / "protocol.json", ProtocolCard)
    assert card.shown.user_turn.startswith("Solve the following problem. The final line")
    assert card.shown.training_turn.endswith(r"put your final answer within \boxed{}.")
    lacking = here(*arguments, "--benchmark", "mmlu-pro", "--protocol", "official", "--dataset", sets, "--offline")
    assert lacking.returncode == 2
    assert "the 5 examples of protocol official are not here" in lacking.stderr
    assert "put validation.jsonl beside the questions" in lacking.stderr


def test_official_examples_and_the_guess(here: Cli, sets: Path, tiny_model: Path, tmp_path: Path) -> None:
    with gzip.open(sets / "mmlu_pro" / "test.jsonl.gz", "rt") as packed:
        rows = [json.loads(line) for line in packed][:6]
    folder = tmp_path / "mmlu_pro"
    folder.mkdir()
    shutil.copy(sets / "mmlu_pro" / "test.jsonl.gz", folder)
    with (folder / "validation.jsonl").open("w") as file:
        for number in range(5):
            for category in {row["category"] for row in rows}:
                solution = f"A: Let's think step by step. It is {number}. The answer is (A)."
                row = {"question": f"Which is {number}?", "options": ["x", "y"], "answer": "A"}
                file.write(json.dumps(row | {"category": category, "cot_content": solution}) + "\n")
    out = tmp_path / "out"
    arguments = ("eval", "--model", tiny_model, "-o", out, *SMALL, "--benchmark", "mmlu-pro", "--protocol", "official")
    done = here(*arguments, "--dataset", tmp_path, "--set", "views.max_prompt_tokens=100000", "--json")
    assert done.returncode == 0, done.stderr
    card = read_record(out / "mmlu-pro" / "protocol.json", ProtocolCard)
    assert card.example_rows is not None
    assert card.shown.user_turn.count("Answer: Let's think step by step. It is") == 5
    assert card.shown.user_turn.endswith("Answer: Let's think step by step.")
    metrics = json.loads(done.stdout)["benchmarks"]["mmlu-pro"]["results"]["metrics"]
    assert metrics["accuracy_guessed"]["value"] >= metrics["accuracy"]["value"]
    assert "have no answer and count as guesses" in metrics["accuracy_guessed"]["warning"]
    again = here("regrade", out / "mmlu-pro", "-o", tmp_path / "again", "--grader", "choice")
    assert again.returncode == 0, again.stderr


def test_what_is_refused(here: Cli, sets: Path, tiny_model: Path, tmp_path: Path) -> None:
    start = ("eval", "--model", tiny_model, "-o", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        (("--protocol", "deepseek"), "--protocol is given without --benchmark"),
        (("--benchmark", "math"), "did you mean math500?"),
        (("--benchmark", "gsm8k", "--protocol", "simple-evals"), "gsm8k has no protocol named 'simple-evals'"),
        (("--benchmark", "gsm8k,gsm8k"), "or one twice"),
        (("--benchmark", "gsm8k,,math500"), "between two commas"),
        (("--benchmark", "gsm8k", "--protocol", tmp_path / "none.yaml"), "No such file"),
        (("--benchmark", "gsm8k", "--protocol", tmp_path / "none"), "protocol cannot be used"),
        (("--benchmark", "gsm8k", "--list"), "--list does not go with --model"),
        (("--benchmark", "gsm8k", "--evalset", "gsm8k"), "does not go with --evalset"),
        (("--benchmark", "aime24", "--dataset", sets), "aime/aime24.jsonl"),
        (("--benchmark", "aime24", "--dataset", tmp_path / "empty"), "the rows of aime24 are not in"),
        (("--benchmark", "aime24", "--offline"), "the rows of aime24 are not here"),
    ):
        done = here(*start, *arguments)
        assert done.returncode == 2, arguments
        assert words in done.stderr, arguments
    assert not (tmp_path / "out").exists()


def test_the_list_needs_nothing(here: Cli) -> None:
    found = json.loads(here("eval", "--list", "--json").stdout)["protocols"]
    official = next(one for one in found if (one["benchmark"], one["protocol"]) == ("mmlu-pro", "official"))
    assert (official["rows"], official["samples"], official["examples"]) == (12032, 12032, 5)
    listed = here("eval", "--list", "--benchmark", "gpqa-diamond").stdout
    assert "gpqa-diamond" in listed
    assert "mmlu-pro" not in listed
    for arguments, words in (
        (("--protocol", "offcial"), "--list knows no protocol named 'offcial'"),
        (("--protocol", "offcial"), "did you mean official?"),
        (("--benchmark", "math50"), "did you mean math500?"),
        (("-n", "4"), "--list does not go with --num-samples"),
        (("--no-resume",), "--list does not go with --resume"),
    ):
        done = here("eval", "--list", *arguments)
        assert done.returncode == 2, arguments
        assert words in done.stderr, arguments
