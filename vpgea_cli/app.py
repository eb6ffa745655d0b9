"""The commands by their names, each imported when it is asked for."""

from __future__ import annotations

import importlib
import keyword
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import vpgea
from vpgea.errors import UsageError, did_you_mean
from vpgea_cli.output import Output


class _Suggesting(TyperGroup):
    """A group whose unknown commands are an error of ours, with the nearest name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, known = args[0], self.list_commands(ctx)
        if self.get_command(ctx, name) is None:
            mend = did_you_mean(name, known, f"the commands are: {', '.join(known)}")
            raise UsageError(f"no such command: {name}", why=f"{ctx.command_path} does not have it", mend=mend)
        return super().resolve_command(ctx, args)


def command_line(commands: Sequence[str]) -> Any:
    """`vpgea` with these commands: modules of vpgea_cli.commands with a function or a Typer app named `command`."""

    class Lazy(_Suggesting):
        def list_commands(self, ctx: Any) -> list[str]:
            return list(commands)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            return _command(cmd_name) if cmd_name in commands else None

    app = typer.Typer(cls=Lazy, add_completion=False, context_settings={"help_option_names": ["--help", "-h"]})
    app.callback()(_vpgea)
    return typer.main.get_command(app)


def _command(name: str) -> Any:
    module = f"{name}_" if keyword.iskeyword(name) else name
    command = importlib.import_module(f"vpgea_cli.commands.{module}").command
    if isinstance(command, typer.Typer):
        command.info.cls = _Suggesting
        group = typer.main.get_group(command)
        group.name = name
        return group
    single = typer.Typer(add_completion=False)
    single.command(name)(command)
    return typer.main.get_command(single)


def _print_version(wanted: bool) -> None:
    if wanted:
        Output().result(vpgea.__version__)
        raise typer.Exit


def _vpgea(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Make a reasoning language model short and right: rollout, filter, distill, and round again."""
