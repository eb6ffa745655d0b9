"""The lessons that the model is taught with, as the folder of a filter that `vpgea distill` learns from.

A question has two: how it is thought about without the note, and with it. Both are written, not sampled. Lessons of
equations come before them: a small model does not bring the arithmetic along. A lesson stands there as a path whose
gate is 1, under the prompt that it is to follow: for objective `star` its loss is the cross-entropy of the whole
completion, and of nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np

from examples.smollm2.problems import Step, problems
from examples.smollm2.traces import Trace, posterior_trace, prior_trace
from vpgea.config.resolve import flat_config
from vpgea.config.schema import RunConfig, identity_of
from vpgea.modeling.local_model import LocalModel
from vpgea.prompts.views import Views, load_views
from vpgea.questions.question import Question
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.layout import SETS, SUMMARY, chunk_name
from vpgea.runs.manifest import Manifest
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.runs.records import FilterSummary
from vpgea.runs.stopping import StopRequest
from vpgea.storage.files import write_json
from vpgea.storage.records import json_of
from vpgea.storage.rows import to_table
from vpgea.storage.schemas import POSTERIOR, Provenance, SampleKey, SelectionRow
from vpgea.storage.shards import write_table_anew

PROBLEMS_PER_LESSON = 3  # whose equations one lesson computes


def write_lessons(
    folder: Path, config: RunConfig, tokens: int, seed: int, stop: StopRequest, *, equations: bool = False
) -> None:
    """Write so many lessons that their completions have `tokens` tokens, unless they are there.

    Args:
        folder: A filter's folder.
        config: Its model and views.
        tokens: To be taught; the question that reaches them is the last.
        seed: Of problems and traces.
        stop: Heeded between questions.
        equations: The steps of problems alone, without a story, a re-check or a slip.

    Raises:
        UsageError: Other lessons stand there.
        Stopped: A stop was requested.
    """
    model = LocalModel.resolve(config.model)
    views = load_views(model, config.views, config.grading.grader)
    manifest = Manifest(
        phase="filter",
        identity={
            "lessons.tokens": tokens,
            "lessons.seed": seed,
            "lessons.equations": equations,
            **identity_of(config, "filter", "views"),
        },
        inputs={"model": model.fingerprint, "template": views.fingerprint},
        config=flat_config(config),
    )
    phase = PhaseFolder.open(folder, manifest)
    with phase.writing():
        if (folder / SUMMARY).is_file():
            return
        rows = []
        made = _equations(views, model.fingerprint, seed) if equations else _stories(views, model.fingerprint, seed)
        for row in _until(tokens, made):
            stop.check("nothing was taught yet, and the lessons are written anew")
            rows.append(row)
        for name, of_set in zip(SETS, (rows, []), strict=True):
            (folder / name).mkdir(exist_ok=True)
            write_table_anew(folder / name / chunk_name(0), to_table(of_set, SelectionRow), told_by=folder / SUMMARY)
        phase.complete({})
        write_json(folder / SUMMARY, json_of(_summary(rows, CompletePhase.open(folder, "filter").selection())))


def _until(tokens: int, questions: Iterator[list[SelectionRow]]) -> Iterator[SelectionRow]:
    """The lessons of each question until their completions have so many tokens."""
    for rows in questions:
        yield from rows
        tokens -= sum(len(row.completion_ids) for row in rows)
        if tokens <= 0:
            return


def _equations(views: Views, fingerprint: str, seed: int) -> Iterator[list[SelectionRow]]:
    """What the problems of a few questions compute, in any order; the answer is the last of it."""
    rng, drawn = Random(f"equations {seed}"), problems("taught", seed)
    number = 0
    while True:
        steps = [step for problem in islice(drawn, PROBLEMS_PER_LESSON) for step in problem.steps]
        rng.shuffle(steps)
        question = Question(f"equations-{number:06}", asked(steps), str(steps[-1].value))
        prompts = views.prior_prompt(question), views.posterior_prompt(question)
        thinking = " ".join(f"{step}." for step in steps)
        key = SampleKey(0, question.id, POSTERIOR, 0)
        yield [_row(views, fingerprint, key, prompts, Trace(thinking, steps[-1].value, "sound"))]
        number += 1


def asked(steps: Sequence[Step]) -> str:
    """A question for bare results."""
    *first, last = (f"{step.left} {step.sign} {step.right}" for step in steps)
    return f"Compute {', '.join(first)} and then {last}."


def _stories(views: Views, fingerprint: str, seed: int) -> Iterator[list[SelectionRow]]:
    """A problem, without the note and with it."""
    rng = Random(f"lessons {seed}")
    for number, problem in enumerate(problems("taught", seed)):
        question = Question(f"taught-{number:06}-level{problem.level}", problem.question, str(problem.answer))
        prompts = views.prior_prompt(question), views.posterior_prompt(question)
        traces = prior_trace(problem, rng), posterior_trace(problem, rng)
        keys = [SampleKey(0, question.id, POSTERIOR, index) for index in range(len(traces))]
        yield [_row(views, fingerprint, key, prompts, trace) for key, trace in zip(keys, traces, strict=True)]


def _row(
    views: Views, fingerprint: str, key: SampleKey, prompts: tuple[list[int], list[int]], trace: Trace
) -> SelectionRow:
    """key: of index 0 without the note, of 1 with it. prompts: both."""
    ids = np.array([*views.encode(trace.completion), views.stop_ids[0]], dtype=np.int32)
    thinking = views.thinking_length(ids.tolist())
    assert thinking is not None, "a trace ends its thinking"
    return SelectionRow(
        key=key,
        prompt_ids=np.array(prompts[key.sample_index], dtype=np.int32),
        posterior_prompt_ids=np.array(prompts[1], dtype=np.int32),
        completion_ids=ids,
        logprobs=np.full(len(ids), np.nan, dtype=np.float32),  # nobody has sampled it
        thinking_tokens=thinking,
        cut_off=False,
        crossview_answer_ids=None,
        status="wrong" if trace.label == "slip" else "correct",
        reasons=(),
        utility=None,
        advantage=None,
        gate=1.0,
        completion=trace.completion,
        origin=Provenance(
            model_fingerprint=fingerprint,
            template_fingerprint=views.fingerprint,
            engine="written",
            logprobs_of="temperature",
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            max_new_tokens=len(ids),
        ),
    )


def _summary(rows: list[SelectionRow], selection: str) -> FilterSummary:
    """Nothing was sampled, nothing checked."""
    return FilterSummary(
        counts={"posterior_sampled": 0, "posterior_accepted": len(rows)},
        plausibility_limits="off",
        needs_no_thinking=[],
        elbo="not available (written, not sampled)",
        checks={},
        tokens={"rollout_tokens": 0, "check_tokens": 0, "score_tokens": 0},
        selection=selection,
    )
