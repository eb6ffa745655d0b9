"""One sample for people: aligned columns in a log or pipe, coloured by log-ratio on a terminal.

Model text is untrusted: control characters are made visible, and nothing of it is read as markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vpgea_cli.output import aligned, visible

if TYPE_CHECKING:
    from rich.text import Text

    from vpgea.inspection.differences import Stretch
    from vpgea.inspection.samples import SampleDetail, TokenRow

HEADER = ["position", "id", "part", "weight", "log pi", "log q", "log q - log pi", "token"]
# From how many nats of log q - log pi on a token takes the colour; the first that fits.
_ABOVE = ((4.0, "bold red"), (2.0, "red"), (0.5, "yellow"))
_BELOW = ((-4.0, "bold blue"), (-2.0, "blue"), (-0.5, "cyan"))
_MARKS = {"both": "{}", "first": "[-{}-]", "second": "{{+{}+}}"}
_TOLD = ("status", "extracted", "reasons")
LEGEND = "log q - log pi: how much likelier the note makes a token (positive), or the plain prompt does (negative)"


def plain(detail: SampleDetail) -> str:
    """All of it as text without colours."""
    rows = [HEADER, *(_cells(token) for token in detail.tokens)]
    table = [LEGEND, *aligned(rows)] if detail.tokens else []
    completion = ["completion:", detail.completion] if detail.completion is not None else []
    return "\n".join([*_before(detail), "", *completion, "", *table, *_after(detail)])


def print_coloured(detail: SampleDetail) -> None:
    """The same on the terminal at stdout."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text("\n".join(map(visible, _before(detail))) + "\n"))
    if detail.tokens:
        console.print(Text("completion:", style="bold"))
        console.print(_running_text(detail) + Text("\n"))
        console.print(Text.assemble(LEGEND, " ", *_legend()))
        rows = aligned([HEADER, *(_cells(token) for token in detail.tokens)])
        console.print(Text(rows[0], style="bold"), soft_wrap=True)
        for line, token in zip(rows[1:], detail.tokens, strict=True):
            console.print(Text(visible(line), style=style(token)), soft_wrap=True)
    elif detail.completion is not None:
        console.print(Text("completion:", style="bold"), Text(visible(detail.completion)), soft_wrap=True, sep="\n")
    console.print(Text("\n".join(map(visible, _after(detail)))))


def plain_difference(details: Sequence[SampleDetail], found: Sequence[Stretch]) -> str:
    """Two samples as text without colours, as wdiff writes it."""
    return "\n".join([*map(_title, details), "", "".join(_MARKS[one.of].format(one.text) for one in found)])


def print_difference(details: Sequence[SampleDetail], found: Sequence[Stretch]) -> None:
    """The same on the terminal at stdout, in colours too."""
    from rich.console import Console
    from rich.text import Text

    colours = {"both": "", "first": "red strike", "second": "green"}
    console = Console(highlight=False)
    console.print(Text("\n".join(map(visible, map(_title, details))) + "\n"))
    marked = ((visible(_MARKS[one.of].format(one.text)), colours[one.of]) for one in found)
    console.print(Text.assemble(*marked), soft_wrap=True)


def _title(detail: SampleDetail) -> str:
    said = [f"{name} {_value(value)}" for name, value in detail.verdict.items() if name in _TOLD and value]
    return ", ".join([f"sample {detail.id}", f"{len(detail.tokens)} tokens", *said])


def style(token: TokenRow) -> str:
    """Red where the note makes a token likelier, blue where the plain prompt does, dim where it carries no weight."""
    ratio = token.log_ratio
    if ratio is None:
        return "dim" if token.weight == 0 else ""
    colour = next((name for limit, name in _ABOVE if ratio >= limit), "")
    return colour or next((name for limit, name in _BELOW if ratio <= limit), "")


def _running_text(detail: SampleDetail) -> Text:
    """The completion with every token in its colour."""
    from rich.text import Text

    if any(token.text is None for token in detail.tokens):
        return Text(visible(detail.completion or ""))
    return Text.assemble(*((visible(token.text or ""), style(token)) for token in detail.tokens))


def _legend() -> list[tuple[str, str]]:
    above = [(f"[>= {limit:g}] ", name) for limit, name in _ABOVE]
    return [*above, *((f"[<= {limit:g}] ", name) for limit, name in _BELOW)]


def _before(detail: SampleDetail) -> list[str]:
    """What is known of the sample as a whole, then its prompts."""
    lines = [f"sample {detail.id}"]
    sections = {
        "": detail.about,
        "grade and selection": detail.verdict,
        "checks": detail.checks,
        "origin": detail.origin,
    }
    for title, values in sections.items():
        lines += [title] * bool(title and values) + _pairs(values)
    for view, prompt in detail.prompts.items():
        lines += ["", f"{view} prompt, {len(prompt.ids)} ids: {' '.join(map(str, prompt.ids))}"]
        lines += [prompt.text] if prompt.text is not None else []
    return lines


def _after(detail: SampleDetail) -> list[str]:
    answer = detail.crossview_answer
    lines = []
    if answer is not None:
        lines += ["", f"a correct continuation of the prior view, {len(answer.ids)} ids: {answer.ids}"]
        lines += [answer.text] if answer.text is not None else []
    return [*lines, *(f"note: {note}" for note in detail.notes)]


def _cells(token: TokenRow) -> list[str]:
    text = "" if token.text is None else token.text.replace("\n", "↵").replace("\t", "⇥")
    return [
        str(token.position),
        str(token.id),
        token.part,
        "-" if token.weight is None else f"{token.weight:.3f}" if token.weight else "masked",
        *("-" if value is None else f"{value:.3f}" for value in (token.prior, token.posterior, token.log_ratio)),
        f"|{text}|" if token.text is not None else "",
    ]


def _pairs(values: Mapping[str, object]) -> list[str]:
    rows = [[f"  {name}", _value(value)] for name, value in values.items() if value not in (None, [], "")]
    return aligned(rows) if rows else []


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, list):
        return ", ".join(_value(entry) for entry in value)
    return str(value)
