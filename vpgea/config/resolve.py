"""From defaults, folders, a file, the environment and options to one configuration, with the origin of every value.

Rising precedence: built-in default < configuration recorded in an input folder < file < environment
(`VPGEA_ROLLOUT__TEMPERATURE`) < `--set rollout.temperature=0.7` < command option. An `objective` sets the keys that
make it in the place where it is chosen: above what lies below, and never against what is given beside or above it.
"""

from __future__ import annotations

import difflib
import itertools
import math
import os
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from vpgea.config import strict_yaml
from vpgea.config.experimental import meaning
from vpgea.config.objectives import OBJECTIVES, settings_of
from vpgea.config.problems import (
    ALL_KEYS,
    FIELDS,
    SECTIONS,
    Problem,
    combined,
    contradicts_objective,
    home_of,
    shown,
    unknown_key,
    wrong_value,
)
from vpgea.config.recorded import runs_code, untrusted, variables
from vpgea.config.schema import RunConfig, leaves, value_of
from vpgea.errors import UsageError, did_you_mean

PREFIX = "VPGEA_"
RESERVED = frozenset(  # not configuration keys; a server's keys are secrets and never stand in a configuration
    {"VPGEA_DEBUG", "VPGEA_TEST_DATA", "VPGEA_SERVER_API_KEY", "VPGEA_SERVER_ADMIN_KEY"}
)
DEFAULT = "default"
_OF_EACH_VIEW = ("rollout.prior_samples", "rollout.posterior_samples")
PATH_KEYS = (
    "model.path",
    "model.adapter",
    "data.dataset",
    "views.template",
    "filter.reference_lengths",
    "distill.reference",
    "eval.baseline",
    "loop.eval_dataset",
    "sglang.python",
    "sglang.server_url",
)


@dataclass(frozen=True)
class Resolved:
    """A configuration and, for each of its dotted keys, where the value came from.

    passed_over: names of environment variables that begin like ours and name no key, as a site's modules set them.
    """

    config: RunConfig
    origins: dict[str, str]
    passed_over: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Entry:
    """One given value. `is_text`: it was typed as text and is read according to the field's type."""

    key: str
    value: Any
    origin: str
    is_text: bool = False


def resolve(
    *,
    file: Path | None = None,
    sets: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    options_from: str = "option",
    samples: int | None = None,
    inherited: Sequence[tuple[str, Mapping[str, Any]]] = (),
) -> Resolved:
    """Lay the layers over each other and check the result.

    Args:
        file: A YAML file, or none.
        sets: Texts `key.path=value`.
        env: The process environment, of which only `VPGEA_*` is read.
        options: Dotted key → value.
        options_from: Where they came from, in errors and origins.
        samples: An option too, below those of one view: of each view but one that the objective does not draw.
        inherited: (origin, dotted key → value) of folders, later ones above earlier ones. What of it runs code has to
            be given by another layer.

    Raises:
        UsageError: It lists everything wrong: unknown keys with the nearest name, wrong types, values out of range,
            code that only a folder asks for.
    """
    problems: list[Problem] = []
    passed_over = tuple(name for name in sorted(env or {}) if _is_foreign(name))
    given = {name: text for name, text in (env or {}).items() if name not in passed_over}
    layers = [
        [_Entry(key, value, origin) for origin, mapping in inherited for key, value in mapping.items()],
        _file_entries(file) if file is not None else [],
        _env_entries(given, problems),
        [*_set_entries(sets, problems), *(_Entry(key, value, options_from) for key, value in (options or {}).items())],
    ]
    objective, place = _chosen_objective(layers)
    made = _objective_entries(objective)
    if samples is not None:
        told = {entry.key for entry in made} | set(options or {})
        layers[-1] += [_Entry(key, samples, "option") for key in _OF_EACH_VIEW if key not in told]
    layers.insert(place, made)
    values: dict[str, Any] = {}
    origins = dict.fromkeys(FIELDS, DEFAULT)
    for entry in itertools.chain.from_iterable(layers):
        _lay(entry, values, origins, problems)
    folders = {origin for origin, _ in inherited}
    problems += [
        contradicts_objective(str(objective), entry.key, entry.value, values[entry.key], origins[entry.key])
        for entry in made
        if values[entry.key] != entry.value and origins[entry.key] not in folders  # which are what they were made as
    ]
    problems += [
        untrusted(key, value, origins[key], _env_name(key))
        for key, value in values.items()
        if origins[key] in folders and runs_code(key, value)
    ]
    config = _validate(values, origins, problems)
    return Resolved(config, origins, passed_over)


def _chosen_objective(layers: Sequence[Sequence[_Entry]]) -> tuple[object, int]:
    """The objective that the highest layer names, and the place of that layer; (None, 0) where none does."""
    for place in range(len(layers) - 1, -1, -1):
        for entry in reversed(layers[place]):
            if entry.key == "objective":
                return None if entry.is_text and entry.value == "null" else entry.value, place
    return None, 0


def _objective_entries(name: object) -> list[_Entry]:
    """What makes an objective; nothing for a name that there is not, which is an error by itself."""
    known = next((one for one in OBJECTIVES if one == name), None)
    if known is None:
        return []
    defaults = {key: FIELDS[key].get_default() for key in FIELDS}
    return [_Entry(key, value, f"objective {known}") for key, value in settings_of(known, defaults).items()]


def from_flat(values: Mapping[str, Any]) -> RunConfig:
    """The inverse of `flat_config`: values that were resolved before, an objective's among them.

    Raises:
        UsageError: They are no valid configuration.
    """
    return _validate(values, dict.fromkeys(FIELDS, "what was resolved before"), [])


def resolve_recorded(
    origin: str,
    recorded: Mapping[str, Any] | Path,
    *,
    options: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
) -> RunConfig:
    """The configuration that a folder recorded, for a command that takes all of it from there.

    Args:
        origin: What stands for the folder in errors.
        recorded: Dotted key → value, or a run's config.yaml.
        options: Dotted key → value, above it.
        env: The process environment, from which what runs code is taken; None: this process's.

    Raises:
        UsageError: It is not valid, or asks for code that the environment does not ask for.
    """
    if isinstance(recorded, Path):
        recorded = recorded_values(recorded)
    env = variables(os.environ if env is None else env, PREFIX)
    return resolve(inherited=[(origin, recorded)], env=env, options=options).config


def recorded_values(path: Path) -> dict[str, Any]:
    """Dotted key → value of a configuration file that stands in a folder.

    Raises:
        UsageError: It cannot be read.
    """
    return {entry.key: entry.value for entry in _yaml_entries(read_file(path), str(path))}


def load(path: Path) -> RunConfig:
    """Read a configuration file by itself, paths as written.

    Raises:
        UsageError: It cannot be read, or is no valid configuration.
    """
    return loads(read_file(path), str(path))


def loads(text: str, name: str = "text") -> RunConfig:
    """The inverse of `dump_yaml`.

    Raises:
        UsageError: The text is no valid configuration.
    """
    problems: list[Problem] = []
    values: dict[str, Any] = {}
    origins = dict.fromkeys(FIELDS, DEFAULT)
    for entry in _yaml_entries(text, name):
        _lay(entry, values, origins, problems)
    return _validate(values, origins, problems)


def dump_yaml(config: RunConfig) -> str:
    """Every key with its value and its meaning as a comment; `loads` gives an equal configuration back."""
    return "".join(_dump_section(config, indent=""))


def flat_config(config: RunConfig) -> dict[str, Any]:
    """The resolved configuration as dotted key → value, paths that exist here are made absolute."""
    values = {key: value_of(config, key) for key, _ in leaves()}
    for key in PATH_KEYS:
        is_name = key == "views.template" and not Path(str(values[key])).suffix  # a built-in one, whatever lies here
        if values[key] and not is_name and Path(values[key]).exists():
            values[key] = str(Path(values[key]).absolute())  # links stay: a venv's python is one, and is known by it
    return values


def _dump_section(section: BaseModel, indent: str) -> Iterator[str]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            about = field.description or (type(value).__doc__ or "").strip()
            yield f"{indent}{name}:  # {about}\n" if indent else f"\n# {about}\n{name}:\n"
            yield from _dump_section(value, indent + "  ")
        else:
            yield f"{indent}{name}: {strict_yaml.scalar(value)}  # {meaning(field)}\n"


def read_file(path: Path) -> str:
    """The text of a file that somebody wrote for us.

    Raises:
        UsageError: It cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8", why=str(error), mend="save the file as UTF-8") from error
    except OSError as error:
        why = error.strerror or str(error)
        mend = "check the path; `vpgea config init` writes a file to start from"
        raise UsageError(f"configuration file cannot be read: {path}", why=why, mend=mend) from error


def _yaml_entries(text: str, name: str) -> list[_Entry]:
    document, lines = strict_yaml.parse(text, name)
    if document is None:
        return []
    if not isinstance(document, dict):
        why = f"it holds {shown(document)}, not sections with keys"
        raise UsageError(f"{name} is not a configuration", why=why, mend="see `vpgea config init`")
    entries: dict[str, _Entry] = {}
    for path, value in _flat(document, ()):
        key = ".".join(path)
        origin = f"{name}:{lines[path]}" if path in lines else name
        if key in entries:
            raise UsageError(f"{key} stands twice", why=f"{entries[key].origin} and {origin}", mend="leave one of them")
        entries[key] = _Entry(key, value, origin)
    return list(entries.values())


def _flat(mapping: Mapping[Any, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Go down into sections only: a mapping that is a field's value, or stands under an unknown key, stays whole."""
    for name, value in mapping.items():
        here = (*path, str(name))
        if ".".join(here) in SECTIONS and (isinstance(value, Mapping) or value is None):
            yield from _flat(value or {}, here)
        else:
            yield here, value


def _file_entries(file: Path) -> list[_Entry]:
    entries = _yaml_entries(read_file(file), str(file))
    return [_Entry(entry.key, beside_file(file, entry.key, entry.value), entry.origin) for entry in entries]


def beside_file(file: Path, key: str, value: Any) -> Any:
    """A path in a file is looked for beside that file first."""
    if key not in PATH_KEYS or not isinstance(value, str) or not value:
        return value
    path = (file.parent / value).absolute()
    return str(path) if _exists(path) else value


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with a null byte: no path, but perhaps an id
        return False


def _is_foreign(name: str) -> bool:
    """Whether a variable has our prefix and is not meant for us: VPGEA_HOME, as environment modules set it.

    One that has `__`, begins with the name of a section or is nearly one of ours is meant for us, and misspelt.
    """
    rest = name.removeprefix(PREFIX)
    if not name.startswith(PREFIX) or name in RESERVED or "__" in rest:
        return False
    ours = [name.removeprefix(PREFIX) for name in RESERVED] + [key.upper() for key in FIELDS if "." not in key]
    first_words = {section.upper() for section in SECTIONS}
    return rest.partition("_")[0] not in first_words and not difflib.get_close_matches(rest, ours, n=1, cutoff=0.7)


def _env_entries(env: Mapping[str, str], problems: list[Problem]) -> list[_Entry]:
    entries = []
    for name in sorted(name for name in env if name.startswith(PREFIX) and name not in RESERVED):
        key = name.removeprefix(PREFIX).lower().replace("__", ".")
        if home_of(key) is None:
            names = [*RESERVED, *(_env_name(key) for key in FIELDS)]
            what = f"unknown environment variable {name}"
            why = "every VPGEA_* variable must name a configuration key, VPGEA_<SECTION>__<KEY>"
            problems.append(Problem(what, why, did_you_mean(name, names, ALL_KEYS)))
        else:
            entries.append(_Entry(key, env[name], f"environment {name}", is_text=True))
    return entries


def _env_name(key: str) -> str:
    return PREFIX + key.upper().replace(".", "__")


def _set_entries(sets: Sequence[str], problems: list[Problem]) -> list[_Entry]:
    entries = []
    for text in sets:
        key, equals, value = text.partition("=")
        if equals:
            entries.append(_Entry(key.strip(), value, "--set", is_text=True))
        else:
            problems.append(Problem(f"--set {text}", "there is no '=' in it", "write --set key.path=value"))
    return entries


def _lay(entry: _Entry, values: dict[str, Any], origins: dict[str, str], problems: list[Problem]) -> None:
    home = home_of(entry.key)
    if home is None:
        problems.append(unknown_key(entry.key, entry.origin))
        return
    try:
        value = _from_text(entry.value, FIELDS[home].annotation) if entry.is_text else entry.value
    except UsageError as error:
        problems.append(wrong_value(entry.key, entry.value, entry.origin, error.why))
        return
    if home != entry.key:
        below = values.get(home, FIELDS[home].get_default())
        value = {**(below if isinstance(below, dict) else {}), entry.key.removeprefix(f"{home}."): value}
    values[home] = value
    origins[home] = entry.origin


def _from_text(text: str, annotation: Any) -> Any:
    """A typed value from typed-in text: text fields take it as it stands (`null` is null where that is allowed)."""
    choices = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    if str in choices:
        return None if text == "null" and types.NoneType in choices else text
    return strict_yaml.parse(text, "value")[0]


def _validate(values: Mapping[str, Any], origins: Mapping[str, str], problems: list[Problem]) -> RunConfig:
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *sections, name = key.split(".")
        section = nested
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = value
    try:
        config = RunConfig.model_validate(nested)
    except ValidationError as error:
        found = {problem.what: problem for problem in _from_pydantic(error, values, origins)}
        raise combined([*problems, *found.values()]) from error
    problems += [wrong_value(key, value, origins[key]) for key, value in values.items() if not _finite(value)]
    if problems:
        raise combined(problems)
    return config


def _finite(value: Any) -> bool:
    return not any(isinstance(number, float) and not math.isfinite(number) for number in _as_list(value))


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _from_pydantic(error: ValidationError, values: Mapping[str, Any], origins: Mapping[str, str]) -> Iterator[Problem]:
    for detail in error.errors():
        place = ".".join(str(part) for part in detail["loc"])
        key = next((key for key in FIELDS if place == key or place.startswith(f"{key}.")), None)
        if key is not None:
            yield wrong_value(key, values[key], origins[key])
        else:
            given = [f"{name} from {origins[name]}" for name in values if name.startswith(f"{place}.")]
            why = detail["msg"].removeprefix("Value error, ")
            yield Problem(f"{place} does not fit together", why, f"change one of: {', '.join(given)}")
