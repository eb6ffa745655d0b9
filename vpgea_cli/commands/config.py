"""`vpgea config`: write, show and check a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpgea.config.contradictions import require_consistent
from vpgea.config.resolve import Resolved, dump_yaml, resolve
from vpgea.config.schema import RunConfig, value_of
from vpgea.config.strict_yaml import scalar
from vpgea.errors import UsageError
from vpgea.report.prompt_text import prompt_text
from vpgea.storage.files import commit, write_named
from vpgea_cli.options import (
    ConfigOption,
    DatasetOption,
    JsonOption,
    ModelOption,
    ObjectiveOption,
    OfflineOption,
    OverwriteOption,
    QuietOption,
    SetOption,
    go_offline,
    resolve_options,
)
from vpgea_cli.output import Output, aligned, writing_to

if TYPE_CHECKING:
    from vpgea.prompts.views import PromptPreview

command = typer.Typer(help="Write, show and check a configuration.")

_HEADER = """\
# A configuration of vpgea: every key with its default. Delete what you do not change.
# Check it with `vpgea config validate --config THIS_FILE`.
"""


@command.command()
def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("vpgea.yaml"),
    objective: ObjectiveOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a commented configuration file with all defaults, or with what makes an objective."""
    config = resolve(options={} if objective is None else {"objective": objective}).config
    content = (_HEADER + dump_yaml(config)).encode()
    with writing_to(path):
        if overwrite:
            write_named(path, content)
        elif not commit(path, lambda temporary: temporary.write_bytes(content)):
            mend = "give another path, or --overwrite"
            raise UsageError(f"{path} is there already", why="it may hold your changes", mend=mend)
    Output(as_json=as_json).result(path)


@command.command()
def show(
    *,
    config: ConfigOption = None,
    sets: SetOption = None,
    model: ModelOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print every resolved value with its origin."""
    resolved = resolve_options({"model.path": model, "data.dataset": dataset}, config=config, sets=sets)
    output = Output(as_json=as_json)
    if as_json:
        output.result({key: {"value": value, "origin": origin} for key, value, origin in _values(resolved)})
    else:
        rows = [[key, scalar(value), f"# {origin}"] for key, value, origin in _values(resolved)]
        output.result("\n".join(aligned(rows)))


@command.command()
def validate(
    *,
    config: ConfigOption = None,
    sets: SetOption = None,
    model: ModelOption = None,
    dataset: DatasetOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check a configuration; with a model, also show two prompts of each view as text and ids."""
    resolved = resolve_options({"model.path": model, "data.dataset": dataset}, config=config, sets=sets)
    require_consistent(resolved.config)
    output = Output(as_json=as_json, quiet=quiet)
    go_offline(offline)
    prompts: Sequence[PromptPreview] = []
    if not resolved.config.model.path:
        output.info("no model.path: the prompts were not rendered")
    elif not resolved.config.data.dataset:
        output.info("no data.dataset: the prompts were not rendered")
    else:
        prompts = _previews(resolved.config, output, offline=offline)
    if as_json:
        output.result({"valid": True, "prompts": [asdict(prompt) for prompt in prompts]})
    else:
        output.result("\n\n".join([*map(prompt_text, prompts), "the configuration is valid"]))


def _values(resolved: Resolved) -> list[tuple[str, object, str]]:
    return [(key, value_of(resolved.config, key), origin) for key, origin in resolved.origins.items()]


def _previews(config: RunConfig, output: Output, *, offline: bool) -> Sequence[PromptPreview]:
    from vpgea.modeling.local_model import LocalModel
    from vpgea.prompts.views import load_views
    from vpgea.questions.load import load_questions

    loaded = load_questions(config.data, grader=config.grading.grader, offline=offline)
    output.warn_all(loaded.said())
    views = load_views(
        LocalModel.resolve(config.model), config.views, config.grading.grader, questions=loaded.questions
    )
    views.require_ends()
    output.warn_all(views.remarks)
    return views.previews(loaded.questions)
