"""A report as one HTML file: the same bytes every time, no network, and nothing of it that a model wrote can act."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from vpgea.report import figures
from vpgea.report.model import Report
from vpgea.report.packing import pack, packed
from vpgea.report.text import visible

_TEMPLATES = Path(__file__).parent / "templates"


def page(report: Report) -> str:
    """The whole file. Every text is escaped, its control characters are shown, and only our own script may run."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    style, script = (_source(name) for name in ("report.css", "report.js"))
    style = figures.STYLE.strip() + "\n" + figures.DARK + style
    return environment.get_template("report.html.j2").render(
        report=report,
        traces=None if report.traces is None or not report.traces.questions else pack(report.traces),
        downloads=[(one, packed(one.text)) for one in report.downloads],
        svg=figures.svg,
        style=Markup(style),  # noqa: S704 - ours
        script=Markup(script),  # noqa: S704
        figure_style=figures.STYLE.strip(),
        policy="; ".join(
            [
                "default-src 'none'",
                f"script-src {_hash(script)}",
                f"style-src {_hash(style)}",
                "img-src data: blob:",
                "base-uri 'none'",
                "form-action 'none'",
            ]
        ),
    )


def _source(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """By which a browser knows an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _shown(value: object) -> object:
    """What every expression of the template passes through, before it is escaped."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
