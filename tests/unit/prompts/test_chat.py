"""What is odd about a chat template is said, and its end of an assistant's turn ends a response."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import tiny
from tests.support.made_views import QUESTION, own_template
from vpgea.config.schema import ViewsConfig
from vpgea.errors import UsageError
from vpgea.prompts.views import Views
from vpgea.storage.schemas import PRIOR

TODAY = "Today: {{ strftime_now('%d %b %Y') }}\n"
ALWAYS = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def views_with(
    family: str = "qwen3", text: str | None = None, *, eos_ids: tuple[int, ...] = (), **config: Any
) -> Views:
    tokenizer = tiny.make_tokenizer(family, template_text=text)
    return Views(tokenizer, ViewsConfig(**config), eos_ids or [tokenizer.eos_token_id])


@pytest.mark.parametrize("family", list(tiny.CHAT_TEMPLATES))
def test_nothing_is_said_of_the_templates_in_the_field(family: str) -> None:
    pinned = {"strftime_now": "2024-07-26"} if family.endswith("today") else {}
    assert views_with(family, chat_template_kwargs=pinned).remarks == []


def test_an_argument_that_the_template_does_not_read_is_told_with_the_nearest_that_it_does() -> None:
    (remark,) = views_with(chat_template_kwargs={"enable_thinkng": False}).remarks
    assert "enable_thinkng has no effect" in remark
    assert "did you mean enable_thinking?" in remark
    assert views_with(chat_template_kwargs={"enable_thinking": False}).remarks == []


def test_a_template_without_generation_prompt_is_told_unless_one_is_added(tmp_path: Path) -> None:
    text = tiny.CHAT_TEMPLATES["qwen2.5"].replace(ALWAYS, "")
    (remark,) = views_with("qwen2.5", text).remarks
    assert "no generation prompt" in remark
    assert repr("<|im_start|>assistant\n") in remark
    added = own_template(tmp_path, assistant_prefix="<|im_start|>assistant\n")
    assert views_with("qwen2.5", text, template=added).remarks == []


def test_a_template_whose_turns_need_no_generation_prompt_is_not(tmp_path: Path) -> None:
    text = (
        "{% for m in messages %}{% if m['role'] == 'user' %}<|im_start|>{{ m['content'] }}<|endoftext|>"
        "{% else %} {{ m['content'] }}<|im_end|>{% endif %}{% endfor %}"
    )
    assert views_with("qwen2.5", text).remarks == []


@pytest.mark.parametrize("text", ["today", TODAY + tiny.CHAT_TEMPLATES["qwen3"]], ids=["guarded", "always"])
def test_a_date_can_be_pinned_whatever_the_template_calls_it(text: str) -> None:
    family, own = ("llama-3.1-today", None) if text == "today" else ("qwen3", text)
    with pytest.raises(UsageError, match="today's date") as error:
        views_with(family, own).prior_prompt(QUESTION)
    key = "views.chat_template_kwargs.strftime_now"
    assert f"{key}=2024-07-26" in error.value.mend
    pinned = views_with(family, own, chat_template_kwargs={"strftime_now": "2024-07-26"})
    assert "26 Jul 2024" in pinned.preview(QUESTION, PRIOR).text
    with pytest.raises(UsageError, match=f"{key} is no date"):
        views_with(family, own, chat_template_kwargs={"strftime_now": "tomorrow"})


# --- ends -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "end"), [("qwen3", "<|im_end|>"), ("r1", "<｜end▁of▁sentence｜>"), ("llama-3.1", "<|eot_id|>")]
)
def test_the_template_s_end_of_an_assistant_s_turn_stops_where_no_file_names_it(family: str, end: str) -> None:
    views = views_with(family, eos_ids=(3,))
    assert views.stop_ids == (3, views.encode(end)[0])
    assert views.fingerprint == views_with(family, eos_ids=(3,)).fingerprint


def test_what_only_opens_the_next_turn_is_no_end() -> None:
    text = "{% for m in messages %}<|im_start|>{{ m['content'] }}{% endfor %}<|im_start|>assistant\n"
    assert views_with(text=text, eos_ids=(3,)).stop_ids == (3,)


def test_an_end_of_thinking_of_several_special_tokens_is_found_and_does_not_stop() -> None:
    end = "<|im_end|><|im_start|>final"
    views = views_with(eos_ids=(3,), end_of_thinking=end)
    assert views.stop_ids == (3,)
    for before, after in (("so 12.", "\n12"), ("", ""), ("so<|im_end|> it", "ly 12")):
        ids = views.encode(f"{before}{end}{after}")
        length = views.thinking_length(ids)
        assert length is not None
        assert views.decode(ids[:length], special=True).startswith(before + end)
        assert end not in views.decode(ids[: length - 1], special=True)
    assert views.thinking_length(views.encode("so<|im_end|> it")) is None


def test_an_end_of_thinking_at_which_sampling_would_stop_is_refused() -> None:
    views = views_with(end_of_thinking="<|im_end|><|im_start|>final")
    with pytest.raises(UsageError, match="can never be written"):
        assert views.stop_ids


def test_a_model_of_which_no_end_can_be_written_is_refused() -> None:
    views = Views(tiny.make_tokenizer("qwen3"), ViewsConfig(end_of_thinking=None), [10**6], vocabulary=100)
    with pytest.raises(UsageError, match="no end-of-sequence id"):
        assert views.stop_ids
