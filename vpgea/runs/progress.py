"""How the library says how far it is, without knowing a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Progress(Protocol):
    """One bar: a known number of steps, and tokens for the rate."""

    def advance(self, steps: int, tokens: int = 0) -> None:
        """Say that more steps are done.

        A first call without tokens says how many steps earlier attempts have made; it does not count for the pace.

        Args:
            steps: How many.
            tokens: Sampled or trained on in them.
        """
        ...

    def note(self, text: str) -> None:
        """A word beside the bar that changes with the work, e.g. the present loss."""
        ...

    def warn(self, text: str) -> None:
        """Something that people should know now, whether or not they want to see progress."""
        ...


class Reporter(Protocol):
    """What a phase may say to people."""

    def info(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None: ...

    def progress(self, total: int, unit: str) -> AbstractContextManager[Progress]: ...


class NullProgress:
    """Says nothing."""

    def advance(self, steps: int, tokens: int = 0) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass


class NullReporter:
    """Says nothing."""

    def info(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        pass

    @contextmanager
    def progress(self, total: int, unit: str) -> Iterator[Progress]:
        yield NullProgress()
