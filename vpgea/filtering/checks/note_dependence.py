"""Was some token of the path written because of what the note says?

Per token d1 = log q(z_t | note y*) - log pi(z_t) sees what the note or the posterior's style makes likelier, and
d2 = log q(z_t | note y*) - log mean_k q(z_t | note y'_k), with other answers in the note, what this answer makes
likelier. D = max_t min(d1, d2), over the end of the thinking too unless that is left out: a path may be short because
the note's answer came out, and sound. No value is looked for in the text, so that the check applies to every question.
Our own reconstruction; docs/method.md, "Note dependence". A path whose D is too large is rejected, or learnt up to the
first token that reaches the threshold; "The sound part of a path".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vpgea.config.filtering import FilterConfig
from vpgea.config.schema import RunConfig
from vpgea.engines.base import ScoreRequest
from vpgea.filtering.checks.base import Check, Judge
from vpgea.filtering.cost import Cost, RolloutLengths
from vpgea.filtering.prior_view import PriorView, sampling_truncated
from vpgea.filtering.samples import Chunk, JudgedSample, MeasuredSample
from vpgea.filtering.wrong_notes import WrongNotes

FloatArray = npt.NDArray[np.float64]


def token_dependence(log_q: npt.ArrayLike, log_pi: npt.ArrayLike, log_wrong: npt.ArrayLike) -> FloatArray:
    """min(d1, d2) of every token in nats, (|z|,), rounded as it is stored; D is the largest of them.

    Args:
        log_q: (|z|,) log-probabilities of z under the note with the reference answer, |z| >= 1.
        log_pi: (|z|,) under the plain prompt.
        log_wrong: (k, |z|) under k notes with other answers, k >= 1.
    """
    q, pi, wrong = (np.asarray(values, np.float64) for values in (log_q, log_pi, log_wrong))
    assert q.shape == pi.shape == wrong.shape[1:]
    mean_wrong = np.logaddexp.reduce(wrong, axis=0) - np.log(len(wrong))
    return np.minimum(q - pi, q - mean_wrong).astype(np.float32).astype(np.float64)


def sound_beginning(options: FilterConfig, measured: Mapping[str, Any]) -> int | None:
    """Tokens of z before the first that depends on the note, where they may be learnt without the rest.

    None where the path is learnt or rejected as a whole: no token of it depends on the note, or its first one does, or
    what measured it does not say which.
    """
    check, found = options.note_dependence, measured.get("note_dependence")
    if not options.learns_beginnings or found is None or found < check.threshold:
        return None
    first: int | None = measured.get("first_dependent_token")
    return first or None


def _measure(chunk: Chunk, view: PriorView) -> None:
    """One scoring under each wrong note; after tempered or truncated sampling also under the right one and none."""
    options = view.config.filter.note_dependence
    notes = WrongNotes(chunk, options.notes, view.config.grading.grader)
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
            judged = len(sample.z) if options.end == "judged" else view.views.content_length(sample.z)
            _store(sample, own, judged, options.threshold, is_truncated=view.is_truncated)


def _store(
    sample: MeasuredSample, scores: list[np.ndarray | None], judged: int, threshold: float, *, is_truncated: bool
) -> None:
    """Take the largest of the first `judged` tokens; without one the check could not judge.

    scores: under the wrong notes; with is_truncated, that under the right one stands before and pi behind them.
    """
    if is_truncated:
        q, *wrong, pi = scores
    else:
        q, wrong, pi = sample.row.logprobs[: len(sample.z)], scores, sample.prior_logprobs
    known = [logprobs for logprobs in wrong if logprobs is not None]
    if q is None or pi is None or not known:  # a prompt with a note passes the model's context
        return
    dependence = token_dependence(q, pi, np.stack(known))[:judged]
    if not dependence.size or np.isnan(dependence).any():
        return
    sample.found |= {"note_dependence": float(dependence.max()), "note_dependence_token": int(dependence.argmax())}
    if (over := np.flatnonzero(dependence >= threshold)).size:
        sample.found["first_dependent_token"] = int(over[0])


def _judge(config: RunConfig, samples: Sequence[JudgedSample]) -> Judge:
    threshold = config.filter.note_dependence.threshold

    def judge(sample: JudgedSample) -> list[str] | None:
        value = sample.measured["note_dependence"]
        if value is None:
            return None
        return ["note-dependence"] * (value >= threshold and sample.learnt_tokens is None)

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
        pa.field("first_dependent_token", pa.int32()),  # where in z the threshold is first reached
    ),
    measure=_measure,
    reasons={"note-dependence": "a token stands there because of what the note says"},
    judge=_judge,
    cost=_cost,
    reads_content=True,
)
