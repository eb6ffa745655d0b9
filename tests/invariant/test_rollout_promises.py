"""The three promises of the data, each under its name."""

from __future__ import annotations

import itertools
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support import tiny
from tests.support.forks import COMMAND_LINE, Forks
from tests.support.rollouts import bytes_of, committed, rows_of, run
from vpgea.config.schema import RunConfig
from vpgea.engines.base import ScoreRequest
from vpgea.engines.lease import EngineLease
from vpgea.errors import Stopped, UsageError
from vpgea.modeling.local_model import LocalModel
from vpgea.runs.complete_phase import CompletePhase, chunk_paths
from vpgea.runs.parts import Part, part_folders
from vpgea.runs.progress import NullProgress
from vpgea.runs.stopping import StopRequest
from vpgea.storage.schemas import POSTERIOR, PRIOR, SampleKey
from vpgea.storage.shards import shard_files

KEY = ("question_id", "view", "sample_index")
MANY = [{**row, "id": f"{row['id']}-{copy}"} for copy in range(4) for row in tiny.QUESTIONS]


class StopAfter(NullProgress):
    """Asks for a stop after so many sampled tokens."""

    def __init__(self, stop: StopRequest, tokens: int) -> None:
        self.stop, self.left = stop, tokens

    def advance(self, steps: int, tokens: int = 0) -> None:
        self.left -= tokens
        if self.left <= 0:
            self.stop.request("a test")


# --- no row lost or twice -------------------------------------------------------------------------------------------


def command(config: RunConfig, folder: Path) -> list[str]:
    options = {
        "--model": config.model.path,
        "--dataset": config.data.dataset,
        "--output-dir": str(folder),
        "--prior-samples": str(config.rollout.prior_samples),
        "--posterior-samples": str(config.rollout.posterior_samples),
    }
    keys = ("max_new_tokens", "questions_per_chunk", "batch_size")
    sets = [f"rollout.{key}={getattr(config.rollout, key)}" for key in keys]
    sets += ["model.threads=1", "model.device=cpu", "views.max_prompt_tokens=1024"]
    arguments = [text for pair in options.items() for text in pair] + [x for text in sets for x in ("--set", text)]
    return ["rollout", *arguments]


# Beside the command a thread kills it, a moment after so many chunks of a folder are committed.
KILLED = f"""
import os, sys, threading, time
from pathlib import Path
from tests.support.rollouts import committed
folder, goal, delay = Path(sys.argv.pop(1)), int(sys.argv.pop(1)), float(sys.argv.pop(1))

def strike():
    while committed(folder) < goal:
        time.sleep(0.005)
    time.sleep(delay)
    os.kill(os.getpid(), 9)

threading.Thread(target=strike, daemon=True).start()
{COMMAND_LINE}
"""


def test_no_row_lost_or_twice_when_killed_at_any_moment(
    run_config: Callable[..., RunConfig], forks: Forks, tmp_path: Path
) -> None:
    dataset = tiny.write_questions(tmp_path / "many.jsonl", MANY)
    config = run_config(data__dataset=str(dataset), rollout__questions_per_chunk=1, rollout__batch_size=4)
    out, rng = tmp_path / "out", random.Random(0)
    for _ in range(5):
        goal, delay = committed(out) + rng.randrange(1, 4), rng.random() * 0.03
        words: list[str | Path] = [out, str(goal), str(delay), *command(config, out)]
        process = forks.start(words, tmp_path, "rollout", script=KILLED)
        assert process.wait(100) == -signal.SIGKILL, process.err.read_text()
    assert 6 <= committed(out) < len(MANY)
    assert not (out / "COMPLETE").exists()
    run(config, out)
    identities = Counter(tuple(row[name] for name in KEY) for row in rows_of(out))
    assert identities == Counter(itertools.product((row["id"] for row in MANY), (PRIOR, POSTERIOR), range(4)))
    assert not list(out.rglob("*.tmp"))
    run(config, tmp_path / "straight")
    assert bytes_of(out) == bytes_of(tmp_path / "straight")


def test_no_row_lost_or_twice_over_parts(run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    for index in range(5):  # more parts than the three chunks
        run(run_config(), tmp_path, part=Part(index, 5))
    identities = Counter(tuple(row[name] for name in KEY) for row in rows_of(tmp_path))
    assert identities == Counter(itertools.product((row["id"] for row in tiny.QUESTIONS), (PRIOR, POSTERIOR), range(4)))
    assert CompletePhase.open(tmp_path, "rollout")


def test_a_shard_that_is_lost_after_completion_is_drawn_again_the_same(
    run_config: Callable[..., RunConfig], tiny_rollout: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny_rollout, tmp_path / "copy"))
    for path in (chunk_paths(copy)[1], chunk_paths(copy)[1].with_suffix(".json")):
        path.unlink()
    with pytest.raises(UsageError, match=r"chunk-00001\.arrow"):
        chunk_paths(copy)
    assert run(run_config(), copy).drawn_now == 1
    assert bytes_of(copy) == bytes_of(tiny_rollout)


# --- bitwise the same -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [1, 300, 600])
def test_bitwise_the_same_when_stopped_and_resumed(
    run_config: Callable[..., RunConfig], tiny_rollout: Path, tmp_path: Path, tokens: int
) -> None:
    stop = StopRequest()
    with pytest.raises(Stopped):
        run(run_config(), tmp_path, stop=stop, progress=StopAfter(stop, tokens))
    assert committed(tmp_path) < 3
    run(run_config(), tmp_path)
    assert bytes_of(tmp_path) == bytes_of(tiny_rollout)
    assert (
        CompletePhase.open(tmp_path, "rollout").content_fingerprint
        == CompletePhase.open(tiny_rollout, "rollout").content_fingerprint
    )


def test_bitwise_the_same_in_parts(run_config: Callable[..., RunConfig], tiny_rollout: Path, tmp_path: Path) -> None:
    for index in (1, 0):
        run(run_config(), tmp_path, part=Part(index, 2))
    assert [len(shard_files(part)) for part in part_folders(tmp_path)] == [2, 1]
    assert bytes_of(tmp_path) == bytes_of(tiny_rollout)
    assert (
        CompletePhase.open(tmp_path, "rollout").content_fingerprint
        == CompletePhase.open(tiny_rollout, "rollout").content_fingerprint
    )


def test_a_finished_rollout_has_nothing_left_to_do(run_config: Callable[..., RunConfig], tiny_rollout: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny_rollout.rglob("*") if path.is_file()}
    assert run(run_config(), tiny_rollout).drawn_now == 0
    assert {path: path.stat().st_mtime_ns for path in tiny_rollout.rglob("*") if path.is_file()} == before


# --- the same distribution ------------------------------------------------------------------------------------------


def test_the_same_distribution_with_another_batch_size(
    run_config: Callable[..., RunConfig], tiny_rollout: Path, tmp_path: Path
) -> None:
    run(run_config(rollout__batch_size=5), tmp_path)
    pairs = list(zip(rows_of(tiny_rollout), rows_of(tmp_path), strict=True))
    for one, other in pairs:
        assert all(one[name] == other[name] for name in (*KEY, "seed", "prompt_ids"))
        if one["completion_ids"] == other["completion_ids"]:
            np.testing.assert_allclose(one["logprobs"], other["logprobs"], atol=1e-4)
    assert sum(one["completion_ids"] == other["completion_ids"] for one, other in pairs) >= 0.95 * len(pairs)


def test_stored_log_probabilities_are_those_of_the_model_under_the_sampling_view(
    run_config: Callable[..., RunConfig], tiny_rollout: Path, tmp_path: Path
) -> None:
    rows = rows_of(tiny_rollout)
    with EngineLease(tmp_path, StopRequest()) as lease:
        scored = lease.get(run_config(), LocalModel.resolve(run_config().model)).score(
            [ScoreRequest([*row["prompt_ids"], *row["completion_ids"]], len(row["prompt_ids"])) for row in rows]
        )
    for row, logprobs in zip(rows, scored, strict=True):
        np.testing.assert_allclose(row["logprobs"], logprobs, atol=1e-4)


def test_seeds_come_from_the_identity_alone(
    run_config: Callable[..., RunConfig], tiny_rollout: Path, tmp_path: Path
) -> None:
    dataset = tiny.write_questions(tmp_path / "reversed.jsonl", tiny.QUESTIONS[::-1])
    run(run_config(data__dataset=str(dataset), rollout__questions_per_chunk=3), tmp_path / "out")
    seeds = {tuple(row[name] for name in KEY): row["seed"] for row in rows_of(tiny_rollout)}
    assert {tuple(row[name] for name in KEY): row["seed"] for row in rows_of(tmp_path / "out")} == seeds
    assert len(set(seeds.values())) == len(seeds)
    assert seeds["q3", "posterior", 2] == SampleKey(0, "q3", POSTERIOR, 2).seed(0)


def test_rounds_run_seeds_and_uses_have_seeds_of_their_own() -> None:
    base = SampleKey(0, "q", PRIOR, 0).seed(0)
    others = [
        SampleKey(0, "q", PRIOR, 0).seed(1),
        SampleKey(1, "q", PRIOR, 0).seed(0),
        SampleKey(0, "r", PRIOR, 0).seed(0),
        SampleKey(0, "q", POSTERIOR, 0).seed(0),
        SampleKey(0, "q", PRIOR, 1).seed(0),
        SampleKey(0, "q", PRIOR, 0).seed(0, "answerability/0"),
    ]
    assert len({base, *others}) == 7
    assert all(0 <= seed < 2**64 for seed in (base, *others))
