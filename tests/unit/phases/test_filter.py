"""The filter as a phase: what it refuses, how it resumes, and that its parts make one whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from examples.overthinker_families.truth import is_sound
from tests.support import overthinker, rollouts, tiny
from tests.support.measured_rows import selection
from vpgea.config.schema import RunConfig
from vpgea.engines.base import Engine
from vpgea.engines.lease import EngineLease
from vpgea.errors import DamagedError, QualityGateError, Stopped, UsageError
from vpgea.inspection.verify import verify
from vpgea.modeling.local_model import LocalModel
from vpgea.phases.filter import filter_rollout
from vpgea.runs.complete_phase import CompletePhase, chunk_paths
from vpgea.runs.layout import MANIFEST, TIMES
from vpgea.runs.manifest import Manifest
from vpgea.runs.parts import WHOLE, Part, part_folder
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.runs.progress import NullProgress
from vpgea.runs.records import FilterSummary, PartMarker
from vpgea.runs.stopping import StopRequest
from vpgea.storage.files import file_checksum, read_json, write_json
from vpgea.storage.records import read_record
from vpgea.storage.shards import read_table, write_table


class NoEngine(EngineLease):
    """Whoever asks it for a model has done too much."""

    def get(self, config: RunConfig, model: LocalModel) -> Engine:
        raise AssertionError("the model was loaded")


@pytest.fixture(scope="module")
def undisturbed(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filter") / "undisturbed"
    filter_rollout(overthinker.config(), drawn, folder)
    return folder


@pytest.fixture
def finished(undisturbed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(undisturbed, tmp_path / "finished"))


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != TIMES)
    return {str(path.relative_to(folder)): file_checksum(path) for path in files}


# --- a whole from parts, resumed or not ----------------------------------------------------------------------------


def test_a_finished_filter_loads_no_model_and_changes_nothing(drawn: Path, finished: Path) -> None:
    before = contents(finished)
    config = overthinker.config()
    again = filter_rollout(config, drawn, finished, lease=NoEngine(Path("logs"), StopRequest()))
    assert again == read_record(finished / "summary.json", FilterSummary)
    assert contents(finished) == before


@pytest.mark.parametrize("lost", ["summary.json", "selected/chunk-00001.arrow", "rejected/chunk-00002.json"])
def test_what_is_lost_of_the_selection_is_made_again_without_a_model(drawn: Path, finished: Path, lost: str) -> None:
    before = contents(finished)
    (finished / lost).unlink()
    config = overthinker.config()
    filter_rollout(config, drawn, finished, lease=NoEngine(Path("logs"), StopRequest()))
    assert contents(finished) == before


def test_two_parts_select_what_one_part_does(drawn: Path, undisturbed: Path, tmp_path: Path) -> None:
    config, folder = overthinker.config(), tmp_path / "parts"
    assert filter_rollout(config, drawn, folder, part=Part(1, 2)) is None, "one part is no selection"
    assert not (folder / "selected").exists()
    summary = filter_rollout(config, drawn, folder, part=Part(0, 2))
    assert summary == read_record(undisturbed / "summary.json", FilterSummary)
    assert selection(folder) == selection(undisturbed)
    assert rollouts.bytes_of(folder) == rollouts.bytes_of(undisturbed)
    with pytest.raises(UsageError, match="2 parts"):
        filter_rollout(config, drawn, folder, part=Part(0, 4))


class StopAfter(NullProgress):
    """Asks for a stop once so many chunks are done."""

    def __init__(self, stop: StopRequest, chunks: int) -> None:
        self.stop, self.left = stop, chunks

    def advance(self, steps: int, tokens: int = 0) -> None:
        self.left -= steps
        if self.left == 0 and steps:
            self.stop.request("a test")


def test_a_stop_leaves_committed_chunks_and_the_rest_is_measured_later(
    drawn: Path, undisturbed: Path, tmp_path: Path
) -> None:
    config, folder, stop = overthinker.config(), tmp_path / "stopped", StopRequest()
    with pytest.raises(Stopped):
        filter_rollout(config, drawn, folder, stop=stop, progress=StopAfter(stop, 2))
    assert rollouts.committed(folder) == 2
    with pytest.raises(UsageError, match="not complete"):
        CompletePhase.open(folder, "filter")
    filter_rollout(config, drawn, folder)
    assert contents(folder) == contents(undisturbed)


def test_another_threshold_is_refused_by_name(drawn: Path, finished: Path) -> None:
    with pytest.raises(UsageError, match=r"filter\.answerability\.threshold"):
        filter_rollout(overthinker.config(filter__answerability__threshold=1.0), drawn, finished)
    with pytest.raises(UsageError, match="--no-resume"):
        filter_rollout(overthinker.config(), drawn, finished, resume=False)
    summary = filter_rollout(overthinker.config(filter__answerability__threshold=1.0), drawn, finished, overwrite=True)
    assert summary is not None


# --- what is refused -----------------------------------------------------------------------------------------------


def test_where_most_samples_were_cut_off_the_way_out_is_a_larger_cap(tmp_path: Path) -> None:
    config = overthinker.config(rollout__max_new_tokens=3, data__limit=4)
    rollouts.run(config, tmp_path / "rollout")
    with pytest.raises(QualityGateError, match="0 samples are left") as error:
        filter_rollout(config, tmp_path / "rollout", tmp_path / "filter")
    assert "were cut off before their thinking ended" in error.value.mend
    assert "rollout.max_new_tokens (it was 3)" in error.value.mend


@pytest.fixture
def refused(drawn: Path, tmp_path: Path) -> Callable[..., UsageError]:
    """`refused(config, rollout)`: the error; nothing was written."""

    def call(config: RunConfig, rollout: Path = drawn) -> UsageError:
        with pytest.raises(UsageError) as caught:
            filter_rollout(config, rollout, tmp_path / "out", lease=NoEngine(Path("logs"), StopRequest()))
        assert not (tmp_path / "out").exists()
        return caught.value

    return call


def test_an_unfinished_rollout_is_refused(drawn: Path, tmp_path: Path, refused: Callable[..., UsageError]) -> None:
    copy = Path(shutil.copytree(drawn, tmp_path / "copy"))
    (copy / "COMPLETE").unlink()
    (copy / "parts" / "0-of-1" / "COMPLETE").unlink()
    assert "not complete" in refused(overthinker.config(), copy).what


def test_samples_of_another_model_or_template_are_refused(tmp_path: Path, refused: Callable[..., UsageError]) -> None:
    other = Path(shutil.copytree(overthinker.ROOT / "base-global", tmp_path / "model"))
    tiny_weights = tiny.make_model(tmp_path / "tiny") / "model.safetensors"
    shutil.copy(tiny_weights, other / "model.safetensors")
    assert "another model" in refused(overthinker.config(model__path=str(other))).what
    template = tmp_path / "template.yaml"
    text = (overthinker.ROOT / "template.yaml").read_text(encoding="utf-8")
    template.write_text(text.replace("keep this private", "keep it private"), encoding="utf-8")
    assert "another template" in refused(overthinker.config(views__template=str(template))).what


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rollout.temperature", 0.5),
        ("rollout.top_p", 0.9),
        ("rollout.top_k", 5),
        ("rollout.seed", 7),
        ("model.dtype", "bfloat16"),
    ],
)
def test_sampling_other_than_the_rollouts_is_refused(key: str, value: Any, refused: Callable[..., UsageError]) -> None:
    error = refused(overthinker.config(**{key: value}))
    assert "sampled otherwise" in error.what
    assert error.why.startswith(key)


def test_reference_lengths_that_are_none_are_refused(tmp_path: Path, refused: Callable[..., UsageError]) -> None:
    file = tmp_path / "lengths.json"
    assert "file not found" in refused(overthinker.config(filter__reference_lengths=str(file))).what
    write_json(file, {"questions": []})
    assert "reference lengths" in refused(overthinker.config(filter__reference_lengths=str(file))).what


def test_gates_by_log_ratio_need_the_models_own_log_probabilities(tmp_path: Path) -> None:
    options = {"rollout__temperature": 0.8, "data__limit": 2}
    rollouts.run(overthinker.config(**options), tmp_path / "rollout")
    for gate in ("plausible", "importance"):
        config = overthinker.config(**options, filter__advantage__gate=gate)
        with pytest.raises(UsageError, match=f"gate={gate} cannot be used with this sampling"):
            filter_rollout(config, tmp_path / "rollout", tmp_path / "out")
    summary = filter_rollout(overthinker.config(**options), tmp_path / "rollout", tmp_path / "out")
    assert summary is not None
    assert summary.elbo == summary.plausibility_limits == "not available (truncated support)"


def test_the_contrast_gate_needs_note_dependence(refused: Callable[..., UsageError]) -> None:
    config = overthinker.config(filter__advantage__gate="contrast", filter__note_dependence__enabled=False)
    assert "gate=contrast has nothing" in refused(config).what


def test_a_damaged_rollout_shard_is_named(drawn: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(drawn, tmp_path / "copy"))
    shard = chunk_paths(copy)[2]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UsageError, match=shard.name) as caught:
        filter_rollout(overthinker.config(), copy, tmp_path / "out")
    assert caught.value.exit_code == 2


def test_a_rollout_that_has_lost_rows_is_damaged_though_its_records_agree(drawn: Path, tmp_path: Path) -> None:
    """A check looks at a question's samples of both views; doctor finds it, too."""
    part = part_folder(drawn, WHOLE)
    folder = PhaseFolder.open(tmp_path / "rollout", Manifest.read(part / MANIFEST))
    for path in chunk_paths(drawn):
        table = read_table(path)
        if path.name == "chunk-00000.arrow":
            first = table["question_id"][0].as_py()
            table = table.filter((pc.field("view") != "posterior") | (pc.field("question_id") != first))
        write_table(folder.part / path.name, table)
    folder.complete(PartMarker.read(part).summary)
    with pytest.raises(DamagedError, match=r"damaged shard: .*chunk-00000") as told:
        filter_rollout(overthinker.config(), folder.root, tmp_path / "out")
    assert f"samples of question {first} that were drawn" in told.value.why
    assert [one.problem for one in verify(folder.root).findings] == [told.value.why]


# --- quality gates -------------------------------------------------------------------------------------------------

GRADER = """
def grade(*, response, reference, question):
    if "9 " in question:
        raise ValueError("this one is too hard")
    return response.split("{")[-1].split("}")[0].strip() == reference
"""


def test_too_many_grader_errors_are_a_quality_gate(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_broken.py").write_text(GRADER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    options: dict[str, Any] = {"grading__grader": "half_broken:grade"}
    with pytest.raises(QualityGateError, match="could not be graded") as caught:
        filter_rollout(overthinker.config(**options), drawn, tmp_path / "out")
    assert caught.value.exit_code == 3
    assert "this one is too hard" in caught.value.why, "the reason is not lost"
    config = overthinker.config(**options, grading__max_grade_errors=1.0)
    summary = filter_rollout(config, drawn, tmp_path / "out", lease=NoEngine(Path("logs"), StopRequest()))
    assert summary is not None, "what was measured counts when more errors are allowed"
    assert summary.counts["prior_not_graded"] > 0
    assert summary.counts["posterior_rejected_error"] > 0


def test_nothing_selected_is_a_quality_gate_and_the_summary_is_there(drawn: Path, tmp_path: Path) -> None:
    config = overthinker.config(filter__min_selected=10_000)
    for _ in range(2):
        with pytest.raises(QualityGateError, match="left to learn from") as caught:
            filter_rollout(config, drawn, tmp_path / "out")
        assert caught.value.exit_code == 3
    assert read_json(tmp_path / "out" / "summary.json")["counts"]["posterior_sampled"] == 24
    assert filter_rollout(overthinker.config(filter__min_selected=0), drawn, tmp_path / "out") is not None


# --- the checks do their job ---------------------------------------------------------------------------------------


def test_accepted_paths_are_sound_where_correct_ones_are_not(tmp_path: Path) -> None:
    """Ground truth is known on the testbed. Loose bounds: the sample is small."""
    sizes = {"data__limit": 40, "rollout__questions_per_chunk": 40, "rollout__prior_samples": 1}
    config = overthinker.config(**sizes, rollout__posterior_samples=4, filter__plausibility__enabled=False)
    rollouts.run(config, tmp_path / "rollout")
    filter_rollout(config, tmp_path / "rollout", tmp_path / "out")
    questions = {row["question_id"]: row["question"] for row in rollouts.rows_of(tmp_path / "rollout")}
    correct, accepted = [], []
    for (question, view, _), row in selection(tmp_path / "out").items():
        if view == "posterior" and row["status"] == "correct":
            sound = is_sound(questions[question], row["completion"].split("</think>")[0])
            correct.append(sound)
            accepted += [sound] * row["selected"]
    assert len(accepted) >= 30, "the checks leave something to learn from"
    assert sum(correct) / len(correct) < 0.8
    assert sum(accepted) / len(accepted) >= 0.95


def test_the_summary_is_json(undisturbed: Path) -> None:
    text = (undisturbed / "summary.json").read_text(encoding="utf-8")
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
