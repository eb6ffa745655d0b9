"""What a run's finished rounds say of themselves: the one reader of their records."""

from __future__ import annotations

import itertools
import json
from contextlib import suppress
from pathlib import Path

from vpgea.config.schema import LoopConfig
from vpgea.errors import DamagedError
from vpgea.runs.layout import (
    METRICS,
    PARTS,
    PHASES,
    SUMMARY,
    Phase,
    Step,
    is_phase_finished,
    round_dir,
    round_name,
    round_numbers,
    round_phases,
    round_record,
)
from vpgea.runs.records import FilterSummary, RoundLine
from vpgea.runs.round_lines import require_own_figures, sampled_tokens
from vpgea.storage.files import read_json_lines
from vpgea.storage.records import damaged_record, read_record


def read_line(run_dir: Path, index: int | None) -> RoundLine:
    """The line of a finished round; None: of the base model.

    Raises:
        DamagedError: It is gone, is no round's line, or is not what the round's phases say.
    """
    line = RoundLine.read(round_record(run_dir, index))
    if line.round != index:
        raise damaged_record(round_record(run_dir, index), "it is that of another round")
    require_own_figures(run_dir, line)
    return line


def finished_lines(run_dir: Path, count: int | None = None) -> list[RoundLine]:
    """The lines of the base model and of every finished round, as far as there is no gap. count: at most so many."""
    indices = itertools.islice(itertools.chain([None], itertools.count()), count)
    finished = itertools.takewhile(lambda index: round_record(run_dir, index).is_file(), indices)
    return [read_line(run_dir, index) for index in finished]


def is_regularly_measured(index: int | None, config: LoopConfig) -> bool:
    """Whether a round is one of those that every loop of this configuration measures, however many rounds it has."""
    return index is None or (index + 1) % config.eval_every == 0


def planned_evaluations(config: LoopConfig) -> list[int | None]:
    """The rounds that a run is to measure, the base model first."""
    rounds = [None, *range(config.rounds)]
    return [index for index in rounds if is_regularly_measured(index, config) or index == config.rounds - 1]


def phases_of(run_dir: Path, index: int | None, config: LoopConfig) -> tuple[Phase, ...]:
    """The phases of a round: it has an evaluation where it is measured regularly or is the last.

    The last is also the one that uses up loop.max_sampled_tokens, which is known once its filter is finished. A
    finished round says itself whether it has; an evaluation that was begun is finished, though rounds were added since.
    """
    if index is None:
        return round_phases(None)
    if (record := round_record(run_dir, index)).is_file():
        with suppress(DamagedError):  # whoever reads its line says so
            return PHASES if RoundLine.read(record).is_measured else PHASES[:-1]
    is_measured = (
        is_regularly_measured(index, config)
        or index == config.rounds - 1
        or (Step(index, "eval").folder(run_dir) / PARTS).is_dir()
        or _uses_up(run_dir, index, config)  # last: it reads the records of all rounds before
    )
    return PHASES if is_measured else PHASES[:-1]


def possible_phases(run_dir: Path, index: int | None, config: LoopConfig) -> tuple[Phase, ...]:
    """Those that a round may come to have: of one that is not finished nobody knows yet what it will have sampled."""
    if index is not None and config.max_sampled_tokens is not None and not round_record(run_dir, index).is_file():
        return PHASES
    return phases_of(run_dir, index, config)


def _uses_up(run_dir: Path, index: int, config: LoopConfig) -> bool:
    """Whether what may be sampled is used up by this round, as far as it and those before it say what they sampled."""
    filtered = Step(index, "filter").folder(run_dir)
    if config.max_sampled_tokens is None or not is_phase_finished(filtered, "filter"):
        return False
    try:
        sampled = [RoundLine.read(round_record(run_dir, before)).sampled_tokens for before in range(index)]
        sampled.append(sampled_tokens(read_record(filtered / SUMMARY, FilterSummary)))
    except DamagedError:  # whoever reads them says so
        return False
    known = [one for one in sampled if one is not None]
    return len(known) == len(sampled) and sum(known) >= config.max_sampled_tokens


def entropy_at_start(distill_dir: Path) -> float | None:
    """Of the first training step of the run before a round's distill folder, in nats per token; None without one."""
    run_dir, own = distill_dir.absolute().parent.parent, distill_dir.absolute().parent.name
    rounds = round_numbers(run_dir)
    before = rounds[: [round_name(index) for index in rounds].index(own)] if own in map(round_name, rounds) else []
    for index in before:
        metrics = Step(index, "distill").folder(run_dir) / METRICS
        for line in read_json_lines(metrics) if metrics.is_file() else []:
            if line["entropy"] is not None:
                return float(line["entropy"])
    return None


def required_rounds(run_dir: Path, *, by_metrics: bool = True) -> list[int | None]:
    """The rounds that must be whole, the base model (None) first: those with a record, and all before a later one.

    Their four phases are complete, whatever a folder holds of them now: a round begins when the one before is finished.

    Args:
        run_dir: The run's folder.
        by_metrics: Those of which the run's metrics have a line, too.
    """
    begun = [index for index in round_numbers(run_dir) if any((round_dir(run_dir, index)).iterdir())]
    recorded = [index for index in begun if round_record(run_dir, index).is_file()]
    told = len(metrics_lines(run_dir)) - 1 if by_metrics else -1
    count = max(told, *begun, *(index + 1 for index in recorded), -1)
    if count < 0 and not round_record(run_dir, None).is_file():
        return []
    return [None, *range(max(count, 0))]


def metrics_lines(run_dir: Path) -> list[dict[str, object]]:
    """The lines of the run's metrics, the base model's first, as far as they are such: written after each round."""
    lines: list[dict[str, object]] = []
    metrics = run_dir / METRICS
    for text in metrics.read_bytes().splitlines() if metrics.is_file() else ():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            break
        if not isinstance(line, dict) or line.get("round", -1) != (len(lines) - 1 if lines else None):
            break
        lines.append(line)
    return lines


def all_lines(run_dir: Path) -> list[RoundLine]:
    """The lines of the base model and of every finished round, also beyond a gap."""
    indices = [None, *round_numbers(run_dir)]
    return [read_line(run_dir, index) for index in indices if round_record(run_dir, index).is_file()]
