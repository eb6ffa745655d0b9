"""One sample with everything that is known of it: tokens, both views' log-probabilities, grade, checks, weight."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from vpgea.config.resolve import resolve
from vpgea.errors import UsageError
from vpgea.grading.references import final_answer
from vpgea.inspection.folders import Source, chunks, require_rows
from vpgea.modeling.local_model import LocalModel
from vpgea.runs.manifest import Manifest
from vpgea.storage.files import read_json
from vpgea.storage.rows import (
    Float32,
    Ids,
    Int32,
    IntArray,
    Logprobs,
    Text,
    UInt64,
    View,
    from_table,
    required_columns,
)
from vpgea.storage.schemas import IDENTITY, IMPORTED, POSTERIOR, PRIOR, SAMPLES, SELECTION, ForeignProvenance, SampleKey
from vpgea.storage.shards import damaged, read_table

# What a sample has beside these was measured, by whatever checks there were, and is shown as it is.
_NOT_MEASURED = frozenset((*SAMPLES.names, *SELECTION.names, *IMPORTED.names, "other_view_logprobs"))
_ABOUT = ("round", "seed", "question", "answer", "options", "finish_reason", "cut_off", "thinking_tokens")
_ORIGIN = ("model_fingerprint", "template_fingerprint", "engine", "temperature", "top_p", "top_k", "max_new_tokens")
_OF_IMPORT = ("detail", "graded_by", "recorded_status", "recorded_score", "recorded_tokens", "place")
_VERDICT = ("status", "extracted", "reasons", "utility", "advantage", "gate", "learnt_tokens", *_OF_IMPORT)

_GAP = 12  # characters that a token may begin behind the end of the one before

R = TypeVar("R")
Columns = dict[str, object]  # of one row, for people to read


class SampleName(NamedTuple):
    """What a user calls a sample: QUESTION_ID/VIEW/INDEX. A folder holds one round."""

    question_id: str
    view: View
    sample_index: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Sampled:
    """The columns that samples, graded samples and selections share; only imported ones have nulls."""

    key: SampleKey
    completion_ids: Ids | None
    logprobs: Logprobs | None
    thinking_tokens: Int32 | None
    completion: Text
    origin: ForeignProvenance

    @property
    def ids(self) -> list[int]:
        return [] if self.completion_ids is None else self.completion_ids.tolist()

    @property
    def is_truncated(self) -> bool:
        """Whether its log-probabilities are those of a tempered or truncated sampler."""
        origin = self.origin
        return self.logprobs is not None and (origin.temperature, origin.top_p, origin.top_k) != (1, 1, 0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Drawn:
    """What only a rollout or an evaluation has."""

    seed: UInt64 | None
    prompt_ids: Ids | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Continued:
    """What measurements and selections share."""

    crossview_answer_ids: Ids | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Scored:
    """The log-probabilities among a filter's measurements."""

    other_view_logprobs: Logprobs | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Learned:
    """What only a selection has."""

    prompt_ids: Ids
    posterior_prompt_ids: Ids | None
    advantage: Float32 | None
    gate: Float32 | None
    learnt_tokens: Int32 | None = None

    def weight(self, view: View, position: int, thinking: int) -> float:
        """Prior samples carry their advantage on every token, posterior paths their gate on z alone: y copies the
        note. Of a path that is learnt in part, on that part."""
        if view == PRIOR:
            return self.advantage or 0.0
        learnt = thinking if self.learnt_tokens is None else self.learnt_tokens
        return (self.gate or 0.0) if position < learnt else 0.0


@dataclass(frozen=True)
class IdsAndText:
    """text: None without the tokenizer."""

    ids: list[int]
    text: str | None


@dataclass(frozen=True, kw_only=True)
class TokenRow:
    """One token of a completion.

    Attributes:
        part: z (thinking with its end) or y.
        text: None without the tokenizer.
        prior: Log-probability in nats, None where not measured.
        posterior: The same in the posterior view.
        log_ratio: posterior - prior, log q - log pi.
        weight: The advantage or gate that multiplies this token's term of the loss; 0: masked; None: not decided yet.
    """

    position: int
    id: int
    text: str | None
    part: str
    weight: float | None
    prior: float | None
    posterior: float | None
    log_ratio: float | None


@dataclass(frozen=True, kw_only=True)
class SampleDetail:
    """prompts: view → ids and, with the tokenizer, text. notes: what could not be shown, and why."""

    id: str
    about: Columns
    verdict: Columns
    checks: Columns
    origin: Columns
    prompts: dict[str, IdsAndText]
    completion: str | None
    tokens: list[TokenRow]
    crossview_answer: IdsAndText | None = None
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def parse_key(text: str) -> SampleName:
    """QUESTION_ID/VIEW/INDEX; a question's id may hold slashes.

    Raises:
        UsageError: The text is anything else.
    """
    question, view, index = [*text.rsplit("/", 2), "", ""][:3]
    known = next((name for name in (PRIOR, POSTERIOR) if name == view), None)
    if not question or known is None or not index.isdecimal():
        raise UsageError(
            f"not a sample id: {text!r}",
            why="a sample is named QUESTION_ID/VIEW/INDEX, with the view prior or posterior",
            mend="for example q17/prior/0; --head lists some",
        )
    return SampleName(question, known, int(index))


def sample_detail(source: Source, key: SampleName) -> SampleDetail:
    """Everything on one sample, joined over a filter's tables and, where it is at hand, the rollout's.

    Raises:
        UsageError: There is no such sample (nearest ids are named), or a shard is damaged.
    """
    require_rows(source)
    if _find(source.rows(), key) is None:
        raise _unknown(source, key)
    notes: list[str] = []
    places = [_sample_shards(source, notes), source.measurements(), source.selection()]
    found = [table for shards in places if (table := _find(shards, key)) is not None]
    tables = _Tables(source.path, found or [_find([source.path], key)])
    row: Columns = {name: value for table in tables.found for name, value in table.to_pylist()[0].items()}
    sampled = tables.read(_Sampled)
    ids, text = ([], "") if sampled is None else (sampled.ids, sampled.completion)
    strings = strings_of(source.manifest, ids, text, notes)
    continued = tables.read(_Continued)
    return SampleDetail(
        id="/".join(map(str, key)),
        about=_about(source, row),
        verdict={name: row[name] for name in _VERDICT if row.get(name) is not None},
        checks={name: value for name, value in row.items() if name not in _NOT_MEASURED and value is not None},
        origin={name: row[name] for name in _ORIGIN if name in row},
        prompts=_prompts(key.view, tables, strings),
        completion=None if sampled is None else sampled.completion,
        tokens=_tokens(sampled, tables, strings, notes),
        crossview_answer=None if continued is None else _ids_and_text(continued.crossview_answer_ids, strings),
        notes=notes,
    )


def _about(source: Source, row: Columns) -> Columns:
    """What the sample is; `answer` is the final answer, as note and grade have it, `reference` the whole around it."""
    about = {name: row[name] for name in _ABOUT if name in row}
    grader = source.manifest.config.get("grading.grader") if source.manifest else None
    reference = about.get("answer")
    if isinstance(reference, str) and isinstance(grader, str):
        about["answer"] = final_answer(reference, grader)
        about |= {"reference": reference} if about["answer"] != reference.strip() else {}
    return about


@dataclass(frozen=True)
class _Tables:
    """A sample's row in every table that has one: the rollout's, the measurements, the selection."""

    place: Path
    found: list[pa.Table]

    def read(self, row_type: type[R]) -> R | None:
        """The row of the last table that has these columns; None where none has."""
        names = required_columns(row_type)
        try:
            return next(
                (from_table(t, row_type)[0] for t in reversed(self.found) if names <= set(t.column_names)), None
            )
        except ValueError as error:
            raise damaged(self.place, str(error)) from error


def _find(shards: Sequence[Path], key: SampleName) -> pa.Table | None:
    """The sample's row from the first shard that has it, as a table."""
    for path in shards:
        table = read_table(path)
        same = [pc.equal(table[name], value) for name, value in zip(IDENTITY[1:], key, strict=True)]
        found = table.filter(pc.and_(pc.and_(same[0], same[1]), same[2]))
        if found.num_rows:
            return found.slice(0, 1)
    return None


def _sample_shards(source: Source, notes: list[str]) -> list[Path]:
    """Shards with the samples as they were drawn; of a filter folder, those of the rollout it names, if it is near."""
    if source.manifest is None or source.root is None:
        return []
    if source.manifest.phase != "filter":
        return chunks(source.root)
    wanted = source.manifest.inputs["rollout"]
    for manifest in sorted(source.root.absolute().parent.glob("*/manifest.json")):
        if read_json(manifest).get("content_fingerprint") == wanted:
            return chunks(manifest.parent)
    notes.append(f"the rollout {wanted} does not stand beside the filter folder: question and answer are not shown")
    return []


def _unknown(source: Source, key: SampleName) -> UsageError:
    """Names the question's samples, or the questions with the nearest ids."""
    question, samples = key.question_id, _by_question(source)
    what, named = f"no such sample: {'/'.join(map(str, key))}", f"{source.path}"
    if question in samples:
        views = {view: [i for v, i in samples[question] if v == view] for view in (PRIOR, POSTERIOR)}
        ranges = [f"{view} {min(found)}-{max(found)}" for view, found in views.items() if found]
        return UsageError(
            what, why=f"question {question} has {', '.join(ranges)} in {named}", mend="give one of these samples"
        )
    nearest = difflib.get_close_matches(question, samples, n=3, cutoff=0.0)
    ids = [f"{name}/{samples[name][0][0]}/{samples[name][0][1]}" for name in nearest]
    mend = f"the nearest are {', '.join(ids)}" if ids else "it holds no samples yet"
    return UsageError(what, why=f"{named} has no question {question!r}", mend=mend)


def _by_question(source: Source) -> dict[str, list[tuple[str, int]]]:
    samples: dict[str, list[tuple[str, int]]] = {}
    for path in source.rows():
        for row in read_table(path, columns=IDENTITY).to_pylist():
            samples.setdefault(row["question_id"], []).append((row["view"], row["sample_index"]))
    return samples


@dataclass(frozen=True)
class Strings:
    """Ids as text, special tokens included; `name` is what the tokenizer calls one id."""

    decode: Callable[[list[int]], str]
    name: Callable[[int], str | None]


def strings_of(manifest: Manifest | None, ids: list[int], text: str, notes: list[str]) -> Strings | None:
    """Those of the recorded model's tokenizer; None, with a note, when it is not here or is another one by now.

    Code that comes with a model is never run for looking at its samples.

    Args:
        manifest: Of the phase folder around the samples, if there is one.
        ids: Of a completion.
        text: The same, as it is stored: what the tokenizer must give.
        notes: Grows by why there are none.
    """
    if manifest is not None and manifest.is_imported:
        notes.append("it was imported: its text is all there is, and no model's log-probabilities")
        return None
    if manifest is None:
        notes.append("the shard stands in no phase folder: ids are shown without their strings")
        return None
    named = {key: value for key, value in manifest.config.items() if key in ("model.path", "model.revision")}
    model = resolve(inherited=[("this folder", named)]).config.model
    try:
        found = LocalModel.resolve(model)
        for load in (_quick_strings, _transformers_strings):
            strings = load(found)
            if strings is not None and strings.decode(ids) == text:
                return strings
        notes.append(f"ids are shown without their strings: {model.path} has another tokenizer by now")
    except UsageError as error:
        notes.append(f"ids are shown without their strings: {error.what}")
    return None


def _quick_strings(model: LocalModel) -> Strings | None:
    """From tokenizer.json alone: importing transformers takes seconds, and for most models this gives the same."""
    from tokenizers import Tokenizer

    file = model.folder / "tokenizer.json"
    if not file.is_file():
        return None
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception:  # the library raises nothing narrower; transformers then says what is wrong with the file
        return None
    return Strings(lambda ids: tokenizer.decode(ids, skip_special_tokens=False), tokenizer.id_to_token)


def _transformers_strings(model: LocalModel) -> Strings:
    tokenizer = model.tokenizer
    return Strings(lambda ids: tokenizer.decode(ids, skip_special_tokens=False), tokenizer.convert_ids_to_tokens)


def _prompts(view: View, tables: _Tables, strings: Strings | None) -> dict[str, IdsAndText]:
    """The prompts that are stored. A selection's is the prior's, whichever view sampled; a rollout's the sampler's."""
    drawn, learned = tables.read(_Drawn), tables.read(_Learned)
    ids: dict[View, IntArray | None] = {PRIOR: None, POSTERIOR: None}
    if learned is not None:
        ids = {PRIOR: learned.prompt_ids, POSTERIOR: learned.posterior_prompt_ids}
    if drawn is not None and ids[view] is None:
        ids[view] = drawn.prompt_ids
    prompts = {name: _ids_and_text(found, strings) for name, found in ids.items()}
    return {name: prompt for name, prompt in prompts.items() if prompt is not None}


def _ids_and_text(ids: IntArray | None, strings: Strings | None) -> IdsAndText | None:
    if ids is None:
        return None
    return IdsAndText(ids.tolist(), None if strings is None else strings.decode(ids.tolist()))


def _tokens(sampled: _Sampled | None, tables: _Tables, strings: Strings | None, notes: list[str]) -> list[TokenRow]:
    if sampled is None:
        notes.append("only measurements are stored here: the completion stands in the rollout")
        return []
    scored, learned = tables.read(_Scored), tables.read(_Learned)
    other = None if scored is None else scored.other_view_logprobs
    if other is None:
        notes.append("the view that did not sample it was not asked for its log-probabilities")
    if sampled.is_truncated:
        notes.append("the sampling view's log-probabilities are those after temperature, top-p and top-k")
    view, ids = sampled.key.view, sampled.ids
    own: list[float | None] = [None] * len(ids) if sampled.logprobs is None else sampled.logprobs.tolist()
    thinking = sampled.thinking_tokens or 0
    measured = [] if other is None else other.tolist()
    padded = [*measured, *[None] * (len(ids) - len(measured))]
    prior, posterior = (own, padded) if view == PRIOR else (padded, own)
    return [
        TokenRow(
            position=position,
            id=ids[position],
            text=None if strings is None else token_text(strings, ids[position]),
            part="z" if position < thinking else "y",
            weight=None if learned is None else learned.weight(view, position, thinking),
            prior=pi,
            posterior=q,
            log_ratio=None if pi is None or q is None else q - pi,
        )
        for position, (pi, q) in enumerate(zip(prior, posterior, strict=True))
    ]


def token_text(strings: Strings, token: int) -> str:
    """One id as text; of an id that is no whole character, the tokenizer's own name for it."""
    text = strings.decode([token])
    return str(strings.name(token)) if "\ufffd" in text or not text else text


def pieces_of(strings: Strings, ids: list[int], text: str) -> list[str]:
    """The text cut where its tokens meet; joined it is the text again.

    A tokenizer may give a token without the space before it, or a character in several tokens: what no token alone
    gives goes to the next one that is found.
    """
    pieces, place = [""] * len(ids), 0
    for number, token in enumerate(ids):
        piece = strings.decode([token])
        found = -1 if "\ufffd" in piece or not piece else text.find(piece, place, place + len(piece) + _GAP)
        if found >= 0:
            pieces[number], place = text[place : found + len(piece)], found + len(piece)
    if pieces:
        pieces[-1] += text[place:]
    return pieces
