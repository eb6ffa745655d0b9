"""Phase 1: sample both views of every question into Arrow shards."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from vpgea.config.resolve import flat_config
from vpgea.config.schema import RolloutConfig, RunConfig, identity_of
from vpgea.engines.base import Completion, Engine, GenerateRequest, Sampling
from vpgea.engines.kept import Batch, KeptChunk
from vpgea.engines.lease import EngineLease, lent, opening
from vpgea.errors import UsageError
from vpgea.modeling.local_model import LocalModel
from vpgea.phases.ends import EndsWatch, tell_ends
from vpgea.prompts.benchmark import BenchmarkTurns
from vpgea.prompts.views import Views, load_views
from vpgea.questions.load import Question, chunk_questions, fingerprint_questions
from vpgea.runs.chunks import Made, run_chunks
from vpgea.runs.clock import Clock
from vpgea.runs.journals import Journals
from vpgea.runs.layout import CHUNK, COMPLETE, LOGS
from vpgea.runs.manifest import Manifest
from vpgea.runs.parts import WHOLE, Part
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.runs.progress import NullProgress, Progress
from vpgea.runs.published import require_published
from vpgea.runs.records import PartMarker, RolloutSummary
from vpgea.runs.stopping import StopRequest
from vpgea.storage.records import from_json, json_of
from vpgea.storage.rows import to_table
from vpgea.storage.schemas import POSTERIOR, PRIOR, Provenance, SampleKey, SampleRow, View
from vpgea.storage.sizes import SHARD_BYTES, journal_bytes, samples_bytes


@dataclass(frozen=True, kw_only=True)
class RolloutPlan:
    """Everything that is known before the first sample: the questions of all chunks, and the part to draw."""

    config: RunConfig
    model: LocalModel
    views: Views
    chunks: list[list[Question]]
    rejected: dict[str, str]  # question id → why
    manifest: Manifest
    round_index: int
    crowded: list[str] = field(default_factory=list)  # what the filter will not be able to judge, in words

    @classmethod
    def make(
        cls,
        config: RunConfig,
        questions: Sequence[Question],
        *,
        part: Part = WHOLE,
        round_index: int = 0,
        begun: Mapping[str, str] | None = None,
        asked: BenchmarkTurns | None = None,
    ) -> RolloutPlan:
        """Reject what cannot be a prompt, cut the rest into chunks, and say what the part will be made from.

        begun: inputs of what this continues or is compared with: `load_views`. asked: user turns of a protocol.

        Raises:
            UsageError: Nothing is asked for or left, the posterior view has no thinking, or the context is too short.
        """
        model = LocalModel.resolve(config.model)
        require_published(model)
        views = load_views(model, config.views, config.grading.grader, begun=begun, asked=asked, questions=questions)
        views.require_ends()
        _require_samples(config, views)
        view = POSTERIOR if config.rollout.posterior_samples or config.rollout.noted_prior else PRIOR
        reasons = {question.id: rejection(views, question, view) for question in questions}
        rejected = {identifier: reason for identifier, reason in reasons.items() if reason is not None}
        usable = [question for question in questions if question.id not in rejected]
        if not usable:
            raise UsageError(
                "no question is left to sample",
                why=f"all {len(rejected)} were rejected: {next(iter(rejected.values()), 'there were none')}",
                mend="choose other questions, or another model; for over-long prompts raise views.max_prompt_tokens",
            )
        longest_prompt = max(len(views.prompt(question, view)) for question in usable)
        _require_context(config, model, longest_prompt)
        manifest = Manifest(
            phase="rollout",
            identity={**identity_of(config, "model", "data", "views", "rollout"), "round": round_index},
            inputs={
                "model": model.fingerprint,
                "questions": fingerprint_questions(questions),
                "template": views.fingerprint,
            },
            config=flat_config(config),
            part=part,
            contents=model.contents,
        )
        return cls(
            config=config,
            model=model,
            views=views,
            chunks=chunk_questions(usable, config.rollout.questions_per_chunk),
            rejected=rejected,
            manifest=manifest,
            round_index=round_index,
            crowded=_crowded(config, model, longest_prompt),
        )

    @property
    def rejection_counts(self) -> dict[str, int]:
        """Number of rejected questions per kind of reason."""
        overlong = sum(reason.startswith("prompt over") for reason in self.rejected.values())
        return {"rejected_overlong": overlong, "rejected_control_tokens": len(self.rejected) - overlong}

    @property
    def remarks(self) -> list[str]:
        """What people should be told before the first sample."""
        return [*self.views.remarks, *self.crowded]

    @property
    def own_chunks(self) -> list[int]:
        """Chunk numbers of this part."""
        return self.manifest.part.of(range(len(self.chunks)))

    def questions_in(self, chunks: Sequence[int]) -> int:
        return sum(len(self.chunks[chunk]) for chunk in chunks)

    def disk_bytes(self, chunks: Sequence[int] | None = None) -> int:
        """An upper bound for this part, or for some chunks of it: every completion runs to its cap."""
        rollout = self.config.rollout
        chosen = self.own_chunks if chunks is None else chunks
        questions = [question for chunk in chosen for question in self.chunks[chunk]]
        prompts = sum(
            count * len(self.views.prompt(question, view))
            for view, count in ((PRIOR, rollout.prior_samples), (POSTERIOR, rollout.posterior_samples))
            if count
            for question in questions
        )
        samples = len(questions) * samples_per_question(rollout)
        waiting = open_samples(self.config, samples)
        return (
            samples_bytes(samples, prompts, samples * rollout.max_new_tokens)
            + len(chosen) * SHARD_BYTES
            + journal_bytes(waiting, waiting * rollout.max_new_tokens)
        )


def rejection(views: Views, question: Question, view: View) -> str | None:
    """Why a question cannot be a prompt of a view; None when it can. Nothing is cut or taken out of it."""
    if (token := views.control_token_in(question)) is not None:
        if token == views.tokenizer.unk_token:
            return "the model's tokenizer does not know all of its words"
        return f"control token {token} in its text"
    if len(views.prompt(question, view)) > views.config.max_prompt_tokens:
        return f"prompt over views.max_prompt_tokens={views.config.max_prompt_tokens}"
    return None


def _require_context(config: RunConfig, model: LocalModel, longest_prompt: int) -> None:
    """Beyond its context a model writes noise, which would be sampled, graded and learned without a word."""
    limit, cap = model.context_length, config.rollout.max_new_tokens
    if limit is not None and longest_prompt + cap > limit:
        raise UsageError(
            f"prompt and completion can outgrow the model's context of {limit:,} tokens",
            why=f"the longest prompt has {longest_prompt:,} tokens and a completion may have {cap:,}"
            + ("; beyond, its positions depend on what else is in a batch" if model.context_follows_batch else ""),
            mend=f"set max_new_tokens (of rollout or eval) to at most {max(limit - longest_prompt, 0):,}",
        )


def _crowded(config: RunConfig, model: LocalModel, longest_prompt: int) -> list[str]:
    """What of the longest paths the filter will not be able to judge."""
    check, limit = config.filter.answerability, model.context_length
    longest = longest_prompt + config.rollout.max_new_tokens
    if limit is None or not config.rollout.posterior_samples or not check.enabled:
        return []
    if longest + check.max_new_tokens <= limit:
        return []
    return [
        f"a path may end {limit - longest:,} tokens before the model's context of {limit:,} does, and the filter "
        f"continues paths by filter.answerability.max_new_tokens={check.max_new_tokens:,}: those of which no such "
        "continuation fits are undecided; lower rollout.max_new_tokens to judge all of them"
    ]


def _require_samples(config: RunConfig, views: Views) -> None:
    if samples_per_question(config.rollout) == 0:
        mend = "set --prior-samples or --posterior-samples"
        raise UsageError("nothing to sample", why="both sample counts are 0", mend=mend)
    if config.rollout.posterior_samples and not views.thinks:
        raise UsageError(
            "the posterior view has nothing to sample",
            why="its paths are thinking, and completions hold none: views.end_of_thinking is null, or the prompt "
            "already ends the thinking",
            mend="set rollout.posterior_samples=0, or let the model think (views.chat_template_kwargs, "
            "views.end_of_thinking)",
        )


@dataclass(frozen=True)
class Drawn:
    """A part of a rollout that is complete, and how many of its chunks were drawn and saved by this call."""

    summary: RolloutSummary
    drawn_now: int


def samples_per_question(config: RolloutConfig) -> int:
    return config.prior_samples + config.posterior_samples


def open_samples(config: RunConfig, samples: int) -> int:
    """At most so many of all samples are in journals at one time: a chunk's, and what a server runs and lets wait."""
    rollout = config.rollout
    at_server = 0 if rollout.engine == "transformers" else 2 * config.sglang.max_concurrency
    return min(samples, rollout.questions_per_chunk * samples_per_question(rollout) + at_server)


def rollout(
    plan: RolloutPlan,
    output_dir: Path,
    *,
    lease: EngineLease | None = None,
    resume: bool = True,
    overwrite: bool = False,
    stop: StopRequest | None = None,
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> Drawn:
    """Draw what is missing of this part. clock: of this phase, where planning has begun it.

    A chunk is committed whole or not at all; what is finished of the chunks under way is kept in their journals, and
    the next call draws what is missing with the same seeds.

    Raises:
        UsageError: Other inputs, or too little disk.
        EngineError: The engine fails.
        Stopped: A stop was requested.
    """
    stop, progress, clock = stop or StopRequest(), progress or NullProgress(), clock or Clock()
    folder = PhaseFolder.open(output_dir, plan.manifest, resume=resume, overwrite=overwrite)
    with folder.writing(), clock.kept(folder):  # from here on: also while an engine starts
        missing = folder.missing(plan.own_chunks)
        with Journals(folder, missing, stop, progress) as journals:
            drawing = Drawing(plan, missing, journals, stop)
            if missing:
                progress.advance(plan.questions_in(plan.own_chunks) - plan.questions_in(missing) + drawing.finished)
                _require_disk(output_dir, plan.disk_bytes(missing))
                with lent(lease, output_dir / LOGS, stop) as engines:
                    with clock.on(opening(plan.config)):
                        engine = engines.get(plan.config, plan.model)

                    def work() -> Made:
                        for chunk, rows in clock.each("sampling", drawing.chunks(engine, progress)):
                            yield chunk, {CHUNK: to_table(rows, SampleRow)}

                    run_chunks(folder, missing, stop, work, journals)
        shards = [folder.chunk(chunk) for chunk in plan.own_chunks]
        ends = tell_ends(shards, plan.views, plan.config.rollout.max_new_tokens, progress)
        if not missing:
            progress.advance(plan.questions_in(plan.own_chunks))  # after they were read: what is damaged is not done
        summary = RolloutSummary(
            questions=plan.questions_in(plan.own_chunks),
            **plan.rejection_counts,
            rejected=plan.rejected,
            chunks=len(plan.own_chunks),
            samples=ends.samples,
            at_cap=ends.at_cap,
            no_end_of_thinking=ends.unended,
        )
        folder.complete(json_of(summary))
    return Drawn(summary, len(missing))


def rollout_summary(part: Path) -> RolloutSummary:
    """What a complete part of a rollout says of itself.

    Raises:
        DamagedError: Its marker is gone, or is none.
    """
    return from_json(RolloutSummary, PartMarker.read(part).summary, part / COMPLETE)


class Drawing:
    """The samples of chunks: those of earlier attempts, and those that are drawn now.

    Args:
        plan: Of the part.
        missing: Numbers of the chunks.
        journals: Of the part.
        stop: Of the run.

    Attributes:
        finished: Questions of which earlier attempts have drawn all samples.
    """

    def __init__(self, plan: RolloutPlan, missing: Sequence[int], journals: Journals, stop: StopRequest) -> None:
        self._plan, self._missing, self._journals, self._stop = plan, missing, journals, stop
        begun = journals.chunks
        self._begun = {chunk: self._open(chunk) for chunk in missing if chunk in begun}
        questions = [question for chunk in self._begun for question in plan.chunks[chunk]]
        self.finished = len(questions) - sum(len(chunk.left) for chunk in self._begun.values())

    @cached_property
    def sampling(self) -> Sampling:
        config = self._plan.config.rollout
        return Sampling(
            max_new_tokens=config.max_new_tokens,
            stop_ids=self._plan.views.stop_ids,
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=config.top_k,
        )

    def _open(self, chunk: int) -> _OpenChunk:
        kept = KeptChunk(self._journals, chunk)
        return _OpenChunk(self._plan, chunk, self.sampling, kept, self._stop)

    def chunks(self, engine: Engine, progress: Progress) -> Iterator[tuple[int, list[SampleRow]]]:
        """Yield (chunk, all its samples in order of identity), each chunk as soon as it is whole.

        The engine may work on several chunks at a time.

        Raises:
            EngineError: The engine fails.
            Stopped: A stop was requested; what is finished of chunks that are not whole is in their journals.
        """
        underway: list[_OpenChunk] = []
        watch = EndsWatch(self._plan.views, progress)
        for remark in self._plan.remarks:
            progress.warn(remark)
        for chunk, opened in self._begun.items():
            for kept in opened.rows.values():
                watch.add(kept.finish_reason, cut_off=kept.cut_off)
            if not opened.left:
                yield chunk, opened.take_rows()

        def batches() -> Iterator[list[GenerateRequest]]:
            for chunk in sorted(self._missing, key=lambda chunk: chunk not in self._begun):  # those begun come first
                opened = self._begun.get(chunk) or self._open(chunk)
                if opened.left:
                    underway.append(opened)
                    yield opened.ask(engine)

        def on_tokens(count: int) -> None:
            self._stop.account.drawn += count
            self._journals.check()
            progress.note(engine.usage.remark)
            progress.advance(0, tokens=count)

        for number, index, completion in engine.generate(batches(), self.sampling, on_tokens):
            opened = underway[number]
            row = opened.take(index, completion)
            if row is None:
                continue
            if row.key.question_id not in opened.left:
                progress.advance(1)
            watch.add(completion.finish_reason, cut_off=row.cut_off)
            if not opened.left:
                yield opened.chunk, opened.take_rows()


class _OpenChunk:
    """A chunk whose samples are being drawn. left: how many are missing of each question of which any is."""

    def __init__(self, plan: RolloutPlan, chunk: int, sampling: Sampling, kept: KeptChunk, stop: StopRequest) -> None:
        config = plan.config.rollout
        self.plan, self.chunk = plan, chunk
        self.requests: list[GenerateRequest] = []
        self.samples: list[tuple[Question, SampleKey]] = []
        for question in plan.chunks[chunk]:
            for view, count in ((PRIOR, config.prior_samples), (POSTERIOR, config.posterior_samples)):
                prompt = plan.views.prompt(question, view) if count else []
                for index in range(count):
                    key = SampleKey(plan.round_index, question.id, view, index)
                    self.samples.append((question, key))
                    self.requests.append(GenerateRequest(prompt, key.seed(config.seed), group=question.id))
        self.rows: dict[int, SampleRow] = {}
        self.left = dict.fromkeys((question.id for question in plan.chunks[chunk]), samples_per_question(config))
        self._batch = Batch(self.requests, sampling, kept, stop)
        for position, found in self._batch.found.items():
            self._add(position, found.completion, _origin(plan, found.engine, found.logprobs_of))

    def ask(self, engine: Engine) -> list[GenerateRequest]:
        self._drawn_by = _origin(self.plan, engine.name, engine.logprobs_of)
        return self._batch.ask(engine)

    def take(self, index: int, completion: Completion) -> SampleRow | None:
        """Keep what came back of what was asked for; None where the sample was there before."""
        position = self._batch.take(index, completion)
        return None if position is None else self._add(position, completion, self._drawn_by)

    def _add(self, position: int, completion: Completion, origin: Provenance) -> SampleRow:
        question, key = self.samples[position]
        request = self.requests[position]
        thinking = self.plan.views.thinking_length(completion.ids.tolist())
        self.rows[position] = SampleRow(
            key=key,
            seed=request.seed,
            question=question.text,
            answer=question.answer,
            options=question.options,
            prompt_ids=np.asarray(request.prompt_ids, np.int32),
            completion_ids=completion.ids,
            logprobs=completion.logprobs,
            thinking_tokens=len(completion.ids) if thinking is None else thinking,
            cut_off=thinking is None,
            finish_reason=completion.finish_reason,
            completion=self.plan.views.tokenizer.decode(completion.ids, skip_special_tokens=False),
            origin=origin,
        )
        self.left[question.id] -= 1
        if not self.left[question.id]:
            del self.left[question.id]
        return self.rows[position]

    def take_rows(self) -> list[SampleRow]:
        """The rows; they are not kept here, since a run has many chunks."""
        rows = [self.rows[position] for position in range(len(self.requests))]
        self.rows, self.requests, self.samples = {}, [], []
        self._batch.close()
        return rows


def _origin(plan: RolloutPlan, engine: str, logprobs_of: str) -> Provenance:
    config = plan.config.rollout
    return Provenance(
        model_fingerprint=plan.manifest.inputs["model"],
        template_fingerprint=plan.manifest.inputs["template"],
        engine=engine,
        logprobs_of=logprobs_of,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        max_new_tokens=config.max_new_tokens,
    )


def _require_disk(output_dir: Path, needed: int) -> None:
    """Refuse to start when not even an eighth of the upper bound is free: real completions end before their cap."""
    free = shutil.disk_usage(output_dir).free
    if free < max(needed // 8, 1 << 20):
        raise UsageError(
            f"too little disk space for {output_dir}",
            why=f"{free / 2**20:,.1f} MiB are free, and this rollout can write up to {max(needed / 2**20, 1):,.1f} MiB",
            mend="free some space, choose another --output-dir, or lower --limit, -n or rollout.max_new_tokens",
        )
