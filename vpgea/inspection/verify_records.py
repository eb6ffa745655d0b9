"""JSON records against what they were derived from: figures against rows, rounds' lines against their phases."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vpgea.errors import DamagedError
from vpgea.filtering.report import OTHER_REASONS
from vpgea.inspection.tally import Tally
from vpgea.inspection.verify_phase import RECORD, Finding, PhaseCheck, Report, redone_training
from vpgea.metrics.bootstrap import evaluate
from vpgea.metrics.curves import budget_curve
from vpgea.metrics.estimates import Estimate
from vpgea.metrics.resampling import drawn_by
from vpgea.protocols.card import ProtocolCard, deviations_of
from vpgea.questions.clusters import Numbering
from vpgea.runs.history import metrics_lines
from vpgea.runs.layout import (
    COMPLETE,
    METRICS,
    PROTOCOL,
    RESULTS,
    ROUND_RECORD,
    SUMMARY,
    round_dir,
    round_numbers,
    round_record,
)
from vpgea.runs.manifest import BY_PROTOCOL, Manifest
from vpgea.runs.phase_folder import whole_manifest
from vpgea.runs.records import DistillSummary, EvalResults, FilterSummary, PartMarker, RoundLine
from vpgea.runs.round_lines import OtherFigure, are_equal, other_figures
from vpgea.storage.files import read_json_lines
from vpgea.storage.records import read_record

_CLOSE = 1e-6  # relative, between a mean of float32 values and their sum by another order
_REJECTED = "posterior_rejected_"
# Nothing but a copy says what these must be, nor ends of intervals that other versions have drawn.
_BY_COPIES_ALONE = ("kl", "elbo", "loss_reference_kl")


def verify_phase_records(check: PhaseCheck, base: PhaseCheck | None) -> None:
    """The records of a complete phase whose shards are whole.

    Args:
        check: The pass over it.
        base: That over the evaluation with which its own is compared; None where that is not whole, or elsewhere.
    """
    folder, tally, marker = check.folder, check.tally, check.folder / COMPLETE
    found: list[tuple[str | None, tuple[Path, ...]]] = []  # what is wrong, and what a repair moves away
    for part in check.parts:
        differs = _marker_differs(PartMarker.read(part).summary, tally.parts.get(part.name, {}))
        found.append((differs, (part / COMPLETE, marker)))
    if check.kind == "filter":
        found.append((_summary_differs(read_record(folder / SUMMARY, FilterSummary), tally), (folder / SUMMARY,)))
    elif check.kind == "eval":
        results = read_record(folder / RESULTS, EvalResults)
        differs = _results_differ(results, check, None if base is None else base.tally)
        found.append((differs, (folder / RESULTS, marker)))
    elif check.kind == "distill" and (differs := _steps_differ(folder)):
        check.report.findings.append(redone_training(check.root, folder, folder / METRICS, differs))
    for differs, aside in found:
        if differs is not None:
            check.report.findings.append(_finding(check.root, folder, differs, aside))


def verify_card(check: PhaseCheck) -> None:
    """The card of an evaluation by a benchmark's protocol, which is written before its results."""
    card, results, made = check.folder / PROTOCOL, check.folder / RESULTS, whole_manifest(check.folder)
    if card.is_file():
        check.report.records += 1
        try:
            said = read_record(card, ProtocolCard)
            differs = None if made is None else _card_differs(said, made)
        except DamagedError as error:
            differs = error.why
    else:
        is_due = made is not None and made.is_by_protocol and results.is_file()
        differs = "it is gone, and a protocol says how the samples were asked" if is_due else None
    if differs is not None:
        check.report.findings.append(_finding(check.root, check.folder, differs, (card, check.folder / COMPLETE)))


def verify_lines(root: Path, report: Report) -> None:
    """Each round's line against the records of its phases, and the run's metrics against these lines.

    Where the two of them differ and no row says which is right, the line of the metrics, a third copy, does.
    """
    copies, is_changed = metrics_lines(root), False
    finished = 0
    for index in (None, *round_numbers(root)):
        position = 0 if index is None else index + 1
        record = round_record(root, index)
        if not record.is_file() or record.relative_to(root) in {finding.path for finding in report.findings}:
            continue
        finished += 1
        line = RoundLine.read(record)
        copy = copies[position] if position < len(copies) else None
        wrong = _line_differs(root, line, copy, report)
        is_changed |= not wrong and copy is not None and _text(copy) != _text(line.as_json())
        report.findings += wrong
    file = root / METRICS
    count = len(file.read_bytes().splitlines()) if file.is_file() else 0
    if is_changed or count != len(copies) or len(copies) < finished - 1:  # one is written after its round
        why = "it is not what the rounds' records say" if is_changed else f"it has {len(copies)} lines of rounds"
        report.findings.append(_finding(root, root, why, (file,)))


def _text(line: Mapping[str, object]) -> str:
    """By which a figure that is no number equals itself."""
    return json.dumps(line, sort_keys=True)


def _finding(root: Path, folder: Path, problem: str, aside: Sequence[Path]) -> Finding:
    own = tuple(path.relative_to(root) for path in aside)
    return Finding(path=own[0], problem=problem, redo=RECORD, phase=folder.relative_to(root), aside=own)


# --- a phase's records ----------------------------------------------------------------------------------------------


def _marker_differs(summary: Mapping[str, object], counts: Mapping[str, int]) -> str | None:
    """What a part says of itself beside its rows; entries that an earlier version did not have say nothing."""
    if "rejected" not in summary:  # of an evaluation it counts the questions of all parts, of a training other things
        summary = {name: value for name, value in summary.items() if name == "chunks"}
    for name, value in summary.items():
        if name in counts and value is not None and value != counts[name]:
            return f"it counts {value} {name}, and its shards have {counts[name]}"
    return None


def _summary_differs(summary: FilterSummary, tally: Tally) -> str | None:
    """Of a filter: its table of counts, which adds up, its tokens and its means."""
    counts = summary.counts
    for name, found in (*tally.counts.items(), *tally.tokens.items()):
        said = summary.tokens.get(name, 0) if name in tally.tokens else counts.get(name, 0)
        if said != found:
            return f"it counts {said} {name}, and the shards have {found}"
    rejected = {name: count for name, count in counts.items() if name.startswith(_REJECTED)}
    others = sum(rejected.get(f"{_REJECTED}{reason}", 0) for reason in OTHER_REASONS)
    blamed = sum(rejected.values()), counts.get("posterior_pseudo_efficient", 0) + others
    in_part = counts.get("posterior_in_part", 0)  # pseudo-efficient, and not rejected
    left = counts.get("posterior_sampled", 0) - counts.get("posterior_accepted", 0)
    if blamed != (left - in_part, left):
        return f"its reasons do not add up to the {left - in_part} posterior paths that were rejected"
    for name, (total, count) in tally.checks.items():
        if name in summary.checks and not _is_close(summary.checks[name], total / count if count else None):
            return f"the mean of {name} is {summary.checks[name]} in it, and not that of the shards"
        if summary.checks.get(f"{name}_n", count) != count:
            return f"it counts {summary.checks[f'{name}_n']} {name}, and the shards have {count}"
    return None


def _results_differ(results: EvalResults, check: PhaseCheck, base: Tally | None) -> str | None:
    """Of an evaluation: its counts and figures, and their intervals where they can be drawn again."""
    tally, numbers, is_imported = check.tally, Numbering(), check.is_imported
    table = tally.samples(numbers, is_imported=is_imported)
    if table is None:
        return None
    total = sum((one["samples"] for one in tally.parts.values()), 0)
    said = {"questions": results.questions, "samples": results.samples}
    for name, found in (("questions", numbers.questions), ("samples", total)):
        if said[name] != found:
            return f"it counts {said[name]} {name}, and its shards have {found}"
    compared = None if results.baseline is None or base is None else base.samples(numbers, is_imported=is_imported)
    known = _draws_of(check, results) if results.baseline is None or compared is not None else None
    (draws, seed), is_drawn = known or (1, 0), known is not None
    for name, now in evaluate(table, compared, draws=draws, seed=seed).items():
        if name in results.metrics and (differs := _figure_differs(results.metrics[name], now, is_drawn=is_drawn)):
            return f"{name} is {differs}"
    budgets = [point.budget for point in results.budget_curve]
    curve = budget_curve(table, budgets, draws=draws, seed=seed)
    for point, by_rows in zip(results.budget_curve, curve, strict=True):
        for name in ("accuracy", "tokens"):
            if differs := _figure_differs(getattr(point, name), getattr(by_rows, name), is_drawn=is_drawn):
                return f"at a budget of {point.budget} tokens {name} is {differs}"
    return None


def _card_differs(card: ProtocolCard, made: Manifest) -> str | None:
    """What it says otherwise than the manifest, or than its own settings."""
    if not made.is_by_protocol:
        return "it is of a protocol, and the samples were asked by none"
    known = {**made.config, **made.identity, **made.inputs}
    said = {
        BY_PROTOCOL: card.fingerprint,
        "protocol.benchmark": card.benchmark,
        "protocol.name": card.name,
        "protocol.version": card.version,
        "protocol.order": card.order,
        "protocol.revision": card.rows.revision,
        "protocol.rows": card.rows.sha256,
        "protocol.guess": card.guess,
        "template": card.template,
        **{one.key: one.used for one in card.settings},
    }
    for key, value in said.items():
        if value != known.get(key):
            return f"{key} is {value!r} in it, and {known.get(key)!r} in the manifest"
    if card.deviations != (deviations := deviations_of(card.settings)):
        return f"its deviations are {card.deviations}, and its settings have {deviations}"
    return None


def _draws_of(check: PhaseCheck, results: EvalResults) -> tuple[int, int] | None:
    """How many draws, with which seed, give an evaluation's intervals again; None: another version drew them."""
    draws, seed = (check.config.get(f"eval.{name}") for name in ("bootstrap", "seed"))
    if _is_drawn_here(results) and isinstance(draws, int) and isinstance(seed, int):
        return draws, seed
    return None


def _is_drawn_here(results: EvalResults) -> bool:
    """Whether the rows and the seed say what the ends of intervals are; other versions have drawn otherwise."""
    return results.drawn_by == drawn_by()


def _figure_differs(said: Estimate, now: Estimate, *, is_drawn: bool) -> str | None:
    if said.n != now.n or not _is_close(said.value, now.value):
        return f"{said.value} of {said.n} in it, and {now.value} of {now.n} by its shards"
    if is_drawn and not (_is_close(said.low, now.low) and _is_close(said.high, now.high)):
        return f"between {said.low} and {said.high} in it, and between {now.low} and {now.high} by its shards"
    return None


def _steps_differ(folder: Path) -> str | None:
    """Of a training: a line for each step, and what they add up to."""
    file = folder / METRICS
    if not file.is_file():
        return "it is gone, and the phase was complete"
    try:
        lines = read_json_lines(file)
        steps = [line["step"] for line in lines]
        found = {
            "trained_tokens": sum(line["tokens"] for line in lines),
            "skipped_steps": sum(line["skipped"] for line in lines),
            "alarms": sum(line["alarm"] is not None for line in lines),
        }
    except (DamagedError, KeyError, TypeError):
        return "it has lines that are none of a step"
    summary = read_record(folder / SUMMARY, DistillSummary)
    if steps != list(range(summary.steps)):
        return f"it has {len(steps)} lines, and {summary.steps} steps were made"
    for name, value in found.items():
        if (said := getattr(summary, name)) != value:
            return f"its steps add up to {value} {name}, and the training recorded {said}"
    return None


def _is_close(said: float | None, found: float | None) -> bool:
    if said is None or found is None:
        return said is found
    return math.isclose(said, found, rel_tol=_CLOSE, abs_tol=_CLOSE)


# --- rounds' lines --------------------------------------------------------------------------------------------------


def _line_differs(root: Path, line: RoundLine, copy: Mapping[str, object] | None, report: Report) -> list[Finding]:
    """What must be made again so that a line says what its phases say: the line, or what it was made from as well."""
    broken = {finding.phase for finding in report.findings}
    try:
        other = [one for one in other_figures(root, line) if one.source.parent.relative_to(root) not in broken]
    except DamagedError:  # which its phase's own check has found
        return []
    if not other:
        return []
    home = round_dir(root, line.round)
    sources = {one.source: one for one in other if _is_source_changed(one, copy)}
    found = [_source_finding(root, path, one.words) for path, one in sources.items()]
    return [*found, _finding(root, home, other[0].words, (home / ROUND_RECORD,))]


def _is_source_changed(other: OtherFigure, copy: Mapping[str, Any] | None) -> bool:
    """Whether the phase's record is what was changed, perhaps, and not the round's line."""
    if not other.name.endswith(("_low", "_high")) and other.name not in _BY_COPIES_ALONE:
        return False  # rows vouch for the source
    if other.source.name == RESULTS and _is_drawn_here(read_record(other.source, EvalResults)):
        return False  # and for its intervals
    if copy is None or other.name not in copy:
        return other.source.name != METRICS  # which a training alone could make again
    return not are_equal(copy[other.name], other.in_source)  # also where no two of the three agree


def _source_finding(root: Path, path: Path, words: str) -> Finding:
    if path.name == METRICS:
        return redone_training(root, path.parent, path, words)
    return _finding(root, path.parent, words, (path, *([path.with_name(COMPLETE)] if path.name == RESULTS else [])))
