"""Job scripts rendered from templates: plain bash that a user can read, edit and keep."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from jinja2 import ChoiceLoader, FileSystemLoader, StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from vpgea.cluster.site import Site
from vpgea.config.schema import RunConfig
from vpgea.errors import UsageError
from vpgea.storage.files import file_checksum, read_json, write_bytes, write_json

FOLDER = "slurm"  # in the run folder: the scripts
LOGS = Path("logs") / "slurm"  # in the run folder: what jobs print
TRAINING = ("preflight-training", "distill")
NAMES = ("preflight", *TRAINING, "rollout", "filter", "eval")
_BUILT_IN = Path(__file__).parent / "templates"


def render(config: RunConfig, site: Site, run_dir: Path) -> dict[str, str]:
    """Render every script of a run. One script serves all rounds: it takes the step as its argument.

    Templates are rendered in jinja2's sandbox: they see the values below and can call nothing.

    Returns:
        File name → text.

    Raises:
        UsageError: A template cannot be rendered.
    """
    folders = [*([site.templates] if site.templates else []), str(_BUILT_IN)]
    environment = ImmutableSandboxedEnvironment(
        loader=ChoiceLoader([FileSystemLoader(folder) for folder in folders]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # shell, not HTML: values go through the filter `q`
    )
    environment.filters["q"] = lambda value: shlex.quote(str(value))
    run_dir = run_dir.absolute()
    scripts = {}
    for name in NAMES:
        values = {
            "name": name,
            "site": site.model_dump(),
            "resources": (site.training if name in TRAINING else site.inference).model_dump(),
            "ranks": site.training.nodes * site.training.tasks_per_node if name == "distill" else 1,
            "command": command(site),
            "run_dir": str(run_dir),
            "logs": str(run_dir / LOGS),
            "model": config.model.path,
        }
        try:
            scripts[f"{name}.sh"] = environment.get_template(f"{name}.sh.j2").render(values)
        except TemplateError as error:
            raise UsageError(
                f"the template of {name} cannot be rendered",
                why=f"{getattr(error, 'name', None) or name}.sh.j2: {error.message or type(error).__name__}",
                mend="mend the site's own template (docs/slurm.md), or delete it to use the built-in one",
            ) from error
    return scripts


def command(site: Site) -> str:
    """What a job runs as vpgea, quoted for a shell."""
    own = Path(sys.executable).with_name("vpgea")
    here = shlex.quote(str(own)) if own.is_file() else f"{shlex.quote(sys.executable)} -P -m vpgea_cli"
    return " ".join([*([site.container] if site.container else []), site.vpgea or here])


def write(texts: dict[str, str], run_dir: Path) -> list[str]:
    """Put scripts into the run folder.

    Whether a script was edited is known by the checksum of what was last rendered.

    Returns:
        The names of those that a user has edited there, which stay as they are.
    """
    folder = run_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "rendered.json"
    rendered = read_json(record) if record.is_file() else {}
    edited = []
    for name, text in texts.items():
        file = folder / name
        if file.is_file() and file_checksum(file) != rendered.get(name) and file.read_bytes() != text.encode():
            edited.append(name)
            continue
        write_bytes(file, text.encode())
        file.chmod(0o755)
        rendered[name] = file_checksum(file)
    write_json(record, rendered)
    return edited
