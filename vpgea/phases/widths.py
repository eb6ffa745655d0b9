"""An evaluation that samples more per question until an interval is as narrow as asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from vpgea.config.schema import RunConfig
from vpgea.engines.base import GenerateRequest
from vpgea.engines.kept import request_digests
from vpgea.engines.lease import LOGS, EngineLease, lent
from vpgea.errors import UsageError
from vpgea.metrics.estimates import Estimate
from vpgea.phases.evaluate import EvalPlan, evaluate, require_ready
from vpgea.phases.rollout import Drawing
from vpgea.protocols.asking import Asked
from vpgea.questions.load import Question
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.journals import Journals
from vpgea.runs.layout import PARTS, chunk_number, samples_dir, samples_numbers
from vpgea.runs.overwriting import clear, require_clearable
from vpgea.runs.parts import WHOLE, Part
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.runs.progress import NullProgress, Progress
from vpgea.runs.records import EvalResults
from vpgea.runs.stopping import StopRequest
from vpgea.storage.journal import KeptRow
from vpgea.storage.rows import read_rows
from vpgea.storage.schemas import GradedRow

MAX_SAMPLES = 64


@dataclass(frozen=True)
class Width:
    """How narrow the interval shall be, as a share (0.02 is two points), and the most samples per question."""

    width: float
    max_samples: int

    @classmethod
    def asked(cls, width: float | None, max_samples: int | None, config: RunConfig, part: Part) -> Width | None:
        """What two options say; None where neither is given.

        Raises:
            UsageError: They contradict each other, or the rest.
        """
        most = MAX_SAMPLES if max_samples is None else max_samples
        if width is None and max_samples is None:
            return None
        why = None
        if width is None:
            why = "--max-samples is where --until-width ends, and that was not given"
        elif not 0 < width < 1:
            why = f"a width of {width:g} is none of a share"
        elif most < config.eval.samples:
            why = f"it begins with {config.eval.samples} samples per question and shall end at {most}"
        elif part != WHOLE:
            why = "the interval is that of all parts, and no part knows the others"
        if why is not None or width is None:
            mend = "give e.g. --until-width 0.02 -n 4 --max-samples 64, without --shard"
            raise UsageError("there is no such end of sampling", why=why or "", mend=mend)
        return cls(width, most)


def evaluate_until(
    config: RunConfig,
    questions: Sequence[Question],
    output_dir: Path,
    width: Width,
    *,
    lease: EngineLease | None = None,
    resume: bool = True,
    overwrite: bool = False,
    stop: StopRequest | None = None,
    progress_of: Callable[[], AbstractContextManager[Progress]] = lambda: nullcontext(NullProgress()),
    say: Callable[[str], None] = lambda text: None,
    asked: Asked | None = None,
) -> tuple[Path, EvalResults]:
    """Evaluate with eval.samples per question, then twice as many, until the interval is narrow or the limit reached.

    The interval is that of the gain in accuracy where there is a baseline, else that of the accuracy. Each number of
    samples has an evaluation folder of its own below the output folder, and takes over the samples of the one before.
    The last one counts wherever the folder is read, so the next call goes on to it however wide an interval it is
    asked for. Nothing ends the sampling but the interval's width, which depends on the accuracy, too (docs/eval.md).

    Returns:
        The last folder, and its results.

    Raises:
        UsageError: There is no interval, since there are too few questions, or the output folder is an evaluation
            itself; or what `evaluate` raises, as it does.
    """
    stop = stop or StopRequest()
    _require_no_evaluation(output_dir)
    samples, before = config.eval.samples, None
    with lent(lease, output_dir / LOGS, stop) as engines:
        while True:
            step = _with_samples(config, samples)
            folder = samples_dir(output_dir, samples)
            if before is not None:
                _take_over(before, step, questions, folder, stop=stop, resume=resume, asked=asked)
            is_first = before is None
            with progress_of() as progress:
                found = evaluate(
                    step,
                    questions,
                    folder,
                    lease=engines,
                    resume=resume or not is_first,
                    overwrite=overwrite and is_first,
                    stop=stop,
                    progress=progress,
                    asked=asked,
                )
            assert found is not None, "there is one part"
            if overwrite and is_first:
                _clear_others(output_dir, samples)
            following = _following(found, output_dir, samples, width, say)
            if following is None:
                return folder, found
            before, samples = folder, following


def require_ready_until(
    config: RunConfig,
    questions: Sequence[Question],
    output_dir: Path,
    *,
    resume: bool = True,
    overwrite: bool = False,
    asked: Asked | None = None,
) -> None:
    """Raise what `evaluate_until` would raise before its first sample, or later of folders that are there already.

    Raises:
        UsageError: As `evaluate_until` does.
    """
    _require_no_evaluation(output_dir)
    first = config.eval.samples
    for samples in sorted({first, *samples_numbers(output_dir)}):
        folder = samples_dir(output_dir, samples)
        if overwrite and samples != first:
            require_clearable(folder, "eval", count=1)
        elif samples >= first:
            step = _with_samples(config, samples)
            require_ready(step, questions, folder, resume=resume, overwrite=overwrite, asked=asked)


def _with_samples(config: RunConfig, samples: int) -> RunConfig:
    return config.model_copy(update={"eval": config.eval.model_copy(update={"samples": samples})})


def _require_no_evaluation(output_dir: Path) -> None:
    if (output_dir / PARTS).is_dir():
        raise UsageError(
            f"{output_dir} holds an evaluation itself",
            why="with --until-width it holds one for each number of samples, of which the last one counts",
            mend="choose another --output-dir",
        )


def _following(
    found: EvalResults, output_dir: Path, samples: int, width: Width, say: Callable[[str], None]
) -> int | None:
    """The samples per question to go on to: the next number that was begun, or twice as many; None at the end."""
    name = "accuracy" if found.baseline is None else "accuracy_gain"
    reached = _width_of(name, found.metrics[name])
    say(f"{samples} samples per question: the interval of {name} is {reached:.4f} wide")
    if later := [number for number in samples_numbers(output_dir) if number > samples]:
        return later[0]
    if reached <= width.width:
        return None
    if samples >= width.max_samples:
        say(f"it is wider than {width.width:g}, and {samples} is the limit: more questions narrow it")
        return None
    return min(2 * samples, width.max_samples)


def _width_of(name: str, estimate: Estimate) -> float:
    if estimate.low is None or estimate.high is None:
        raise UsageError(
            f"{name} has no interval that could become narrow",
            why=estimate.warning or "it is not defined on these samples",
            mend="give more questions",
        )
    return estimate.high - estimate.low


def _clear_others(output_dir: Path, samples: int) -> None:
    """Delete what was overwritten: a folder of more samples would count as the result of what is sampled now."""
    for number in samples_numbers(output_dir):
        if number != samples:
            clear(samples_dir(output_dir, number), "eval", count=1)
            samples_dir(output_dir, number).rmdir()


def _take_over(
    before: Path,
    config: RunConfig,
    questions: Sequence[Question],
    folder: Path,
    *,
    stop: StopRequest,
    resume: bool,
    asked: Asked | None,
) -> None:
    """Begin an evaluation with the samples of one that had fewer: they are kept as those of an earlier attempt are."""
    source = CompletePhase.open(before, "eval")
    plan = EvalPlan.make(config, questions, begun=source.manifest.inputs, asked=asked)
    opened = PhaseFolder.open(folder, plan.manifest, resume=resume)
    missing = set(opened.missing(plan.sampling.own_chunks))
    shards = {chunk_number(path): path for path in source.chunks()}
    with opened.writing(), Journals(opened, sorted(missing), stop, NullProgress()) as journals:
        sampling = Drawing(plan.sampling, [], journals, stop).sampling
        for chunk in sorted(missing - journals.chunks):
            rows = [row.sample for row in read_rows(shards[chunk], GradedRow)]
            requests = [GenerateRequest(row.prompt_ids.tolist(), row.seed) for row in rows]
            for row, digest in zip(rows, request_digests(requests, sampling), strict=True):
                kept = KeptRow(
                    request=digest,
                    completion_ids=row.completion_ids,
                    logprobs=row.logprobs,
                    finish_reason=row.finish_reason,
                )
                journals.add(chunk, kept, engine=row.origin.engine, logprobs_of=row.origin.logprobs_of)
