"""`vpgea`: finds the command, runs it, and turns whatever happens into an exit code and at most three lines."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from vpgea.errors import UsageError, VpgeaError, did_you_mean, is_out_of_memory
from vpgea.report.text import visible
from vpgea.runs.stopping import INTERRUPTED
from vpgea_cli.streams import Lasting, hold_open

# Each is a module of vpgea_cli.commands with a function or a Typer app named `command`; it is imported when it is
# called or listed. Its imports at the top must be light: no torch, transformers, peft, pyarrow, datasets, numpy.
COMMANDS = (
    "rollout",
    "filter",
    "distill",
    "loop",
    "eval",
    "compare",
    "experiment",
    "report",
    "regrade",
    "import",
    "inspect",
    "export",
    "serve",
    "slurm",
    "config",
    "doctor",
)


def main() -> NoReturn:
    """The entry point of the command line."""
    try:
        out = hold_open()
        code = run(sys.argv[1:])
        sys.exit(_delivered(out, code))
    except KeyboardInterrupt:
        sys.exit(_interrupted())


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors are three lines on stderr."""
    try:
        from typer import Abort, Exit

        from vpgea_cli.app import command_line
    except KeyboardInterrupt:
        return _interrupted()
    try:
        _require_utf8(arguments)
        _keep_logs_free_of_bars()
        # Not app(...): typer's own loop would take Ctrl-C, EOFError and every broken pipe for its own.
        with command_line(COMMANDS).make_context("vpgea", list(arguments) or ["--help"]) as context:
            context.command.invoke(context)
        return 0
    except Exit as leaving:
        return leaving.exit_code
    except (KeyboardInterrupt, Abort):
        return _interrupted()
    except Exception as error:
        return _report(error)


def told(work: Callable[[], object]) -> int:
    """Do what is no command, a script of examples/ say, and return its exit code; errors are three lines on stderr."""
    try:
        work()
        return 0
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:
        return _report(error)


def _interrupted() -> int:
    sys.stderr.write("\ninterrupted\n")
    return INTERRUPTED


def _delivered(out: Lasting, code: int) -> int:
    """The exit code, once the result has left: one that was lost, to a full disk say, is an error of its own."""
    sys.stdout.flush()
    if out.lost is None or out.lost_to_nobody:
        return code
    why = _refused_write(out.lost) or str(out.lost)
    mend = "mend that, then run the same command again: it says the result of what is done"
    lost = _report(VpgeaError("the result could not be written to stdout", why=why, mend=mend))
    return code or lost


def _keep_logs_free_of_bars() -> None:
    """Bars of downloads stay where people look: nothing else says there how far the hub's client is."""
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _require_utf8(arguments: Sequence[str]) -> None:
    """Paths are recorded as JSON, which is UTF-8: what is not, is refused before anything is written.

    Raises:
        UsageError: An argument, or the name of the working directory, is not.
    """
    for what, text in [*(("argument", text) for text in arguments), ("working directory", _working_directory())]:
        if not _is_utf8(text):
            raise UsageError(
                f"not UTF-8: the {what} {text!a}",
                why="what is read and written is recorded by name, and records are UTF-8",
                mend="rename it, or give it another name with a link (ln -s)",
            )


def _working_directory() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # it was deleted; what needs it will say so
        return ""


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _report(error: Exception) -> int:
    if os.environ.get("VPGEA_DEBUG") == "1":
        traceback.print_exception(error)
    told = _as_told(error)
    lines = f"error: {told.what}\nwhy:   {told.why}\nmend:  {told.mend}"
    sys.stderr.write(visible(lines) + "\n")
    return told.exit_code


def _as_told(error: Exception) -> VpgeaError:
    """What the user reads about an exception."""
    if isinstance(error, VpgeaError):
        return error
    if hasattr(error, "format_message") and hasattr(error, "ctx"):
        return _usage_error(error)
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    if known := _environments(error, what):
        return known
    mend = "VPGEA_DEBUG=1 shows where it happened; `vpgea doctor` checks the environment"
    return VpgeaError(what, why="a bug in vpgea or something in the environment that it did not expect", mend=mend)


def _environments(error: Exception, what: str) -> VpgeaError | None:
    """What the user reads where the machine, its files or its limits are at fault, and no bug is."""
    if refused := _refused_write(error):
        mend = "free some space, or mend what refuses it, or choose another --output-dir; then run the same command "
        mend += "again: it continues"
        return VpgeaError(what, why=refused, mend=mend)
    if isinstance(error, FileNotFoundError):
        what = f"no longer there: {error.filename or error}"
        mend = "restore what was moved or deleted, or choose another folder, then run the same command again"
        return VpgeaError(what, why="it, or the folder it stands in, is gone: it was there or is recorded", mend=mend)
    if is_out_of_memory(error):
        mend = (
            "use a machine with more of it; where samples are drawn or weights trained, lower rollout.batch_size, "
            "max_new_tokens or distill.max_tokens_per_batch (`--dry-run` of these says how much a phase needs)"
        )
        return VpgeaError(what, why="the memory of the device or machine does not suffice", mend=mend)
    if odd := _odd_input(error):
        return UsageError(what, why=odd, mend="give another one, or mend the file that it came from")
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        mend = "raise the limit (ulimit -n), then run the same command again: it continues"
        return VpgeaError(what, why="as many files are open as this process or machine may have", mend=mend)
    return None


def _refused_write(error: Exception) -> str | None:
    """Why nothing more can be written, if that is what an exception says. safetensors tells it in words alone."""
    reasons = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "permission is denied there",
        errno.EPERM: "permission is denied there",
        errno.EIO: "the disk does not answer as it should",
        errno.ESTALE: "the network file system has lost the file",
        errno.EFBIG: "a limit on the size of files (ulimit -f, or the file system's own) was reached",
    }
    number = error.errno if isinstance(error, OSError) else None
    return next((why for code, why in reasons.items() if code == number or os.strerror(code) in str(error)), None)


def _odd_input(error: Exception) -> str | None:
    """What is wrong with what was given or read, where a limit of the machine says so and nothing of ours did."""
    if isinstance(error, RecursionError):
        return "something that was read, a template or a header say, is nested too deeply, or calls itself"
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return "the file system takes no name as long"
    if isinstance(error, (IsADirectoryError, NotADirectoryError)):
        return "a file stands where a folder is needed, or a folder where a file is"
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return "a name holds a null byte"
    return None


def _usage_error(error: Any) -> UsageError:
    """One of typer's own errors. Its classes live in a private module, therefore they are known by their shape."""
    context = error.ctx
    path = context.command_path if context else "vpgea"
    what, mend = error.format_message(), f"`{path} --help` lists what there is"
    if type(error).__name__ == "NoSuchOption":
        what = f"no such option: {error.option_name}"
        known = [name for parameter in context.command.params for name in (*parameter.opts, *parameter.secondary_opts)]
        from vpgea.config.problems import (
            keys_called,
        )  # not at the top: it brings pydantic, which --version does without

        if "--set" in known and (keys := keys_called(error.option_name.lstrip("-").replace("-", "_"))):
            mend = f"set it as a configuration key: {' or '.join(f'--set {key}=VALUE' for key in keys)}"
        else:
            mend = did_you_mean(error.option_name, [*known, "--help"], mend)
    return UsageError(what, why=f"{path} cannot be called like this", mend=mend)
