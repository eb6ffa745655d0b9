"""Which column is which: names and paths of columns, and what was probably meant by one that is not there."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vpgea.config.schema import FieldMapping
from vpgea.errors import UsageError
from vpgea.questions.rows import RawRows, RowError

Steps = tuple[str | int, ...]

_PATH = re.compile(r"[^.\[\]]+(?:\.[^.\[\]]+|\[-?\d+\])+")
_STEP = re.compile(r"\[(-?\d+)\]|\.?([^.\[\]]+)")

# Names that published question files have, the likeliest first; a name of one role is never offered for another.
KNOWN = {
    "id": ("id", "unique_id", "uid", "question_id", "problem_id", "uuid", "record id", "idx"),
    "question": ("question", "problem", "prompt", "query", "problem_text", "question_text", "instruction", "input"),
    "answer": (
        *("answer", "final_answer", "ground_truth", "expected_answer", "reference_answer", "gold_answer", "gt_answer"),
        *("correct_answer", "answerkey", "gold", "reference", "target", "label", "answers"),
    ),
    "options": ("options", "choices", "candidates", "answer_choices"),
}
_WORKED = ("solution", "solutions", "rationale", "explanation", "reasoning", "response", "generated_solution")
_ROLE_OF = {known: role for role, names in KNOWN.items() for known in names} | dict.fromkeys(_WORKED, "solution")


def steps_of(name: str) -> Steps:
    """The steps of a path such as `reward_model.ground_truth` or `prompt[0].content`; one for a plain name."""
    if not _PATH.fullmatch(name):
        return (name,)
    return tuple(int(index) if index else key for index, key in _STEP.findall(name))


def top_level(name: str) -> frozenset[str]:
    """The columns that a name may mean: one of just that name, or the first step of a path."""
    return frozenset({name, str(steps_of(name)[0])})


def value_at(row: Mapping[str, object], name: str, columns: Iterable[str] = ()) -> object:
    """What a row has under a column's name or path; a column of just that name goes first.

    Args:
        row: Column → value.
        name: The name or path.
        columns: All that the source has, of which one may have been meant.

    Raises:
        RowError: There is no such thing.
    """
    if name in row:
        return row[name]
    value: object = row
    for step in steps_of(name):
        if value is None:
            return None
        if isinstance(step, int):
            if not isinstance(value, list) or not -len(value) <= step < len(value):
                found = f"a list of {len(value)}" if isinstance(value, list) else type(value).__name__
                raise RowError(f"the field {name!r} is missing: [{step}] of {found}")
            value = value[step]
        elif isinstance(value, Mapping) and step in value:
            value = value[step]
        else:
            raise RowError(f"the field {name!r} is missing{_instead(name, columns if value is row else value)}")
    return value


def _instead(name: str, value: object) -> str:
    if not isinstance(value, Iterable) or isinstance(value, str | list):
        return f": it leads into {type(value).__name__}"
    lowered = {str(column).lower(): column for column in value if column != name}
    near = difflib.get_close_matches(name.lower().rpartition(".")[2], lowered, n=1, cutoff=0.5)
    return f"; did you mean {lowered[near[0]]!r}?" if near else ""


def existing_columns(raw: RawRows, fields: FieldMapping) -> FieldMapping:
    """`fields` with id and options set to None where the source has no such column.

    Raises:
        UsageError: It lacks another one. Every option that would name a column is in the mend.
    """
    defaults = FieldMapping().model_dump()
    found: dict[str, str | None] = {}
    missing: list[str] = []
    for role, default in defaults.items():
        name = getattr(fields, role)
        here = name is not None and not top_level(name).isdisjoint(raw.columns)
        found[role] = name if here else None
        if not here and not (role in ("id", "options") and name in (None, default)):
            missing.append(role)
    if missing:
        raise _missing_columns(raw, fields, missing)
    return FieldMapping.model_validate(found)


def _missing_columns(raw: RawRows, fields: FieldMapping, roles: list[str]) -> UsageError:
    meant = {role: likely_column(role, getattr(fields, role), raw) for role in roles}
    role, name = roles[0], getattr(fields, roles[0])
    hints = [f"; did you mean {column!r}?" for column in [meant[role]] if column]
    worked = [column for column in raw.columns if column.lower() in _WORKED]
    if "answer" in roles and not meant["answer"] and worked:
        hints.append(
            f"; {worked[0]!r} sounds like worked solutions, of which only a final answer in a box would be read"
        )
    named = {f"data.fields.{role}": column or "COLUMN" for role, column in meant.items()}
    options = " ".join(f"--set {shlex.quote(f'{key}={column}')}" for key, column in named.items())
    return UsageError(
        f"{raw.rows[0].place}: the field {name!r} is missing in every row",
        why=f"the columns are {', '.join(raw.columns)}{''.join(hints)}",
        mend=f"name the column with {options}" if len(roles) == 1 else f"name the columns with {options}",
    )


def likely_column(role: str, name: str, raw: RawRows) -> str | None:
    """The column or path that was probably meant: what is spelt alike, a known name, or one inside another column."""
    lowered = {column.lower(): column for column in raw.columns if _ROLE_OF.get(column.lower(), role) == role}
    if name.lower() in lowered:
        return lowered[name.lower()]
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.8)
    if near and name.lower() not in KNOWN[role]:  # a slip of one's own; a known name is looked for among its likes
        return lowered[near[0]]
    shapes = {column: raw.example.get(column, _shape(stored)) for column, stored in raw.columns.items()}
    for known in KNOWN[role]:
        if known in lowered:
            column = lowered[known]
            return text_inside(column, shapes[column]) or column
    for known in KNOWN[role]:
        for column, value in shapes.items():
            for path in _paths(column, value):
                if str(steps_of(path)[-1]).lower() == known:
                    return path
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return lowered[near[0]] if near else None


def _shape(stored: Any) -> object:
    """What a value of an Arrow type looks like, as far as groups and lists go."""
    if stored is None or not getattr(stored, "num_fields", 0):
        return "" if str(stored) in ("string", "large_string") else None
    inner = {stored.field(i).name: _shape(stored.field(i).type) for i in range(stored.num_fields)}
    return [next(iter(inner.values()))] if "list" in str(stored).partition("<")[0] else inner


def _paths(column: str, value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            path = f"{column}.{key}"
            yield path
            yield from _paths(path, inner)


def text_inside(column: str, value: object) -> str | None:
    """The path of the text in a column that holds a chat's turns or a list of one; None where it is text itself."""
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(turn, Mapping) and "content" in turn for turn in value):
        users = [index for index, turn in enumerate(value) if turn.get("role") == "user"]
        return f"{column}[{users[-1] if users else 0}].content"
    return f"{column}[0]" if len(value) == 1 and isinstance(value[0], str | int | float) else None


_CONTEXT = (
    "context",
    "passage",
    "body",
    "premise",
    "article",
    "document",
    "paragraph",
    "story",
    "background",
    "table",
    "input",
)
_LETTERED = re.compile(
    r"(?:(?:option|choice|opt?|answer)[_ ]?)?[a-d]|(?:option|choice|opt?|answer|ending)[_ ]?[0-4]", re.IGNORECASE
)


def unread_meaning(raw: RawRows, fields: FieldMapping) -> list[str]:
    """Warnings of columns that change what a question means, and that no prompt shows."""
    used = {str(steps_of(name)[0]) for name in fields.model_dump().values() if name is not None}
    rest = {name: raw.example.get(name, "unknown") for name in raw.columns if name not in used}
    filled = [name for name, value in rest.items() if value not in (None, "", [], {})]
    warnings = [
        f"{raw.file}: the column {name!r} is not shown: questions that need it cannot be answered"
        for name in filled
        if name.lower() in _CONTEXT
    ]
    if fields.options is None:
        known = [name for name in filled if name.lower() in KNOWN["options"]]
        lettered = [name for name in filled if _LETTERED.fullmatch(name)]
        if known:
            path = shlex.quote(f"data.fields.options={_list_in(known[0], rest[known[0]])}")
            warnings.append(f"{raw.file}: the column {known[0]!r} is not shown; if it holds the options: --set {path}")
        elif len(lettered) >= 4:
            warnings.append(
                f"{raw.file}: the columns {', '.join(lettered)} are not shown; if they are options, put them into one "
                "column with a list"
            )
    turns = [row.place for row in raw.rows if _other_turns(row.values, fields.question)]
    if turns:
        warnings.append(
            f"{len(turns)} questions are one turn of a chat that has more, which no prompt shows: {turns[0]}"
        )
    return warnings


def _list_in(column: str, value: object) -> str:
    inner = value if isinstance(value, Mapping) else {}
    return next(
        (f"{column}.{key}" for key in ("text", "options", "choices") if isinstance(inner.get(key), list)), column
    )


def _other_turns(row: Mapping[str, object], name: str) -> bool:
    steps = steps_of(name)
    if len(steps) < 2 or name in row or not isinstance(steps[1], int):
        return False
    turns = row.get(str(steps[0]))
    return isinstance(turns, list) and len(turns) > 1 and all(isinstance(t, Mapping) and "content" in t for t in turns)
