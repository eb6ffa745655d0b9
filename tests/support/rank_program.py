"""What the ranks do that tests of their launcher start: no training, and no torch."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from vpgea.errors import UsageError
from vpgea.training.parent import Parent, report_to_parent


class OtherRankFailed(UsageError):
    """By the name that the real one has."""


def work(parent: Parent) -> None:
    """The task's own part for this rank: {"0": what, "1": what}."""
    rank = os.environ["RANK"]
    folder = Path(parent.task["folder"])
    (folder / f"pid-{rank}").write_text(str(os.getpid()))
    getattr(sys.modules[__name__], parent.task[rank])(parent, folder)


def talk(parent: Parent, folder: Path) -> None:
    print("a library's words")
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    (folder / f"seen-{os.environ['RANK']}").write_text(" ".join(os.environ[name] for name in names))
    parent.advance(3, tokens=7)
    parent.note("loss 1")
    parent.warn(f"said by {os.environ['RANK']}")


def refuse(*_: Any) -> None:
    raise UsageError("not like this", why="a reason", mend="a way out")


def follow(*_: Any) -> None:
    raise OtherRankFailed("another rank failed", why="its message says why", mend="mend that")


def fill_the_disk(*_: Any) -> None:
    raise OSError(28, "No space left on device", "shard.arrow")


def divide(*_: Any) -> None:
    print(1 / 0)


def die(parent: Parent, folder: Path) -> None:
    """Once the other one waits."""
    while not list(folder.glob("waiting-*")):
        time.sleep(0.01)
    os.write(2, b"terminate called after throwing\n")
    os.kill(os.getpid(), 9)


def leave(*_: Any) -> None:
    os._exit(1)


def wait(parent: Parent, folder: Path) -> None:
    """Until a stop."""
    (folder / f"waiting-{os.environ['RANK']}").touch()
    while not parent.stop.requested:
        time.sleep(0.01)
    parent.stop.check("the checkpoint is written")


def hang(parent: Parent, folder: Path) -> None:
    """Whatever happens."""
    (folder / f"waiting-{os.environ['RANK']}").touch()
    time.sleep(1000)


if __name__ == "__main__":
    sys.exit(report_to_parent(work))
