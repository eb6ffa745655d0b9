"""What an experiment is made of: its file, and the runs that follow from it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from vpgea.config import strict_yaml
from vpgea.config.fields import Section
from vpgea.config.objectives import OBJECTIVES, Name
from vpgea.config.resolve import beside_file, read_file, resolve
from vpgea.config.schema import RunConfig
from vpgea.errors import UsageError, did_you_mean

_PRICE = "filter.utility.length_price"
_BUDGET = "loop.max_sampled_tokens"
_SEEDS = ("rollout.seed", "distill.seed", "eval.seed")
_EVALUATION = re.compile(r"(^|_)(seed|round)-\d+$")  # ends of the names of folders with a model's samples of a test
Keys = dict[str, Any]  # dotted key → value


class TestQuestions(Section):
    """Questions that no run is trained, selected or measured on before the end."""

    __test__ = False  # pytest takes the name for one of its own

    dataset: str = Field(min_length=1, description="a file, a folder or a hub id, with the columns of the others")
    limit: int | None = Field(None, ge=1, description="only the first so many")
    samples: int = Field(1, ge=1, description="of each question, in each run")


class Grid(Section):
    """An experiment's file: every objective at every price of length, under every setting, with every seed."""

    config: str = Field(min_length=1, description="the configuration of a loop, which all runs share")
    keys: Keys = Field(default_factory=dict, description="dotted keys that all runs have otherwise")
    settings: dict[str, Keys] = Field(
        default_factory=dict, description="named sets of keys, such as models or questions; each is compared by itself"
    )
    objectives: dict[str, Keys] = Field(
        min_length=1,
        description="name → dotted keys that it has otherwise; a name that is no objective's has `objective` among "
        "them, null for what the configuration says",
    )
    prices: list[Annotated[float, Field(ge=0)]] = Field(
        default_factory=list, description="of length; each objective that has one gets the best of them"
    )
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1, description="of samples, training and evaluation")
    sampled_tokens: int | None = Field(None, ge=1, description="after so many a run begins no further round")
    reference: str | None = Field(None, description="the objective that the others are held against; null: the first")
    test: TestQuestions | None = Field(None, description="what the runs are compared on")
    tests: dict[str, TestQuestions] = Field(
        default_factory=dict, description="further ones by their names, such as other families; each has its own tables"
    )


@dataclass(frozen=True, kw_only=True)
class Run:
    """One loop of an experiment. price: None where the objective, or the configuration alone, says it."""

    setting: str
    objective: str
    price: float | None
    seed: int
    config: RunConfig

    @property
    def name(self) -> str:
        """Of its folder."""
        price = [] if self.price is None else [f"price-{self.price:g}"]
        setting = [self.setting] if self.setting else []
        return "_".join([*setting, self.objective.replace("/", "-"), *price, f"seed-{self.seed}"])


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """All of what is asked for.

    Attributes:
        runs: All of the grid, in its order.
        reference: The objective that the others are held against.
        tests: By their names; that of `test` has none.
    """

    file: Path
    runs: list[Run]
    reference: str
    tests: dict[str, TestQuestions]


def read_experiment(file: Path) -> Experiment:
    """The runs of an experiment's file.

    Raises:
        UsageError: The file is none, or a run's configuration is not valid; it says which run.
    """
    grid = _read(file)
    runs = [
        _run(file, grid, setting, objective, price, seed)
        for setting in grid.settings or {"": {}}
        for objective in grid.objectives
        for price in _prices(file, grid, objective)
        for seed in grid.seeds
    ]
    _require_distinct(file, runs)
    reference = grid.reference or next(iter(grid.objectives))
    if reference not in grid.objectives:
        raise UsageError(
            f"{file}: reference is {reference}",
            why=f"the objectives are {', '.join(grid.objectives)}",
            mend=did_you_mean(reference, grid.objectives, "name one of them"),
        )
    return Experiment(file=file, runs=runs, reference=reference, tests=_tests(file, grid))


def _read(file: Path) -> Grid:
    parsed, lines = strict_yaml.parse(read_file(file), str(file))
    try:
        return Grid.model_validate(parsed if isinstance(parsed, dict) else {})
    except ValidationError as error:
        # a key that is none comes before one that is missing, which it may stand for
        first = min(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
        place = tuple(str(step) for step in first["loc"])
        line = next((lines[place[:end]] for end in range(len(place), 0, -1) if place[:end] in lines), None)
        names = [*Grid.model_fields, *(f"{'.'.join(_test_of(place))}.{name}" for name in TestQuestions.model_fields)]
        unknown = ".".join(place) if first["type"] == "extra_forbidden" else ""
        raise UsageError(
            f"{file}{'' if line is None else f':{line}'}: {'.'.join(place) or 'the file'} is not what it must be",
            why=first["msg"],
            mend=did_you_mean(unknown, names, f"an experiment's file has {', '.join(names)}: docs/experiment.md"),
        ) from error


def _test_of(place: tuple[str, ...]) -> tuple[str, ...]:
    """The test that a place in the file is in, else the one without a name."""
    return place[:2] if place[:1] == ("tests",) and len(place) > 2 else ("test",)


def _tests(file: Path, grid: Grid) -> dict[str, TestQuestions]:
    given = ({} if grid.test is None else {"": grid.test}) | grid.tests
    if not given:
        raise UsageError(
            f"{file} has no test questions",
            why="there is neither test nor tests, and objectives are compared on questions that no run has seen",
            mend="give test: {dataset: FILE}, or tests: {NAME: {dataset: FILE}, ...}",
        )
    _require_nameable(file, grid.tests)
    if grid.test is not None and (taken := sorted(filter(_EVALUATION.search, grid.tests))):
        raise UsageError(
            f"{file}: no test can be named {taken[0]}",
            why="beside `test` the evaluations of the models themselves have folders whose names end so",
            mend="give it a name that does not end in seed-N or round-N",
        )
    return {
        name: test.model_copy(update={"dataset": beside_file(file, "data.dataset", test.dataset)})
        for name, test in given.items()
    }


def _made(file: Path, grid: Grid, name: str) -> Name | None:
    """The objective behind a name of the file."""
    made = grid.objectives[name].get("objective", name)
    known = next((one for one in OBJECTIVES if one == made), None)
    if known is None and made is not None:
        raise UsageError(
            f"{file}: there is no objective {made}",
            why="a name that is none of docs/objectives.md says itself what it is",
            mend=did_you_mean(
                str(made),
                OBJECTIVES,
                f"give {name} the key objective: null for what the configuration says, or {', '.join(OBJECTIVES)}",
            ),
        )
    return known


def _prices(file: Path, grid: Grid, name: str) -> list[float] | list[None]:
    """An objective without a price of its own has one run for each seed."""
    made = _made(file, grid, name)
    is_fixed = _PRICE in grid.objectives[name] or (made is not None and _PRICE in OBJECTIVES[made].settings)
    return [None] if is_fixed or not grid.prices else grid.prices


def _run(file: Path, grid: Grid, setting: str, objective: str, price: float | None, seed: int) -> Run:
    of_objective = {key: value for key, value in grid.objectives[objective].items() if key != "objective"}
    layers: list[Mapping[str, Any]] = [grid.keys, grid.settings.get(setting, {}), of_objective]
    given = {key: beside_file(file, key, value) for layer in layers for key, value in layer.items()}
    own: dict[str, Any] = {"objective": _made(file, grid, objective), **dict.fromkeys(_SEEDS, seed)}
    own |= {} if price is None else {_PRICE: price}
    own |= {} if grid.sampled_tokens is None else {_BUDGET: grid.sampled_tokens}
    if taken := sorted(own.keys() & given.keys()):
        raise UsageError(
            f"{file} sets {taken[0]} among the keys of {objective}",
            why="the experiment itself gives it another value in each run",
            mend="leave it out of keys, settings and objectives",
        )
    try:
        config = resolve(file=file.parent / grid.config, options=given | own, options_from=str(file)).config
    except UsageError as error:
        where = " of ".join(filter(None, (objective, setting)))
        raise UsageError(f"{file}: {where}: {error.what}", why=error.why, mend=error.mend) from error
    return Run(setting=setting, objective=objective, price=price, seed=seed, config=config)


def _require_distinct(file: Path, runs: list[Run]) -> None:
    names = [run.name for run in runs]
    _require_nameable(file, (word for run in runs for word in (run.setting or "-", run.objective.replace("/", "-"))))
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(
            f"{file} has the run {twice[0]} twice",
            why="a seed, a price or a setting's name stands twice, or two names differ in / and - alone",
            mend="name each once",
        )


def _require_nameable(file: Path, words: Iterable[str]) -> None:
    if odd := sorted(word for word in words if not re.fullmatch(r"[\w.-]{1,100}", word) or word.startswith(".")):
        raise UsageError(
            f"{file}: nothing can be named {odd[0]!r}",
            why="folders are named so",
            mend="take letters, digits, -, . and _",
        )
