"""The process that meets the inputs of one target: it counts, and minimises what fails.

A crash or an input that takes too long ends it; what it was at stands in its folder then.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import resource
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.campaigns.fuzz.campaign import LAST_INPUT, ROOT, TALLY
from tests.campaigns.fuzz.probe import Probe
from vpgea.errors import VpgeaError

_BATCH = 500  # inputs between two savings of the counts
_DEADLINE_S = 30.0  # for one input, of which the first of a target may import a good deal
_SHOWN = 300  # characters of an error
_MEMORY = 1 << 30  # bytes above what the process needs before the first input


class _FoundError(Exception):
    """An input that fails at a place not yet known; minimised by hypothesis."""


class _Count:
    """What has been counted, and the input under way."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outcomes: Counter[str] = Counter()
        self.findings: dict[str, str] = {}
        self.fresh: tuple[str, str] | None = None

    def meet(self, probe: Probe, value: Any) -> None:
        """Try one input. Raises _FoundError for a new finding; the last one raised is the minimal one."""
        text = repr(value)
        (self.folder / LAST_INPUT).write_text(text, encoding="utf-8")
        faulthandler.dump_traceback_later(_DEADLINE_S, exit=True)  # a thread of C: it ends a hang in C as well
        try:
            outcome = probe.check(value)
        except VpgeaError:
            outcome = "refused"
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # Rust's panics are no Exceptions
            place = _place(error)
            if place not in self.findings:
                self.fresh = place, f"{text}\n  error: {str(error)[:_SHOWN]}"
                raise _FoundError(place) from error
            outcome = "failed"
        finally:
            faulthandler.cancel_dump_traceback_later()
        if self.fresh is None:  # what is tried to make a finding smaller does not count
            self.outcomes[outcome] += 1

    def save(self) -> None:
        if self.fresh is not None:
            self.findings[self.fresh[0]] = self.fresh[1]
            self.outcomes["failed"] += 1
            self.fresh = None
        state = {"outcomes": self.outcomes, "findings": self.findings}
        (self.folder / TALLY).write_text(json.dumps(state))


def _place(error: BaseException) -> str:
    """The exception and the last line of the project that it went through, which tell one finding from another."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(f"{ROOT}/")]
    last = frames[-1]
    return f"{type(error).__name__} in {Path(last.filename).relative_to(ROOT)}:{last.lineno}"


def _batch(probe: Probe, size: int, number: int, meet: Callable[[Probe, Any], None]) -> None:
    @seed(number)
    @settings(
        database=None,
        deadline=None,
        max_examples=size,
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(value=probe.inputs)
    def check(value: Any) -> None:
        meet(probe, value)

    check()


def _limit_memory() -> None:
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + _MEMORY, resource.RLIM_INFINITY))


def main(name: str, wanted: str, first: str, place: str) -> None:
    """target, number of inputs, seed, and the folder for what is counted, where it also works."""
    inputs, number, folder = int(wanted), int(first), Path(place)
    os.chdir(folder)
    faulthandler.enable()
    target = importlib.import_module(f"tests.campaigns.fuzz.targets.{name}")
    count = _Count(folder)
    with target.probe(folder) as probe:
        _limit_memory()
        while (left := inputs - count.outcomes.total()) > 0:
            try:
                _batch(probe, min(_BATCH, left), number, count.meet)
            except Exception:
                if count.fresh is None:  # a fault of the target itself
                    raise
            count.save()
            number += 1
