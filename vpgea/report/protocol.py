"""The section on how it was measured: settings of each run beside one another, and one prompt as the model saw it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from vpgea.inspection.samples import strings_of, token_text
from vpgea.phases.comparable import PROTOCOL
from vpgea.report.cards import card_blocks, cards_of
from vpgea.report.model import Block, Prompt, Section, Table, Words
from vpgea.report.sources import Sources
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.layout import MANIFEST
from vpgea.runs.manifest import Manifest
from vpgea.storage.files import read_json
from vpgea.storage.shards import read_table

_HELD_OUT = "loop.eval_dataset"  # a loop's questions are those, whatever data.dataset says
_FIRST = (
    *("protocol", "model.path", "model.adapter", "model", "data.dataset", _HELD_OUT, "questions", "template"),
    *("eval.samples", "eval.temperature", "eval.top_p", "eval.max_new_tokens", "eval.seed", "grading.grader"),
    *("grading.relative_tolerance", "engine", "logprobs_of", "vpgea_version"),
)
_SECTIONS = ("model.", "data.", "views.", "eval.", "grading.", "foreign.")
_OF_ROWS = ("engine", "logprobs_of", "template_fingerprint", "model_fingerprint")
_NONE = "no protocol"


def protocol_section(sources: Sources) -> Section:
    """One table for each set; rows that differ between runs are marked."""
    return Section("protocol", "Protocol", [block for name in sources.sets for block in _of_set(sources, name)])


def _of_set(sources: Sources, name: str) -> Iterator[Block]:
    runs = {run: sets[name] for run, sets in sources.evaluations.items()}
    facts = {run: _facts(evaluation) for run, evaluation in runs.items()}
    keys = dict.fromkeys([*_FIRST, *sorted({key for one in facts.values() for key in one})])
    keys = {key: None for key in keys if any(key in one for one in facts.values())}
    start = f"{name}: " if name else ""
    for title, chosen, closed in (
        ("how it was measured", [key for key in keys if key in _FIRST], False),
        ("every other setting", [key for key in keys if key not in _FIRST], True),
    ):
        rows = [(key, *(one.get(key, "-") for one in facts.values())) for key in chosen]
        differing = frozenset(place for place, (_, *values) in enumerate(rows) if len(set(values)) > 1)
        note = f"{len(differing)} differ between the runs, and are marked" if differing else "none differs"
        yield Table(
            title=f"{start}{title}",
            head=("", *runs),
            rows=rows,
            marked=differing,
            closed=closed,
            note=note if len(runs) > 1 else "",
        )
    yield from card_blocks(start, cards_of(sources, name))
    yield _prompt(start, *next(iter(runs.items())))


def _facts(evaluation: CompletePhase) -> dict[str, str]:
    manifest = evaluation.manifest
    config = {key: value for key, value in manifest.config.items() if key.startswith(_SECTIONS)}
    identity = {key: value for key, value in manifest.identity.items() if key.startswith(_SECTIONS)}
    version = read_json(evaluation.root / MANIFEST).get("vpgea_version")
    held_out = manifest.config.get(_HELD_OUT)
    facts: Mapping[str, object] = {
        **({_HELD_OUT: held_out} if held_out else {}),
        **config,
        **identity,
        **{"examples of the protocol" if name == "protocol" else name: one for name, one in manifest.inputs.items()},
        **{f"content of {name}": value for name, value in manifest.contents.items()},
        "vpgea_version": version,
        "protocol": _protocol(manifest),
        **_of_first_row(evaluation),
    }
    return {key: _shown(value) for key, value in facts.items()}


def _protocol(manifest: Manifest) -> str:
    """`aime24: deepseek, version 1`; an import has what its log says."""
    benchmark, name, version = (manifest.identity.get(key) for key in PROTOCOL)
    if name is None:
        return str(manifest.identity.get("foreign.protocol") or _NONE)
    return f"{benchmark}: {name}, version {version}"


def _of_first_row(evaluation: CompletePhase) -> dict[str, object]:
    for path in evaluation.chunks():
        for row in read_table(path, columns=_OF_ROWS).slice(0, 1).to_pylist():
            return dict(row)
    return {}


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _prompt(start: str, run: str, evaluation: CompletePhase) -> Block:
    """That of the run's first sample."""
    title, notes = f"{start}a prompt as the model saw it", list[str]()
    for path in evaluation.chunks():
        table = read_table(path, columns=("question_id", "prompt_ids", "completion_ids", "completion"))
        for row in table.slice(0, 1).to_pylist():
            ids = row["prompt_ids"]
            strings = strings_of(evaluation.manifest, row["completion_ids"] or [], row["completion"], notes)
            if strings is None or ids is None:
                return Words(f"{title}: {'; '.join(notes) or 'its ids are not stored'}")
            return Prompt(
                title=f"{title}: {run}, question {row['question_id']}, {len(ids)} tokens",
                text=strings.decode(ids),
                tokens=[(number, token_text(strings, number)) for number in ids],
            )
    return Words(f"{title}: there are no samples")
