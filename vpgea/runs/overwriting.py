"""What `--overwrite` may delete: what this phase wrote there, and nothing else, at every level of its folder."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from vpgea.errors import DamagedError, UsageError
from vpgea.runs.layout import (
    BASE,
    COMPLETE,
    CONFIG,
    DAMAGED,
    JOURNAL,
    LOGGERS,
    LOGS,
    MANIFEST,
    MASTERS,
    METRICS,
    OPTIMIZER,
    PARTS,
    PHASES,
    PROTOCOL,
    REFERENCE_LENGTHS,
    REPAIR,
    RESULTS,
    ROUND_RECORD,
    SETS,
    SUMMARY,
    TIMES,
    TRAINING_TURN,
    WEIGHTS,
)
from vpgea.runs.manifest import Manifest
from vpgea.runs.parts import part_folders
from vpgea.storage.files import file_checksum, read_json

_TEMPORARY = r"(?:.*/)?\.[^/]*\.tmp(?:/.*)?"
_SCRIPTS = "slurm"  # in a run folder: job scripts, which users may edit
_RENDERED = f"{_SCRIPTS}/rendered.json"
_SHARDS = r"-\d{5,}\.(?:arrow|json)"
_CODE = r"(?:modeling|configuration|tokenization|processing|generation)_\w+\.py"  # of a model that brings its own
_PUBLISHED = (
    r"[^/]+\.(?:safetensors|json|jinja|model|tiktoken)|(?:tokenizer|chat_template|vocab)[\w.+-]*|merges\.txt|README\.md"
    rf"|{_CODE}"
)
_OF_A_PART = rf"{PARTS}/\d+-of-\d+/"
_OF_ALL = [
    MANIFEST,
    COMPLETE,
    REPAIR,
    r"logs/(?:sglang|rank)-\d+\.log",
    f"{LOGS}/{TIMES}",
    f"{DAMAGED}/.+",
    f"{_OF_A_PART}(?:{MANIFEST}|{COMPLETE})",
]
_OWN: dict[str, list[str]] = {
    "rollout": [f"{_OF_A_PART}(?:chunk{_SHARDS}|{JOURNAL})"],
    "filter": [
        f"{_OF_A_PART}(?:(?:chunk|teacher){_SHARDS}|{JOURNAL})",
        f"(?:{'|'.join(SETS)})/chunk{_SHARDS}",
        *(SUMMARY, REFERENCE_LENGTHS),
    ],
    "distill": [
        rf"{_OF_A_PART}checkpoints/step-\d+/[^/]+\.(?:safetensors|json)",
        rf"{_OF_A_PART}old_logprobs\.(?:safetensors|tmp)",
        f"(?:{'|'.join((*WEIGHTS, MASTERS))})/(?:{_PUBLISHED})",
        rf"{OPTIMIZER}/[^/]+\.(?:safetensors|json)",
        f"(?:{'|'.join(LOGGERS)})/.+",
        *(SUMMARY, METRICS),
    ],
    "eval": [f"{_OF_A_PART}(?:chunk{_SHARDS}|{JOURNAL})", RESULTS, PROTOCOL, SUMMARY],  # a summary only of an import
}
_ROUNDS = rf"(?:{BASE}|round-\d{{3,}})"
_OWN["loop"] = [
    *(CONFIG, METRICS, rf"logs/{_SCRIPTS}/[^/]+\.out", rf"{_SCRIPTS}/(?:[^/]+\.sh|rendered\.json)"),
    f"{_ROUNDS}/{ROUND_RECORD}",
    *(f"{_ROUNDS}/{phase}/(?:{pattern})" for phase in PHASES for pattern in (*_OF_ALL, *_OWN[phase])),
]
_BEGUN = re.compile(
    rf"{_TEMPORARY}|(?:.*/)?{_OF_A_PART}{MANIFEST}|{CONFIG}|(?:.*/)?logs/.*"  # no scripts: jobs may be queued
)
_WRITTEN = {phase: re.compile("|".join([_TEMPORARY, *_OF_ALL, *own])) for phase, own in _OWN.items()}


@contextmanager
def writing(part: Path) -> Iterator[None]:
    """While the block runs, nobody may overwrite what is written to a part's folder; twins may write there too.

    The lock is on the part's manifest. A file system without locks has none: there `PhaseFolder.require_ours` notices.
    """
    with ExitStack() as stack:
        with suppress(FileNotFoundError):  # then nothing can be written either
            _lock(stack, part / MANIFEST, fcntl.LOCK_SH)
        yield


@contextmanager
def _clearable(root: Path, phase: str, count: int, *, in_turn: bool) -> Iterator[tuple[list[str], list[str]]]:
    """The files and folders in a folder, as `_contents` has them: only this phase or loop has written them, and while
    the block runs nobody does.

    Args:
        root: The folder; it may be a link.
        phase: What is going to write there.
        count: Into how many parts it is cut.
        in_turn: This process may have taken the training's turn there, so that no other one has.

    Raises:
        UsageError: The folder is of another kind, holds anything else, or other processes may be writing there.
    """
    _require_kind(root, phase)
    files, folders = _contents(root)
    foreign = [name for name in files if not is_written_by(phase, name)]
    if phase == "loop":
        foreign += _edited_scripts(root, files)
    if foreign:
        raise UsageError(
            f"--overwrite will not delete {root}",
            why=f"it holds {len(foreign)} files that vpgea did not write: {', '.join(sorted(foreign)[:5])}",
            mend="move them away, delete the folder yourself, or choose another --output-dir",
        )
    if count > 1 and part_folders(root):
        raise UsageError(
            f"--overwrite cannot be used with one of {count} parts",
            why=f"it would delete what the other parts write to {root}",
            mend="delete the folder once, before any part starts, or choose another --output-dir",
        )
    locks = (MANIFEST,) if in_turn else (MANIFEST, TRAINING_TURN)
    with ExitStack() as stack:
        for name in (name for name in files if name.endswith(tuple(f"/{lock}" for lock in locks))):
            with suppress(FileNotFoundError):  # whose process has ended just now
                if not _lock(stack, root / name, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    raise UsageError(
                        f"--overwrite will not delete {root}",
                        why=f"another process is writing to {(root / name).parent}",
                        mend="stop it first, or choose another --output-dir",
                    )
        yield files, folders


def clear(root: Path, phase: str, count: int, *, in_turn: bool = False) -> None:
    """Delete what a phase or loop has written to a folder, which stays.

    Args:
        root: The folder; it may be a link.
        phase: What is going to write there.
        count: Into how many parts it is cut.
        in_turn: This process may have taken the training's turn there, so that no other one has.

    Raises:
        UsageError: The folder is of another kind, holds anything else, or other processes may be writing there.
    """
    with _clearable(root, phase, count, in_turn=in_turn) as (files, folders):
        for name in files:
            (root / name).unlink(missing_ok=True)
        for name in folders:
            with suppress(FileNotFoundError):
                (root / name).rmdir()


def require_clearable(root: Path, phase: str, count: int, *, in_turn: bool = False) -> None:
    """Raise what `clear` would raise, and delete nothing."""
    with _clearable(root, phase, count, in_turn=in_turn):
        pass


def is_only_begun(root: Path) -> bool:
    """Whether a folder says from what something was begun, and nothing was made of it yet, job scripts included."""
    files, _ = _contents(root)
    return all(_BEGUN.fullmatch(name) for name in files)


def is_written_by(phase: str, name: str) -> bool:
    """Whether a phase, or a loop, gives this relative path to a file in its folder; temporaries count."""
    return _WRITTEN[phase].fullmatch(name) is not None


def is_published(name: str) -> bool:
    """Whether a file of this name may stand in a folder of published weights."""
    return re.fullmatch(_PUBLISHED, name) is not None


def _contents(root: Path) -> tuple[list[str], list[str]]:
    """Relative paths of everything below a folder: files and links, and folders with inner ones before outer ones."""
    files: list[str] = []
    folders: list[str] = []
    for place, inner, names in os.walk(root, topdown=False):
        base = Path(place).relative_to(root)
        links = [name for name in inner if (Path(place) / name).is_symlink()]
        files += [(base / name).as_posix() for name in (*names, *links)]
        folders += [(base / name).as_posix() for name in inner if name not in links]
    return files, folders


def _require_kind(root: Path, phase: str) -> None:
    for place in (root, *part_folders(root)):
        with suppress(DamagedError):
            found = Manifest.read(place / MANIFEST).phase
            if found != phase:
                raise UsageError(
                    f"--overwrite will not delete {root}",
                    why=f"it is a {found} folder, and this is a {phase}",
                    mend="choose another --output-dir, or delete the folder yourself",
                )


def _edited_scripts(root: Path, files: list[str]) -> list[str]:
    """Job scripts that are not as they were rendered: somebody's work is in them."""
    rendered: dict[str, object] = {}
    with suppress(DamagedError):
        rendered = read_json(root / _RENDERED)
    scripts = [name for name in files if name.startswith(f"{_SCRIPTS}/") and name.endswith(".sh")]
    return [name for name in scripts if file_checksum(root / name) != rendered.get(Path(name).name)]


def _lock(stack: ExitStack, path: Path, operation: int) -> bool:
    """Hold a lock on a file until the stack is closed; False where another process has it."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        descriptor = os.open(path, os.O_RDONLY)
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system that knows no locks
    return True
