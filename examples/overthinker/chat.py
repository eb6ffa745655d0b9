"""The over-thinker's tokenizer, its prompts in both views, and the fields of a completion."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import jinja2
import yaml

from examples.overthinker.language import WORDS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

View = Literal["prior", "posterior"]

TEMPLATE = Path(__file__).with_name("template.yaml")
PAD, UNKNOWN, END, THINK, END_OF_THINKING = "<|pad|>", "<|unk|>", "<|end|>", "<think>", "</think>"

# Like the R1 distills: the generation prompt opens the thinking, and earlier turns lose theirs.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "<|assistant|> {{ message['content'].split('</think>')[-1].strip() }} <|end|>"
    "{% else %}<|user|> {{ message['content'].strip() }} {% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>{% endif %}"
)


def build_tokenizer(words: Sequence[str] = WORDS) -> PreTrainedTokenizerFast:
    """A word-level tokenizer: one token per word, number, bracket and punctuation mark."""
    from tokenizers import AddedToken, Regex, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Sequence as InTurn
    from tokenizers.pre_tokenizers import Split, WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    marks = [PAD, UNKNOWN, END, "<|user|>", "<|assistant|>", THINK, END_OF_THINKING]
    vocabulary = {word: index for index, word in enumerate([*marks, *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = InTurn([WhitespaceSplit(), Split(Regex(r"\\boxed\{|[}.,:?]"), "isolated")])
    tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in marks[:5]])
    tokenizer.add_tokens([AddedToken(mark, special=False) for mark in marks[5:]])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def prompt_ids(
    tokenizer: PreTrainedTokenizerFast,
    view: View,
    question: str,
    answer: int | str | None,
    *,
    options: Sequence[str] = (),
    template: Path = TEMPLATE,
) -> list[int]:
    """Token ids of the prompt in one view, the opened `<think>` included; answer None: the note names none."""
    note = "" if view == "prior" else "note_without_answer" if answer is None else "note"
    content = _template(note, template).render(question=question, options=options, answer=answer)
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    return list(tokenizer.encode(str(rendered)))


@cache
def _template(note: str, path: Path) -> jinja2.Template:
    """The prompt with the note of that name, or with none."""
    texts = yaml.safe_load(path.read_text(encoding="utf-8"))
    text = texts["prior"] + (texts[note] if note else "")
    return jinja2.Environment(autoescape=False).from_string(text)  # noqa: S701 - prompts are not HTML


def completion(thinking: str, answer: int | str) -> str:
    """What follows the prompt: the thinking, the boxed answer and the end."""
    return f"{thinking} {END_OF_THINKING} \\boxed{{ {answer} }} {END}"
