"""What a benchmark's protocol asks, in place of the text by which a model is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vpgea.errors import UsageError
from vpgea.prompts.texts import Template

PROTOCOL_KEEPS = ("assistant_prefix", "note_without_answer", "leak_phrases")  # of a template, under a protocol


@dataclass(frozen=True)
class BenchmarkTurns:
    """User turns of a protocol, which take the place of the template's text for the prior view.

    Attributes:
        turns: Question id → text; empty where stored prompts are read and none is made.
        system: The protocol's system text.
    """

    turns: Mapping[str, str] = field(repr=False)
    system: str | None = None

    def only_system(self, template: Template) -> str | None:
        """The protocol's system text, which says what the prompt is.

        Raises:
            UsageError: The template by which the model is trained has another one.
        """
        if template.system not in (None, self.system):
            raise UsageError(
                f"prompt template {template.name!r} has a system text, and the benchmark's protocol has not that one",
                why=f"it is {template.system[:60]!r}; one of them moves the accuracy of R1 distills by several points",
                mend="evaluate with views.template=default, or write the system text into a protocol file of your own",
            )
        return self.system
