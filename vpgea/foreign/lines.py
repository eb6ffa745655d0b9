"""Files of JSON lines and single JSON objects from anywhere, a line in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from vpgea.errors import UsageError
from vpgea.foreign.sample import ForeignSample, Found, Unreadable, UnusableError

LONGEST = 64 << 20  # bytes of one sample
LARGEST = 1 << 30  # bytes of a file that can only be read whole


def json_object(text: bytes) -> dict[str, object]:
    """An object from the bytes of its JSON.

    Raises:
        UnusableError: It is none.
    """
    if len(text) > LONGEST:
        raise UnusableError(f"it is longer than {LONGEST >> 20} MiB")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, thousands of brackets or digits
        raise UnusableError(f"it is no JSON: {str(error)[:100]}") from error
    if not isinstance(value, dict):
        raise UnusableError(f"it is a {type(value).__name__}, not an object")
    return value


def lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """The place of each line that is not empty, and its bytes; of one that is too long, more than LONGEST of them."""
    with path.open("rb") as stream:
        number = 0
        while line := stream.readline(LONGEST + 1):
            number += 1
            rest = line
            while not rest.endswith(b"\n") and (rest := stream.readline(LONGEST)):
                pass
            if line.strip():
                yield f"{path.name}, line {number}", line


def read_lines(path: Path, read: Callable[[Mapping[str, object]], Iterator[ForeignSample]]) -> Iterator[Found]:
    """The samples of a file of JSON lines; what `read` cannot use of a line is an unreadable row."""
    for place, line in lines(path):
        yield from found(place, lambda line=line: read(json_object(line)))  # type: ignore[misc]


def found(place: str, read: Callable[[], Iterator[ForeignSample]]) -> Iterator[Found]:
    """The samples of one row, or why there are none."""
    try:
        yield from [(place, sample) for sample in read()]
    except UnusableError as error:
        yield Unreadable(place, str(error))


def first_object(path: Path) -> dict[str, object] | None:
    """The first line of a file that is an object; None where the first hundred lines have none."""
    for number, (_, line) in enumerate(lines(path)):
        if number == 100:
            return None
        try:
            return json_object(line)
        except UnusableError:
            continue
    return None


def whole_object(path: Path) -> dict[str, object]:
    """A JSON file that is one object.

    Raises:
        UsageError: It is none, or too large to be read whole.
    """
    size = path.stat().st_size
    try:
        if size > LARGEST:
            raise UnusableError(f"it has {size:,} bytes and can only be read whole")
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise UnusableError(f"it is a {type(value).__name__}, not an object")
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"cannot read {path}", why=str(error)[:200], mend="mend the file, or let the tool write it again"
        ) from error
    return value
