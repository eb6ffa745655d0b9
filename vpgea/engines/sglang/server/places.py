"""Where the servers of a run stand: which devices each has, and how many share the machine."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vpgea.config.devices import Devices
from vpgea.config.schema import RunConfig
from vpgea.errors import UsageError
from vpgea.modeling.device import devices_of

if TYPE_CHECKING:
    import torch

_SIZES = (  # options that multiply the devices of one server
    ("--tp", "--tp-size", "--tensor-parallel-size"),
    ("--pp", "--pp-size", "--pipeline-parallel-size"),
    ("--dp", "--dp-size", "--data-parallel-size"),
)
MEMORY_SHARE = ("--mem-fraction-static",)  # of each device, for weights and for keys and values
_SHARED = "--enable-dp-attention"  # data parallel on the devices of --tp


@dataclass(frozen=True)
class Place:
    """One server's.

    Attributes:
        devices: All that it sees; empty: what this process sees.
        servers: How many share the machine's cores and memory.
    """

    devices: tuple[torch.device, ...] = ()
    servers: int = 1


ANYWHERE = Place()


def places_of(config: RunConfig) -> list[Place]:
    """A place for each server that the run starts: as many as its devices are enough for.

    Raises:
        UsageError: The devices cannot be shared out, or are not there.
    """
    devices = devices_of(config.model)
    if len(devices) == 1 and Devices.parse(config.model.devices).kind == "auto":
        return [ANYWHERE]
    size = devices_per_server(config.sglang.options) if devices[0].type == "cuda" else 1
    if len(devices) % size:
        raise UsageError(
            f"{len(devices)} devices cannot be shared out among servers that need {size} each",
            why=f"sglang.options make one server of {size} devices",
            mend=f"give a multiple of {size} with --devices",
        )
    groups = [tuple(devices[start : start + size]) for start in range(0, len(devices), size)]
    return [Place(group, len(groups)) for group in groups]


def devices_per_server(options: Sequence[str]) -> int:
    """Devices that one server takes with these options of its own."""
    sizes = _SIZES[:2] if _SHARED in options else _SIZES
    return math.prod(_value(options, names) for names in sizes)


def _value(options: Sequence[str], names: Sequence[str]) -> int:
    """The number that is given under one of these names; what is none is the server's to refuse."""
    found = last_value(options, names)
    return max(int(found), 1) if found is not None and found.isdecimal() else 1


def last_value(options: Sequence[str], names: Sequence[str]) -> str | None:
    """What is given last under one of these names."""
    words = [word for option in options for word in option.split("=", 1)]
    found = [value for name, value in itertools.pairwise(words) if name in names]
    return found[-1] if found else None
