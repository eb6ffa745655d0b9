"""The options that mean the same in every command, and their way into the configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from vpgea.config.experimental import experimental_choices
from vpgea.config.resolve import Resolved, resolve
from vpgea.errors import UsageError
from vpgea_cli.output import Output

ModelOption = Annotated[str | None, typer.Option("--model", help="Hugging Face id or local folder of the model.")]
DatasetOption = Annotated[
    str | None, typer.Option("--dataset", help="Question file (jsonl, parquet, arrow), folder, or Hugging Face id.")
]
OutputDirOption = Annotated[Path | None, typer.Option("--output-dir", "-o", help="Folder to write to.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="YAML configuration file.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Set any configuration key; repeatable.")
]
NumSamplesOption = Annotated[int | None, typer.Option("--num-samples", "-n", help="Samples per question.")]
LimitOption = Annotated[int | None, typer.Option("--limit", help="Use only the first so many questions.")]
ObjectiveOption = Annotated[
    str | None,
    typer.Option("--objective", help="What is optimised: vpg-ea, a rival or an ablation; sets the keys that make it."),
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed that every other seed is derived from.")]
ShardOption = Annotated[
    str, typer.Option("--shard", metavar="I/N", help="Do only part I of N of the questions, I from 0.")
]
SkipBadRowsOption = Annotated[
    bool | None, typer.Option("--skip-bad-rows", help="Leave out, count and list unusable rows; else they are errors.")
]
ServerUrlOption = Annotated[
    str | None,
    typer.Option("--server-url", help="URLs of SGLang servers with commas between them, or a file that lists them."),
]
DtypeOption = Annotated[
    str | None, typer.Option("--dtype", help="float32, bfloat16, float16; auto: bfloat16 on a GPU, else float32.")
]
DevicesOption = Annotated[
    str | None,
    typer.Option("--devices", help="A server or rank on each: cpu, cpu:N, N GPUs, or GPUs 0,2,5; auto: all GPUs."),
]
AdapterOption = Annotated[str | None, typer.Option("--adapter", help="peft adapter folder on top of the model.")]
ServerPythonOption = Annotated[
    str | None, typer.Option("--sglang-python", help="Python of the environment that holds SGLang.")
]
ServerOptionsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[-- OPTIONS]", help="More options for the server, as it takes them.")
]
ResumeOption = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Continue where it stopped, or refuse a folder in use.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Delete what is there and start anew.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Resolve, load data and tokenizer, show prompts and estimates; write nothing.")
]
OfflineOption = Annotated[bool, typer.Option("--offline", help="No network: Hugging Face caches only.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only warnings and errors.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")]


def resolve_options(
    given: Mapping[str, Any],
    *,
    config: Path | None = None,
    sets: Sequence[str] | None = None,
    samples: int | None = None,
    inherited: Sequence[tuple[str, Mapping[str, Any]]] = (),
) -> Resolved:
    """Resolve a command's configuration with the process environment.

    What is experimental in it, and which variables of the environment name no key, is said once, on stderr.

    Args:
        given: dotted key → option value, where None means that the option was not given.
        config: a configuration file.
        sets: texts `key.path=value`.
        samples: of each view that the objective draws.
        inherited: (origin, dotted key → value) of folders, later ones above earlier ones.

    Raises:
        UsageError: everything that is wrong, in one.
    """
    options = {key: value for key, value in given.items() if value is not None}
    resolved = resolve(
        file=config, sets=sets or (), env=os.environ, options=options, samples=samples, inherited=inherited
    )
    if os.environ.get("RANK", "0") == "0":
        if chosen := [text for text in experimental_choices(resolved.config) if _is_given(text, resolved)]:
            Output().info(f"experimental: {', '.join(chosen)}; the method did not need it, and it may change or go")
        if names := resolved.passed_over:
            Output().warn(
                f"passed over {', '.join(names)} of the environment: a configuration key is VPGEA_<SECTION>__<KEY>"
            )
    return resolved


def _is_given(choice: str, resolved: Resolved) -> bool:
    """Whether somebody chose a value (`key=value`) by itself rather than with an objective."""
    return not resolved.origins[choice.partition("=")[0]].startswith("objective ")


def server_options(url: str | None, python: str | None, options: Sequence[str] | None) -> dict[str, Any]:
    """The configuration keys behind the options about SGLang servers.

    Raises:
        UsageError: An argument is no option, or options are given for a server that runs already.
    """
    if options and not options[0].startswith("-"):
        raise UsageError(
            f"unexpected argument: {options[0]}",
            why="only the server's own options may stand at the end, after --",
            mend="see --help for this command's options",
        )
    if options and url:
        raise UsageError(
            "options for the server are given together with --server-url",
            why="a server that runs already takes no options",
            mend="leave out what stands after --, or let vpgea start the server",
        )
    return {"sglang.server_url": url, "sglang.python": python, "sglang.options": list(options) if options else None}


def go_offline(offline: bool) -> None:
    """Keep Hugging Face libraries off the network; call it before they are imported."""
    if offline:
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
