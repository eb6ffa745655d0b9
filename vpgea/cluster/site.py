"""The site file: what a cluster is like, apart from any run. Partitions, accounts, modules, containers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from vpgea.config import strict_yaml
from vpgea.config.fields import Section
from vpgea.errors import UsageError, nearest

_TIME = r"\d+|\d+:\d\d|\d+:\d\d:\d\d|\d+-\d\d?|\d+-\d\d?:\d\d|\d+-\d\d?:\d\d:\d\d"  # as sbatch --time reads it


def _field(default: Any, description: str, **constraints: Any) -> Any:
    return Field(default, description=description, **constraints)


class Resources(Section):
    """What one kind of job asks the scheduler for."""

    partition: str | None = _field(None, "partition; null: the cluster's default")
    nodes: int = _field(1, "nodes of one job", ge=1)
    tasks_per_node: int = _field(1, "training: ranks per node, usually one for each GPU", ge=1)
    gpus_per_node: int = _field(0, "GPUs per node; 0: none are asked for", ge=0)
    cpus_per_task: int | None = _field(None, "cores of a task", ge=1)
    memory: str | None = _field(None, "memory of a node, as sbatch --mem takes it", pattern=r"^\d+[KMGT]?$")
    time: str | None = _field(None, "time limit, as sbatch --time takes it", pattern=f"^(?:{_TIME})$")
    constraint: str | None = _field(None, "features that nodes must have")
    options: list[str] = _field([], "more options for sbatch, one entry each, e.g. --exclusive")


class Site(Section):
    """A cluster."""

    account: str | None = _field(None, "account that jobs are charged to")
    qos: str | None = _field(None, "quality of service")
    vpgea: str | None = _field(None, "command that runs vpgea in a job; null: the one that submits")
    container: str | None = _field(None, "what stands before it, e.g. apptainer exec --nv /images/vpgea.sif")
    modules: list[str] = _field([], "environment modules that a job loads")
    setup: list[str] = _field([], "shell lines that a job runs first, e.g. source /venvs/vpgea/bin/activate")
    environment: dict[str, str] = _field({}, "environment variables of a job; no secrets: scripts can be read")
    templates: str | None = _field(None, "folder with job templates of your own, beside the site file")
    parts: int = _field(8, "jobs that a rollout, a filter or an evaluation is shared among", ge=1)
    parts_at_once: int | None = _field(None, "most of them that run at a time; null: no limit", ge=1)
    max_requeues: int = _field(20, "how often a stopped job puts itself into the queue again", ge=0)
    signal_seconds: int = _field(120, "seconds before the time limit at which a job is told to save", ge=1)
    inference: Resources = _field(Resources(), "jobs that sample: rollout, filter, eval")
    training: Resources = _field(Resources(), "jobs that train: distill")

    @classmethod
    def read(cls, path: Path | None) -> Site:
        """A site file; None: that of the user, or a site without any wishes.

        Raises:
            UsageError: It cannot be read, or is no site.
        """
        if path is None:
            path = default_path()
            if not path.is_file():
                return cls()
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"site file cannot be read: {path}",
                why=str(error),
                mend="check --site; docs/slurm.md shows what stands in a site file",
            ) from error
        value, lines = strict_yaml.parse(text, str(path))
        try:
            site = cls.model_validate(value or {})
        except ValidationError as error:
            raise UsageError(
                f"{path} is not a site file",
                why="; ".join(_in_words(path, lines, detail) for detail in error.errors()),
                mend="docs/slurm.md lists the keys with their meaning",
            ) from error
        if site.templates is None:
            return site
        folder = (path.parent / Path(site.templates).expanduser()).absolute()
        if not folder.is_dir():
            raise UsageError(
                f"templates of the site not found: {folder}", why=f"{path} names them", mend="mend `templates` there"
            )
        return site.model_copy(update={"templates": str(folder)})


def default_path() -> Path:
    """~/.config/vpgea/site.yaml, or where XDG_CONFIG_HOME has it."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "vpgea" / "site.yaml"


def _in_words(path: Path, lines: dict[tuple[str, ...], int], detail: Any) -> str:
    place = tuple(str(part) for part in detail["loc"])
    line = next((lines[place[:depth]] for depth in range(len(place), 0, -1) if place[:depth] in lines), None)
    message = detail["msg"]
    if detail["type"] == "extra_forbidden":
        inner = [f"{kind}.{name}" for kind in ("inference", "training") for name in Resources.model_fields]
        near = nearest(".".join(place), [*Site.model_fields, *inner])
        message = "unknown key" if near is None else f"unknown key; did you mean {near}?"
    where = f" (line {line})" if line else ""
    return f"{'.'.join(place) or 'it'}{where}: {message}"
