"""A protocol: one way of asking, sampling and grading a benchmark, as a versioned YAML file says it."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from vpgea.config import strict_yaml
from vpgea.config.fields import Section
from vpgea.errors import UsageError, did_you_mean
from vpgea.questions.benchmarks import ORDERS, find_evalset

LIBRARY = Path(__file__).parent / "library"
DEFAULT = "deepseek"
SETTINGS = ("samples", "temperature", "top_p", "max_new_tokens")  # of a protocol, by their names in `eval`


class Shots(Section):
    """Solved examples before the question."""

    count: int = Field(description="how many", ge=1)
    split: str = Field(description="of the benchmark's data set that they are from")
    order: Literal["first", "random-1234"] = Field(
        description="the first rows; or for each question in its order a draw of Python's Random(1234).sample"
    )
    same_category: bool = Field(False, description="only rows of the question's category")


class Source(Section):
    """Where a fact is from. read: the date on which it was read there."""

    what: str
    read: str


class Protocol(Section):
    """One protocol of one benchmark; docs/eval.md explains the keys."""

    name: str
    version: int = Field(ge=1)
    benchmark: str
    system: str | None = None
    prompt: str
    choice: str | None = None
    shots: Shots | None = None
    order: str = "as given"
    samples: int = Field(ge=1)
    temperature: float = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    max_new_tokens: int = Field(ge=1)
    grader: str
    missing: Literal["wrong"] = "wrong"
    guess: Literal["mmlu-pro"] | None = None
    aggregation: Literal["mean over all samples"] = "mean over all samples"
    differs: list[str] = Field(default_factory=list)
    sources: list[Source] = Field(min_length=1)

    @model_validator(mode="after")
    def _of_its_benchmark(self) -> Protocol:
        evalset = find_evalset(self.benchmark)
        if (evalset.grader == "choice") != (self.choice is not None):
            raise ValueError(f"{self.benchmark} has {'' if self.choice is None else 'no '}choices")
        if self.order not in ("as given", *(ORDERS if self.benchmark == "gpqa-diamond" else ())):
            raise ValueError(f"there is no order of choices named {self.order!r}")
        return self

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over everything that can change a figure; not over sources and remarks."""
        told = self.model_dump(exclude={"sources", "differs"})
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def settings(self) -> dict[str, object]:
        """Dotted key → value that an evaluation by it has where the user says nothing else."""
        return {f"eval.{name}": getattr(self, name) for name in SETTINGS} | {"grading.grader": self.grader}


@cache
def protocols() -> tuple[Protocol, ...]:
    """Those that come with vpgea, by benchmark and name."""
    return tuple(_read(path) for path in sorted(LIBRARY.glob("*.yaml")))


def find_protocol(benchmark: str, name: str) -> Protocol:
    """A protocol of a benchmark by its name, or a user's YAML file.

    Raises:
        UsageError: There is no such benchmark, it has no such protocol, or the file is none.
    """
    find_evalset(benchmark)
    of_it = {one.name: one for one in protocols() if one.benchmark == benchmark}
    if name in of_it:
        return of_it[name]
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        own = _read(path)
        if own.benchmark != benchmark:
            raise UsageError(
                f"{path} is a protocol of {own.benchmark}, not of {benchmark}",
                why="a protocol is of one benchmark",
                mend=f"give --benchmark {own.benchmark}, or a file for {benchmark}",
            )
        return own
    raise UsageError(
        f"{benchmark} has no protocol named {name!r}",
        why=f"it has {', '.join(of_it)}",
        mend=did_you_mean(name, of_it, "choose one of them, or give a YAML file of your own"),
    )


def _read(path: Path) -> Protocol:
    try:
        return Protocol.model_validate(strict_yaml.parse(path.read_text(encoding="utf-8"), str(path))[0])
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise UsageError(
            f"protocol cannot be used: {path}",
            why=" ".join(str(error).split()),
            mend=f"compare it with those in {LIBRARY}",
        ) from error
