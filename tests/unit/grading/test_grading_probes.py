"""Answers that try to be rewarded for nothing are refused, honest ones beside them are not: a slice of the campaign."""

from __future__ import annotations

from tests.support.answer_probes import KINDS, draw_probes
from vpgea.grading.base import GradeRequest
from vpgea.grading.registry import load_grader

PROBES, SEED = 400, 20  # `make probes` draws more of them


def test_nothing_is_rewarded_for_nothing_and_nothing_honest_is_refused() -> None:
    print(f"seed {SEED}")
    graders = {name: load_grader(name, 1e-6) for name in ("math", "choice")}
    otherwise = [
        (probe, grade.status)
        for probe in draw_probes(PROBES, SEED)
        if (grade := graders[probe.grader](GradeRequest(probe.response, probe.gold, probe.question))).status
        != probe.right
    ]
    assert otherwise == []


def test_every_kind_has_answers_to_refuse() -> None:
    refused = {probe.kind for probe in draw_probes(PROBES, SEED) if probe.right == "wrong"}
    assert refused == set(KINDS)
