"""Looking at posterior paths from the prior's view: what each check measures, before any threshold.

Every measurement is taken with the same weights that sampled the path, and without the note in sight.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np

from vpgea.config.schema import RunConfig
from vpgea.engines.base import Completion, Engine, GenerateRequest, Sampling, ScoreRequest
from vpgea.grading.base import Grade, GradeRequest, Status
from vpgea.grading.pool import GraderPool
from vpgea.grading.values import canonical_answers, find_value, value_is_distinct
from vpgea.prompts.views import Views
from vpgea.questions.load import Question
from vpgea.runs.progress import Progress
from vpgea.runs.stopping import StopRequest
from vpgea.storage.schemas import IDENTITY, MEASUREMENTS, POSTERIOR, PRIOR, sample_seed

EARLY_EXITS = (0.25, 0.5, 0.75)

T = TypeVar("T")


@dataclass
class Path:
    """A sample under measurement; `found` collects columns of MEASUREMENTS."""

    row: dict[str, Any]
    question: Question
    prior_prompt: list[int]
    z: list[int]
    z_text: str
    grade: Grade
    value_offset: int | None = None  # of a candidate: first character of the reference's value in z_text
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[int, str, str, int]:
        return self.row["round"], self.row["question_id"], self.row["view"], self.row["sample_index"]

    @property
    def is_candidate(self) -> bool:
        """A posterior path that passed the pre-filter: its own answer, written with the note in sight, is right."""
        return self.row["view"] == POSTERIOR and self.grade.status == Status.CORRECT and not self.row["cut_off"]


class CrossView:
    """Measures the samples of one chunk at a time."""

    def __init__(
        self,
        config: RunConfig,
        views: Views,
        engine: Engine,
        graders: GraderPool,
        stop: StopRequest,
        progress: Progress,
    ) -> None:
        self.config, self.views, self.engine, self.graders = config, views, engine, graders
        self.stop, self.progress = stop, progress
        self.leaks = [re.compile(p, re.I) for p in (*views.template.leak_phrases, *config.filter.leaks.phrases)]
        self.answer_ids: dict[str, list[list[int]]] = {}

    def measure(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows of SAMPLES (whole questions) to rows of MEASUREMENTS, in the same order.

        Raises EngineError and Stopped; a grader that fails is a status, never an exception.
        """
        paths = self._grade(rows)
        candidates = [path for path in paths if path.is_candidate]
        checks = self.config.filter
        self._locate(candidates)
        if checks.answerability.enabled:
            self._answerability(candidates)
        if checks.derivation.enabled:
            self._derivation(candidates)
        if checks.leaks.enabled:
            self._leaks(candidates)
        if not sampling_truncated(self.config):
            posterior = [path for path in paths if path.row["view"] == POSTERIOR]
            self._other_view(posterior)
            if checks.plausibility.enabled and posterior:
                self._prior_under_posterior([path for path in paths if _is_correct_prior(path)])
        if checks.early_exits:
            self._early_exits(candidates)
        if checks.counterfactual:
            self._counterfactual(candidates, [path.question.answer for path in paths])
        blank = dict.fromkeys(MEASUREMENTS.names)
        return [
            {
                **blank,
                "check_tokens": 0,
                "score_tokens": 0,
                **{name: path.row[name] for name in IDENTITY},
                "status": path.grade.status.value,
                "extracted": path.grade.extracted,
                "detail": path.grade.detail,
                **path.found,
            }
            for path in paths
        ]

    def teacher(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows of TEACHER for the posterior paths among rows of SAMPLES, rejected ones too: `dense-cv` needs them.

        Raises EngineError and Stopped.
        """
        count = self.config.filter.teacher_top_k
        rows = [row for row in rows if row["view"] == POSTERIOR]
        requests, prompts = [], dict[str, list[int]]()
        for row in rows:
            question = Question.from_row(row)
            if question.id not in prompts:
                prompts[question.id] = self.views.posterior_prompt(question)
            prompt = prompts[question.id]
            requests.append(ScoreRequest(prompt + list(row["completion_ids"][: row["thinking_tokens"]]), len(prompt)))
        found = self._in_slices(partial(self.engine.top_logprobs, k=count), requests)
        return [
            {
                **{name: row[name] for name in IDENTITY},
                "top_k": count,
                "top_ids": top.ids.ravel(),
                "top_logprobs": top.logprobs.ravel(),
            }
            for row, top in zip(rows, found, strict=True)
        ]

    # --- grading ---------------------------------------------------------------------------------------------

    def _grade(self, rows: Sequence[dict[str, Any]]) -> list[Path]:
        grades = grade_rows(self.views, self.graders, rows, self.stop)
        prompts: dict[str, list[int]] = {}
        paths = []
        for row, grade in zip(rows, grades, strict=True):
            question = Question.from_row(row)
            prompt = prompts.setdefault(question.id, self.views.prior_prompt(question))
            z = list(row["completion_ids"][: row["thinking_tokens"]])
            paths.append(Path(row, question, prompt, z, self.views.decode(z), grade))
        return paths

    # --- continuations in the prior view ----------------------------------------------------------------------

    def _answerability(self, candidates: Sequence[Path]) -> None:
        """Share of short continuations of z that are correct, and the same without any thinking."""
        first_of_question = {path.question.id: path for path in reversed(candidates)}
        prompts = [path.prior_prompt + path.z for path in candidates]
        prompts += [path.prior_prompt + self.views.empty_thinking_ids for path in first_of_question.values()]
        keys = [(*path.key, "answerability") for path in candidates]
        keys += [(*path.key, "empty") for path in first_of_question.values()]
        references = [*candidates, *first_of_question.values()]
        results = self._continue_and_grade(references, prompts, keys)
        for path, (completions, grades) in zip(candidates, results, strict=False):
            path.found["answerability"], path.found["answerability_valid"] = _share_correct(grades)
            path.found["answer_tokens"] = float(np.mean([len(completion.ids) for completion in completions]))
            right = [c for c, g in zip(completions, grades, strict=True) if g.status == Status.CORRECT]
            ended = [completion.ids for completion in right if completion.finish_reason == "stop"]
            path.found["crossview_answer_ids"] = ended[0] if ended else None
            _add(path, "check_tokens", sum(len(completion.ids) for completion in completions))
        for path, (completions, grades) in zip(first_of_question.values(), results[len(candidates) :], strict=True):
            share, _ = _share_correct(grades)
            _add(path, "check_tokens", sum(len(completion.ids) for completion in completions))
            for twin in candidates:
                if twin.question.id == path.question.id:
                    twin.found["answerability_empty"] = share

    def _derivation(self, candidates: Sequence[Path]) -> None:
        """Cut z before the value of y* first appears; share of short continuations that state the value next."""
        options = self.config.filter.derivation
        applicable, prompts, caps = [], [], []
        for path in candidates:
            asked = "\n".join([path.question.text, *path.question.options])
            if path.value_offset is not None and value_is_distinct(path.question.answer, asked):
                applicable.append(path)
                prompts.append(path.prior_prompt + path.z[: self.views.tokens_before(path.z, path.value_offset)])
                caps.append(options.window + len(self.views.encode(path.question.answer)))
        keys = [(*path.key, "derivation") for path in applicable]
        for path, completions in zip(applicable, self._continue(prompts, keys, options.samples, caps), strict=True):
            stated = [
                find_value(self.views.decode(completion.ids.tolist()), path.question.answer) is not None
                for completion in completions
            ]
            path.found["derivation"] = float(np.mean(stated))
            _add(path, "check_tokens", sum(len(completion.ids) for completion in completions))

    def _early_exits(self, candidates: Sequence[Path]) -> None:
        """Diagnostic: answerability when the thinking ends after 25, 50 and 75 % of z."""
        end = self.views.end_of_thinking_ids
        prompts, keys, owners = [], [], []
        for path in candidates:
            for share in EARLY_EXITS:
                prompts.append(path.prior_prompt + path.z[: int(share * len(path.z))] + end)
                keys.append((*path.key, f"early-exit-{share}"))
                owners.append(path)
        results = self._continue_and_grade(owners, prompts, keys)
        for path, (completions, grades) in zip(owners, results, strict=True):
            path.found.setdefault("early_exits", []).append(_share_correct(grades)[0])
            _add(path, "check_tokens", sum(len(completion.ids) for completion in completions))

    def _continue(
        self, prompts: Sequence[list[int]], keys: Sequence[tuple[Any, ...]], samples: int, caps: Sequence[int]
    ) -> list[list[Completion]]:
        """`samples` completions of each prompt up to its cap, sampled like the rollout; keys make the seeds."""
        rollout = self.config.rollout
        requests = [
            GenerateRequest(prompt, sample_seed(rollout.seed, *key[:4], use=f"{key[4]}/{index}"), cap, group=key[1])
            for prompt, key, cap in zip(prompts, keys, caps, strict=True)
            for index in range(samples)
        ]
        sampling = Sampling(
            max_new_tokens=max(caps, default=1),
            stop_ids=self.views.stop_ids,
            temperature=rollout.temperature,
            top_p=rollout.top_p,
            top_k=rollout.top_k,
        )
        completions: list[list[Completion | None]] = [[None] * samples for _ in prompts]
        for _, position, completion in self.engine.generate([requests], sampling, self._on_tokens):
            completions[position // samples][position % samples] = completion
        return [[completion for completion in group if completion is not None] for group in completions]

    def _continue_and_grade(
        self, paths: Sequence[Path], prompts: Sequence[list[int]], keys: Sequence[tuple[Any, ...]]
    ) -> list[tuple[list[Completion], list[Grade]]]:
        """Answers from each prompt, as many and as long as the answerability check asks for, and their grades."""
        options = self.config.filter.answerability
        samples = options.samples
        completions = self._continue(prompts, keys, samples, [options.max_new_tokens] * len(prompts))
        requests = [
            GradeRequest(self.views.decode(completion.ids.tolist()), path.question.answer, path.question.text)
            for path, group in zip(paths, completions, strict=True)
            for completion in group
        ]
        grades = self.graders.grade(requests, lambda _: self.stop.check())
        return [(group, grades[index * samples : (index + 1) * samples]) for index, group in enumerate(completions)]

    # --- scoring ----------------------------------------------------------------------------------------------

    def _other_view(self, paths: Sequence[Path]) -> None:
        """log pi(z) per token of every posterior path, and log s_cue: the reference answer's after the cue.

        A cut-off path has no end of thinking of its own; it is put there before the cue.
        """
        requests: list[ScoreRequest] = []
        places: list[tuple[Path, int]] = []  # where the answer starts within what is scored
        for path in paths:
            end = self.views.end_of_thinking_ids if path.row["cut_off"] else []
            before = path.z + end + self.views.answer_cue_ids
            for answer in self._answers(path.question.answer):
                requests.append(ScoreRequest(path.prior_prompt + before + answer, len(path.prior_prompt)))
                places.append((path, len(before)))
        by_answer: dict[int, list[float]] = {}
        for (path, answer_start), logprobs in zip(places, self._score(requests), strict=True):
            path.found["other_view_logprobs"] = logprobs[: len(path.z)]
            by_answer.setdefault(id(path), []).append(float(logprobs[answer_start:].sum(dtype=np.float64)))
            _add(path, "score_tokens", len(logprobs))
        for path in paths:
            path.found["log_s_cue"] = float(np.logaddexp.reduce(by_answer[id(path)]))

    def _prior_under_posterior(self, paths: Sequence[Path]) -> None:
        """log q(z) per token of the prior's own correct paths: what plausible log-ratios look like."""
        requests = []
        for path in paths:
            prompt = self.views.posterior_prompt(path.question)
            requests.append(ScoreRequest(prompt + path.z, len(prompt)))
        for path, logprobs in zip(paths, self._score(requests), strict=True):
            path.found["other_view_logprobs"] = logprobs
            _add(path, "score_tokens", len(logprobs))

    def _counterfactual(self, candidates: Sequence[Path], answers: Sequence[str]) -> None:
        """Diagnostic: mean log q(z) per token when the note holds another of the chunk's answers, if there is one."""
        distinct = list(dict.fromkeys(answers))
        swapped, requests = [], []
        for path in candidates:
            others = [answer for answer in distinct if answer != path.question.answer]
            if others:
                other = others[sample_seed(0, *path.key, use="counterfactual") % len(others)]
                prompt = self.views.posterior_prompt(path.question, answer=other)
                requests.append(ScoreRequest(prompt + path.z, len(prompt)))
                swapped.append(path)
        for path, logprobs in zip(swapped, self._score(requests), strict=True):
            path.found["counterfactual_logprob"] = float(logprobs.mean(dtype=np.float64))
            _add(path, "score_tokens", len(logprobs))

    def _score(self, requests: Sequence[ScoreRequest]) -> list[np.ndarray]:
        return self._in_slices(self.engine.score, requests)

    def _in_slices(
        self, score: Callable[[Sequence[ScoreRequest]], list[T]], requests: Sequence[ScoreRequest]
    ) -> list[T]:
        """Score in slices, so that a stop is heard."""
        results: list[T] = []
        for start in range(0, len(requests), 256):
            self.stop.check()
            results += score(requests[start : start + 256])
        return results

    # --- texts ------------------------------------------------------------------------------------------------

    def _locate(self, candidates: Sequence[Path]) -> None:
        """Where the value of y* first stands in z."""
        for path in candidates:
            path.value_offset = find_value(path.z_text, path.question.answer)
            if path.value_offset is not None:
                path.found["answer_position"] = path.value_offset / len(path.z_text)

    def _leaks(self, candidates: Sequence[Path]) -> None:
        for path in candidates:
            matches = (pattern.search(path.z_text) for pattern in self.leaks)
            path.found["leak"] = next((match.group(0) for match in matches if match), None)

    def _answers(self, reference: str) -> list[list[int]]:
        """Ids of each way to write the answer. Two of the same ids are one event: its probability counts once."""
        if reference not in self.answer_ids:
            texts = canonical_answers(reference, self.config.grading.grader)
            distinct = dict.fromkeys(tuple(self.views.answer_ids(text)) for text in texts)
            self.answer_ids[reference] = [list(ids) for ids in distinct]
        return self.answer_ids[reference]

    def _on_tokens(self, count: int) -> None:
        self.stop.check()
        self.progress.note(self.engine.usage.remark)
        self.progress.advance(0, tokens=count)


def grade_rows(views: Views, graders: GraderPool, rows: Sequence[dict[str, Any]], stop: StopRequest) -> list[Grade]:
    """Grade the answer behind the thinking of every row of SAMPLES. Raises Stopped.

    A path that was cut off has no answer: wrong, without asking the grader.
    """
    requests = [
        GradeRequest(views.decode(row["completion_ids"][row["thinking_tokens"] :]), row["answer"], row["question"])
        for row in rows
        if not row["cut_off"]
    ]
    grades = iter(graders.grade(requests, lambda _: stop.check()))
    return [Grade(Status.WRONG) if row["cut_off"] else next(grades) for row in rows]


def sampling_truncated(config: RunConfig) -> bool:
    """True when stored log-probabilities are not the model's own: no ELBO, no importance weights."""
    rollout = config.rollout
    return Sampling(
        max_new_tokens=1, stop_ids=(), temperature=rollout.temperature, top_p=rollout.top_p, top_k=rollout.top_k
    ).truncated


def _is_correct_prior(path: Path) -> bool:
    return path.row["view"] == PRIOR and path.grade.status == Status.CORRECT and not path.row["cut_off"]


def _share_correct(grades: Sequence[Grade]) -> tuple[float | None, int]:
    """(share of the valid grades that are correct, None without any; number of valid grades)."""
    valid = [grade.status == Status.CORRECT for grade in grades if grade.status.valid]
    return (float(np.mean(valid)) if valid else None), len(valid)


def _add(path: Path, column: str, count: int) -> None:
    path.found[column] = path.found.get(column, 0) + count
