"""`vpgea`: finds the command, runs it, and turns whatever happens into an exit code and at most three lines."""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

import vpgea
from vpgea.errors import UsageError, VpgeaError, is_out_of_memory
from vpgea.runs.stopping import INTERRUPTED
from vpgea_cli.output import Output, visible

# Each is a module of vpgea_cli.commands with a function or a Typer app named `command`; it is imported when it is
# called or listed. Its imports at the top must be light: no torch, transformers, peft, pyarrow, datasets, numpy.
COMMANDS = ("rollout", "filter", "distill", "loop", "eval", "inspect", "export", "serve", "slurm", "config", "doctor")


class _Suggesting(TyperGroup):
    """A group whose unknown commands are an error of ours, with the nearest name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, known = args[0], self.list_commands(ctx)
        if self.get_command(ctx, name) is None:
            nearest = difflib.get_close_matches(name, known, n=1)
            mend = f"did you mean {nearest[0]}?" if nearest else f"the commands are: {', '.join(known)}"
            raise UsageError(f"no such command: {name}", why=f"{ctx.command_path} does not have it", mend=mend)
        return super().resolve_command(ctx, args)


class _Lazy(_Suggesting):
    """The commands by name, each imported when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"vpgea_cli.commands.{cmd_name}").command
        if isinstance(command, typer.Typer):
            command.info.cls = _Suggesting
            group = typer.main.get_group(command)
            group.name = cmd_name
            return group
        single = typer.Typer(add_completion=False)
        single.command(cmd_name)(command)
        return typer.main.get_command(single)


app = typer.Typer(cls=_Lazy, add_completion=False, context_settings={"help_option_names": ["--help", "-h"]})


def _print_version(wanted: bool) -> None:
    if wanted:
        Output().result(vpgea.__version__)
        raise typer.Exit


@app.callback()
def _vpgea(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Make a reasoning language model short and right: rollout, filter, distill, and round again."""


def main() -> NoReturn:
    """The entry point of the command line."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors are three lines on stderr."""
    try:
        # Not app(...): typer's own loop would take Ctrl-C, EOFError and every broken pipe for its own.
        with typer.main.get_command(app).make_context("vpgea", list(arguments) or ["--help"]) as context:
            context.command.invoke(context)
        return 0
    except typer.Exit as leaving:
        return leaving.exit_code
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("\ninterrupted\n")
        return INTERRUPTED
    except Exception as error:
        return _report(error)


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
            "lower rollout.batch_size, max_new_tokens or distill.max_tokens_per_batch, then run the command again; "
            "`--dry-run` says how much memory a phase needs"
        )
        return VpgeaError(what, why="the memory of the device or machine does not suffice", mend=mend)
    mend = "VPGEA_DEBUG=1 shows where it happened; `vpgea doctor` checks the environment"
    return VpgeaError(what, why="a bug in vpgea or something in the environment that it did not expect", mend=mend)


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


def _usage_error(error: Any) -> UsageError:
    """One of typer's own errors. Its classes live in a private module, therefore they are known by their shape."""
    context = error.ctx
    path = context.command_path if context else "vpgea"
    what, mend = error.format_message(), f"`{path} --help` lists what there is"
    if type(error).__name__ == "NoSuchOption":
        what = f"no such option: {error.option_name}"
        known = [name for parameter in context.command.params for name in (*parameter.opts, *parameter.secondary_opts)]
        nearest = difflib.get_close_matches(error.option_name, [*known, "--help"], n=1)
        mend = f"did you mean {nearest[0]}? {mend}" if nearest else mend
    return UsageError(what, why=f"{path} cannot be called like this", mend=mend)
