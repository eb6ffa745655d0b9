"""Prompt templates: which are the same, and which cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import tiny
from tests.support.made_views import QUESTION, make_views, own_template
from vpgea.errors import UsageError
from vpgea.prompts.texts import BUILT_IN, load_template
from vpgea.questions.load import Question
from vpgea.storage.schemas import POSTERIOR


def test_the_fingerprint_changes_with_each_text(tmp_path: Path) -> None:
    base = make_views()
    others = [
        make_views("r1-old"),
        make_views(chat_template_kwargs={"enable_thinking": False}),
        make_views(end_of_thinking="</thought>"),
        make_views(eos_ids=[1]),
    ]
    for key, value in {
        "prior": "{{ question }}!",
        "note": "({{ answer }})",
        "system": "Be brief.",
        "assistant_prefix": " ",
        "answer_cue": "It is ",
        "answer_close": ".",
        "empty_thinking": "</think>",
        "leak_phrases": ["told"],
    }.items():
        others.append(make_views(template=own_template(tmp_path, **{key: value})))
    fingerprints = {views.fingerprint for views in [base, *others]}
    assert len(fingerprints) == len(others) + 1
    assert make_views().fingerprint == base.fingerprint


def test_better_leak_phrases_of_the_built_in_template_are_no_other_template(tmp_path: Path) -> None:
    """They change no prompt, and runs that an earlier version began go on."""
    earlier = [r"\bprivate[ _]note\b", r"\b(according to|as (stated|given|said) in|from) the note\b", r"\bthe note\b"]
    earlier += [r"\b(given|provided|reference|expected|known|stated) (final )?answer\b"]
    earlier += [r"\banswer (is|was) (already )?(given|provided|known)\b"]
    told = r"\b(we|i)('re| are| was| were|'ve been| have been|'m| am) (told|given) (that )?the (final )?answer\b"
    as_it_was = own_template(tmp_path, leak_phrases=[*earlier, told])
    assert make_views(template=as_it_was).fingerprint == make_views().fingerprint


def test_a_template_of_the_user_equal_to_the_built_in_one_has_its_fingerprint(tmp_path: Path) -> None:
    assert make_views(template=own_template(tmp_path)).fingerprint == make_views().fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, "colour"),
        ({"prior": 3}, "prior"),
        ({"leak_phrases": ["(open"]}, "regular expression"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        load_template(own_template(tmp_path, **changes))
    assert message in error.value.why


def test_a_template_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text((BUILT_IN / "default.yaml").read_text(encoding="utf-8") + "\nprior: again\n", encoding="utf-8")
    with pytest.raises(UsageError) as error:
        load_template(str(path))
    assert "stands twice" in error.value.why


def test_a_template_that_is_nowhere_is_refused() -> None:
    with pytest.raises(UsageError, match="not found: nowhere") as error:
        load_template("nowhere")
    assert "default" in error.value.mend


@pytest.mark.parametrize(
    "prior",
    [
        "{{ problem }}",
        "{{ question",
        "{{ ''.__class__.__mro__ }}",
        "{{ question.__init__.__globals__ }}",
        "{{ question + 1 }}",
        "{{ 1 / 0 }}",
        "{{ options[3] }}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "{% set options.x = 1 %}",
        "{{ options.append(1) }}",
    ],
)
def test_a_template_that_cannot_be_rendered_or_tries_to_escape_is_refused(tmp_path: Path, prior: str) -> None:
    views = make_views(template=own_template(tmp_path, prior=prior))
    with pytest.raises(UsageError, match="cannot be rendered for question q"):
        views.prior_prompt(QUESTION)


def test_a_question_is_text_and_never_a_template() -> None:
    views = make_views()
    assert "{{ 7 * 7 }}" in views.preview(Question("q", "{{ 7 * 7 }}", "{% x %}"), POSTERIOR).text


def test_a_chat_template_that_refuses_a_system_turn_says_so(tmp_path: Path) -> None:
    text = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    tokenizer = tiny.make_tokenizer("qwen3", template_text=text + tiny.CHAT_TEMPLATES["qwen3"])
    assert make_views(tokenizer=tokenizer).prior_prompt(QUESTION)
    with pytest.raises(UsageError) as error:
        make_views(tokenizer=tokenizer, template=own_template(tmp_path, system="Be brief.")).prior_prompt(QUESTION)
    assert "no system turn" in error.value.why


def test_a_tokenizer_without_chat_template_is_refused() -> None:
    tokenizer = tiny.make_tokenizer("qwen3")
    tokenizer.chat_template = None
    with pytest.raises(UsageError, match="no chat template"):
        make_views(tokenizer=tokenizer)


def test_a_chat_template_that_hides_the_user_is_refused() -> None:
    views = make_views(tokenizer=tiny.make_tokenizer("qwen3", template_text="<|im_start|>assistant\n"))
    with pytest.raises(UsageError, match="does not show the user's turn"):
        views.prior_prompt(QUESTION)
