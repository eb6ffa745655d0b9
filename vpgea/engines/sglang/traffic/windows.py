"""How many requests a server should have under way."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from vpgea.engines.sglang.traffic.answers import Load

FIRST_WINDOW = 64


def even_share(left: int, servers: int, limits: Sequence[int]) -> int:
    """The most requests to have under way at a server so that what is left is spread evenly.

    Args:
        left: Requests that wait or are under way.
        servers: How many there are.
        limits: Windows of those that cannot grow: what one of them has no room for is shared by the others.
    """
    for limit in sorted(limits):
        if limit * servers >= left:
            break
        left, servers = left - limit, servers - 1
    return ceil(left / max(servers, 1))


def is_in_use(window: int, in_flight: int) -> bool:
    return in_flight >= 0.9 * window


def adapted_window(window: int, in_flight: int, loads: Sequence[Load], cap: int) -> int:
    """Requests to have under way at a server whose ranks tell these loads.

    It grows while all that was sent is running, and shrinks to what runs, and a little, once requests queue up: then
    they only take memory there that another server may have.
    """
    running = sum(rank.num_running_reqs for rank in loads)
    waiting = sum(rank.num_waiting_reqs for rank in loads)
    most = sum(rank.max_running_requests for rank in loads)
    full = max(rank.token_usage for rank in loads) > 0.9
    if waiting > max(4, running // 4):
        window = running + max(4, running // 8)
    elif is_in_use(window, in_flight) and not full and waiting <= max(1, running // 16):
        window *= 2
    return max(1, min(window, cap, most + most // 8))
