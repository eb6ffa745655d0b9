"""Files written whole or not at all: JSON records, bytes, checksums, and folders that appear at once.

A file is written under a temporary name, fsynced, and gets its own name by a rename (the last writer wins) or, in
`commit`, by a hard link (the first writer wins; where there are none, by a rename that replaces nothing). No locks, no
clocks.
"""

from __future__ import annotations

import ctypes
import errno
import fnmatch
import hashlib
import json
import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from vpgea.errors import DamagedError, UsageError

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.EINVAL}
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1  # of Linux

_FOR_OWNER = 0o600


def _writer() -> str:
    """This host and its PID namespace: containers of one name count their processes each from 1."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - text, not a path
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}+{''.join(filter(str.isdigit, namespace)) or 'unknown'}"


_WRITER = _writer()
_UMASK = os.umask(0o077)  # can only be read by setting it; done here, before there are threads
os.umask(_UMASK)


@contextmanager
def said_of(path: Path, temporary: Path) -> Iterator[None]:
    """What keeps a temporary file or folder from being written is said of what it was to become: users named that."""
    try:
        yield
    except OSError as error:
        if error.errno is None or str(temporary) not in f"{error.filename} {error}":
            raise
        named = str(error.filename or temporary).replace(str(temporary), str(path))
        raise OSError(error.errno, os.strerror(error.errno), named) from error


def commit(path: Path, write: Callable[[Path], object]) -> bool:
    """Let `write` write a temporary file, and give it its name unless a file of this name is there already.

    Returns:
        Whether the name was free.

    Raises:
        UsageError: The file system cannot do that.
    """
    temporary = temporary_path(path)
    with said_of(path, temporary):
        try:
            write(temporary)
            fsync(temporary)
            try:
                _give_name(temporary, path)
                is_new = True
            except FileExistsError:
                is_new = False
        finally:
            temporary.unlink(missing_ok=True)
    fsync(path.parent)
    return is_new


def require_commits(folder: Path) -> None:
    """See that files can be committed in a folder, before hours of work come to it.

    Raises:
        UsageError: They cannot.
        OSError: Nothing can be written there.
    """
    probe = temporary_path(folder / "probe")
    name = probe.with_name(f"{probe.name.removesuffix('.tmp')}-named.tmp")
    with said_of(folder, probe):
        try:
            probe.touch()
            _give_name(probe, name)
        finally:
            probe.unlink(missing_ok=True)
            name.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Replace a file atomically: temporary name, fsync, rename.

    mode: Of the new one, which nobody else can read before it has it; None: what the umask gives.
    """
    temporary = temporary_path(path)
    with said_of(path, temporary):
        try:
            if mode is not None:
                temporary.touch(_FOR_OWNER)
            temporary.write_bytes(content)
            if mode is not None:
                temporary.chmod(mode)  # after it, which may forbid writing
            fsync(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    fsync(path.parent)


def write_named(path: Path, content: bytes) -> None:
    """The same for what a user named, which need not be a file.

    A link stays, and the file that it leads to is replaced, its mode kept. What no file can take the place of, a pipe
    or a device, is written to as it is.
    """
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    try:
        there = os.stat(str(path))  # noqa: PTH116 - unlike `exists` it raises where the system forbids to follow a link
    except (FileNotFoundError, NotADirectoryError):
        there = None
    if there is not None and not (target.is_file() and target.samefile(path)):  # an open file may have lost its name
        path.write_bytes(content)
    else:
        write_bytes(target, content, mode=None if there is None else stat.S_IMODE(there.st_mode))


def write_if_new(path: Path, content: bytes) -> None:
    """The same, unless the file holds just this: what many processes derive alike is not written by each of them."""
    if not path.is_file() or path.read_bytes() != content:
        write_bytes(path, content)


def write_json(path: Path, value: object) -> None:
    """Replace a JSON file atomically."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: object) -> bytes:
    """A JSON value as our files hold it."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def publish_folder(temporary: Path, final: Path) -> None:
    """Make a finished folder appear under its name, replacing an older one."""
    with said_of(final, temporary):
        for path in (*temporary.rglob("*"), temporary):
            if path.is_file() and not path.is_symlink():
                grant_usual_access(path)
            fsync(path)
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
    fsync(final.parent)


def without_surrogates(text: str) -> str:
    r"""The text with each half of a surrogate pair, which no file can hold, written out as `\\ud800`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """An object from a JSON file.

    Raises:
        DamagedError: The file is missing, not JSON, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text)
        if "\\u" in text:  # only an escape can give half of a surrogate pair, which could not be written again
            json.dumps(value, ensure_ascii=False).encode()
    except FileNotFoundError as error:
        raise DamagedError(
            f"file not found: {path}", why="it belongs to what is read here", mend="run the phase that writes it again"
        ) from error
    except (ValueError, RecursionError) as error:  # no UTF-8; no JSON; thousands of digits; thousands of brackets
        raise DamagedError(
            f"not a readable JSON file: {path}",
            why=str(error),
            mend="delete it and run the command that wrote it again",
        ) from error
    if not isinstance(value, dict):
        raise DamagedError(
            f"not a JSON object: {path}", why=f"it holds a {type(value).__name__}", mend="restore or delete the file"
        )
    return value


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one on each line.

    Raises:
        DamagedError: A line is not JSON.
    """
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise DamagedError(
            f"not a readable file of JSON lines: {path}", why=str(error), mend="delete the lines that cannot be read"
        ) from error


def file_checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sweep_temporaries(folder: Path, *, depth: int | None = None) -> None:
    """Remove, in a folder and below it, temporary files of writers of this host that are gone.

    Those of other hosts and of other containers may still be alive. os.walk passes over folders that vanish meanwhile.

    Args:
        folder: Where to begin.
        depth: Levels of folders below it to look into; None: all.
    """
    for place, inner, names in os.walk(folder):
        if depth is not None and len(Path(place).parts) - len(folder.parts) >= depth:
            inner.clear()
        for name in fnmatch.filter(names, ".*~*~*~*.tmp"):
            _, writer, pid, _ = name.rsplit("~", 3)
            if writer == _WRITER and pid.isdecimal() and _is_gone(int(pid)):
                Path(place, name).unlink(missing_ok=True)


def grant_usual_access(path: Path) -> None:
    """Give a file that a library wrote for its owner alone the mode that the umask gives to any new one.

    Any other mode is left: the folder's default access list has made it.
    """
    if stat.S_IMODE(path.stat().st_mode) == _FOR_OWNER:
        path.chmod(0o666 & ~_UMASK)


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def fsync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_path(path: Path, pid: int | None = None) -> Path:
    """A new name beside a file for what is not yet whole; it says which process writes it, else this one."""
    return path.parent / f".{path.name}~{_WRITER}~{os.getpid() if pid is None else pid}~{uuid4().hex}.tmp"


def _give_name(temporary: Path, path: Path) -> None:
    """Let a whole file have its name; FileExistsError where that is taken. The temporary name may stay."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _rename_new(temporary, path, error)


def _rename_new(temporary: Path, path: Path, no_link: OSError) -> None:
    """Rename without replacing, in one step. Where the file system cannot, nothing here would be safe."""
    number = errno.ENOSYS
    with suppress(OSError, AttributeError):  # a C library without the call
        library = ctypes.CDLL(None, use_errno=True)
        old, new = os.fsencode(temporary), os.fsencode(path)
        if library.renameat2(_AT_FDCWD, old, _AT_FDCWD, new, _RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
    if number not in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM):
        raise OSError(number, os.strerror(number), str(path))
    raise UsageError(
        f"cannot commit {path}",
        why=f"its file system made no hard link ({no_link.strerror}), and no rename that replaces nothing "
        f"({os.strerror(number)})",
        mend="choose an --output-dir on a file system with hard links",
    ) from no_link
