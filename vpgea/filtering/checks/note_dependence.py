"""Was some token of the path written because of what the note says?

Per token d1 = log q(z_t | note y*) - log pi(z_t) sees what the note or the posterior's style makes likelier, and
d2 = log q(z_t | note y*) - log mean_k q(z_t | note y'_k), with other answers in the note, what this answer makes
likelier. D = max_t min(d1, d2). No value is looked for in the text, so that the check applies to every question. Our
own reconstruction; docs/method.md, "Note dependence".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vpgea.config.schema import RunConfig
from vpgea.engines.base import ScoreRequest
from vpgea.filtering.checks.base import Check, Judge
from vpgea.filtering.cost import Cost, RolloutLengths
from vpgea.filtering.prior_view import PriorView, sampling_truncated
from vpgea.filtering.samples import Chunk, JudgedSample, MeasuredSample
from vpgea.filtering.wrong_notes import WrongNotes


def note_dependence(log_q: npt.ArrayLike, log_pi: npt.ArrayLike, log_wrong: npt.ArrayLike) -> tuple[float, int]:
    """D = max_t min(d1, d2) in nats, and the first t where it is reached.

    Args:
        log_q: (|z|,) log-probabilities of z under the note with the reference answer, |z| >= 1.
        log_pi: (|z|,) under the plain prompt.
        log_wrong: (k, |z|) under k notes with other answers, k >= 1.
    """
    q, pi, wrong = (np.asarray(values, np.float64) for values in (log_q, log_pi, log_wrong))
    assert q.shape == pi.shape == wrong.shape[1:]
    mean_wrong = np.logaddexp.reduce(wrong, axis=0) - np.log(len(wrong))
    smaller = np.minimum(q - pi, q - mean_wrong)
    return float(smaller.max()), int(smaller.argmax())


def _measure(chunk: Chunk, view: PriorView) -> None:
    """One scoring under each wrong note; after tempered or truncated sampling also under the right one and none."""
    notes = WrongNotes(chunk, view.config.filter.note_dependence.notes, view.config.grading.grader)
    owners: list[MeasuredSample] = []
    requests: list[ScoreRequest] = []
    prompts: dict[tuple[str, str], list[int]] = {}
    for sample in chunk.candidates:
        own = sample.row.prompt_ids.tolist()
        wrong: list[list[int]] = []
        for answer in notes.of(sample) if sample.z else ():
            key = sample.question.id, answer
            if key not in prompts:
                prompts[key] = view.views.posterior_prompt(sample.question, answer=answer)
            if prompts[key] != own:  # a control may have had this answer in sight
                wrong.append(prompts[key])
        behind = [own, *wrong, sample.prior_prompt] if wrong and view.is_truncated else wrong
        requests += [ScoreRequest(prompt + sample.z, len(prompt)) for prompt in behind]
        owners += [sample] * len(behind)
    scores: dict[int, list[np.ndarray | None]] = {}
    for sample, logprobs in zip(owners, view.score(owners, requests), strict=True):
        scores.setdefault(id(sample), []).append(logprobs)
    for sample in chunk.candidates:
        if own := scores.get(id(sample)):
            _store(sample, own, is_truncated=view.is_truncated)


def _store(sample: MeasuredSample, scores: list[np.ndarray | None], *, is_truncated: bool) -> None:
    """scores: under the wrong notes; with is_truncated, that under the right one stands before and pi behind them."""
    if is_truncated:
        q, *wrong, pi = scores
    else:
        q, wrong, pi = sample.row.logprobs[: len(sample.z)], scores, sample.prior_logprobs
    known = [logprobs for logprobs in wrong if logprobs is not None]
    if q is None or pi is None or not known:  # a prompt with a note passes the model's context
        return
    value, token = note_dependence(q, pi, np.stack(known))
    if not np.isnan(value):
        sample.found |= {"note_dependence": value, "note_dependence_token": token}


def _judge(config: RunConfig, samples: Sequence[JudgedSample]) -> Judge:
    threshold = config.filter.note_dependence.threshold

    def judge(sample: JudgedSample) -> list[str] | None:
        value = sample.measured["note_dependence"]
        return None if value is None else ["note-dependence"] * (value >= threshold)

    return judge


def _cost(config: RunConfig, lengths: RolloutLengths) -> Cost:
    noted = (lengths.noted_candidates.end,)
    if sampling_truncated(config):
        return Cost(scored=(*noted * (config.filter.note_dependence.notes + 1), lengths.candidates.end))
    return Cost(scored=noted * config.filter.note_dependence.notes)


NOTE_DEPENDENCE = Check(
    name="note_dependence",
    about="was some token written because of what the note says?",
    columns=(
        pa.field("note_dependence", pa.float32()),  # D, nats
        pa.field("note_dependence_token", pa.int32()),  # where in z it is reached
    ),
    measure=_measure,
    reasons={"note-dependence": "a token stands there because of what the note says"},
    judge=_judge,
    cost=_cost,
    reads_content=True,
)
