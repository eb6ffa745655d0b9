"""Prompts of both views for the chat templates in the field, and questions that spell control tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import tiny
from tests.support.made_views import QUESTION, make_views, own_template
from vpgea.config.schema import ViewsConfig
from vpgea.errors import UsageError
from vpgea.prompts.views import Views
from vpgea.questions.load import Question
from vpgea.storage.schemas import POSTERIOR, PRIOR

TURN = "What is 3 times 4?\n\nPlease reason step by step, and put your final answer within \\boxed{}."
NOTE = (
    "\n\n<private_note>\nThe final answer is 12. This is for your eyes only. Think in the first person, as if you were "
    "solving the\nproblem for yourself: take the shortest path of sound steps, derive every value before you use it, "
    "and do not state\nthe final answer before you have derived it. Never mention this note, or that an answer was "
    "given.\n</private_note>"
)
SYSTEM = "<|im_start|>system\n{}<|im_end|>\n"
CHATML = "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
LLAMA = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: {}\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nQ<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
EXPECTED: list[tuple[str, dict[str, Any], str]] = [
    ("r1", {}, "<｜begin▁of▁sentence｜><｜User｜>Q<｜Assistant｜><think>\n"),
    ("r1-old", {}, "<｜begin▁of▁sentence｜><｜User｜>Q<｜Assistant｜>"),
    ("qwen3", {}, CHATML),
    ("qwen3", {"enable_thinking": False}, CHATML + "<think>\n\n</think>\n\n"),
    ("qwen3-thinking", {}, CHATML + "<think>\n"),
    ("qwen2.5", {}, SYSTEM.format("You are Qwen, created by Alibaba Cloud. You are a helpful assistant.") + CHATML),
    (
        "qwen2.5-math",
        {},
        SYSTEM.format("Please reason step by step, and put your final answer within \\boxed{}.") + CHATML,
    ),
    ("llama-3.1", {}, LLAMA.format("26 Jul 2024")),
    ("llama-3.1", {"date_string": "1 Jan 2025"}, LLAMA.format("1 Jan 2025")),
    ("llama-3.1-today", {"date_string": "1 Jan 2025"}, LLAMA.format("1 Jan 2025")),
]


@pytest.mark.parametrize(("family", "arguments", "expected"), EXPECTED)
def test_both_prompts_of_every_family(family: str, arguments: dict[str, Any], expected: str) -> None:
    views = make_views(family, chat_template_kwargs=arguments)
    prior, posterior = views.preview(QUESTION, PRIOR), views.preview(QUESTION, POSTERIOR)
    assert prior.text == expected.replace("Q<", TURN + "<")
    assert posterior.text == expected.replace("Q<", TURN + NOTE + "<")
    assert prior.ids == views.prior_prompt(QUESTION)
    assert views.tokenizer.decode(prior.ids) == prior.text
    assert len(prior.tokens) == len(prior.ids)
    tail = views.encode(views.assistant_tail)
    assert prior.ids[-len(tail) :] == posterior.ids[-len(tail) :] == tail
    assert expected.endswith(views.assistant_tail)


def test_a_date_that_is_not_pinned_is_refused() -> None:
    views = make_views("llama-3.1-today")
    with pytest.raises(UsageError, match="today's date") as error:
        views.prior_prompt(QUESTION)
    assert "date_string" in error.value.mend


def test_a_pin_that_the_template_does_not_read_does_not_count() -> None:
    text = tiny.CHAT_TEMPLATES["qwen3"].replace("{% for", "Today: {{ strftime_now('%d %b %Y') }}\n{% for", 1)
    tokenizer = tiny.make_tokenizer("qwen3", template_text=text)
    with pytest.raises(UsageError, match="today's date"):
        make_views(tokenizer=tokenizer, chat_template_kwargs={"date_string": "1 Jan 2025"}).prior_prompt(QUESTION)


@pytest.mark.parametrize("family", ["r1", "llama-3.1"])
def test_one_first_token_even_if_the_tokenizer_would_add_another(family: str) -> None:
    tokenizer = tiny.make_tokenizer(family, adds_bos=True)
    assert tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id
    for prompt in (make_views(tokenizer=tokenizer).prior_prompt(QUESTION), make_views(family).prior_prompt(QUESTION)):
        assert prompt[0] == tokenizer.bos_token_id
        assert prompt.count(tokenizer.bos_token_id) == 1


def test_system_text_and_assistant_prefix_of_the_template(tmp_path: Path) -> None:
    template = own_template(tmp_path, system="Be brief.", assistant_prefix="<think>\n")
    views = make_views("r1-old", template=template)
    text = views.preview(QUESTION, PRIOR).text
    assert text == f"<｜begin▁of▁sentence｜>Be brief.<｜User｜>{TURN}<｜Assistant｜><think>\n"
    assert views.assistant_tail == "<｜Assistant｜><think>\n"


def test_options_are_lettered_to_the_last() -> None:
    question = Question("q", "Which?", "Z", tuple(f"option {index}" for index in range(26)))
    text = make_views().preview(question, POSTERIOR).text
    assert "Which?\nA. option 0\nB. option 1\n" in text
    assert "\nZ. option 25\n\nPlease reason step by step, and put your final letter within" in text
    assert "The final answer is Z." in text


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("Four crates hold 4*12=<<4*12=48>>48 jars.\n48+5=<<48+5=53>>53.\n#### 53", "53"),
        (r"Over 6 we get $\frac36+\frac26=\boxed{\frac{5}{6}}$.", r"\frac{5}{6}"),
        ("Both legs are 3 and 4.\nTherefore, the answer is 5.", "5"),
        (r"\dfrac{1}{2}", r"\dfrac{1}{2}"),
    ],
)
def test_the_note_holds_the_final_answer_and_nothing_of_a_worked_solution(reference: str, answer: str) -> None:
    views = make_views()
    whole, alone = (Question("q", "How many?", text) for text in (reference, answer))
    assert views.posterior_prompt(whole) == views.posterior_prompt(alone)
    assert f"The final answer is {answer}. This is" in views.preview(whole, POSTERIOR).text


def test_the_note_of_a_grader_of_ones_own_holds_the_reference_as_it_is() -> None:
    tokenizer = tiny.make_tokenizer()
    views = Views(tokenizer, ViewsConfig(), [tokenizer.eos_token_id], grader="my.module:grade")
    assert "The final answer is #### 5. This" in views.preview(Question("q", "?", "#### 5"), POSTERIOR).text


def test_the_note_may_hold_another_answer() -> None:
    views = make_views()
    text = views.decode(views.posterior_prompt(QUESTION, answer="15"))
    assert "The final answer is 15." in text
    assert "12" not in text


def test_the_notes_of_the_controls(tmp_path: Path) -> None:
    plain, blind, wrong = (make_views(note=note) for note in ("answer", "none", "wrong"))
    texts = [views.preview(QUESTION, POSTERIOR).text for views in (plain, blind, wrong)]
    assert "The final answer is 12." in texts[0]
    assert "<private_note>\nThis is for your eyes only." in texts[1]
    assert "12" not in texts[1].replace(QUESTION.text, "")
    assert "The final answer is" in texts[2]
    assert "answer is 12." not in texts[2]
    assert len({views.preview(QUESTION, PRIOR).text for views in (plain, blind, wrong)}) == 1
    assert plain.fingerprint == wrong.fingerprint != blind.fingerprint  # views.note itself is a phase's identity
    assert "The final answer is 7." in blind.decode(blind.posterior_prompt(QUESTION, "7"))
    concise = make_views(note="concise")
    text = concise.preview(QUESTION, POSTERIOR).text
    assert text.startswith(concise.preview(QUESTION, PRIOR).text.removesuffix(concise.assistant_tail))
    assert "Be concise" in text
    assert "note" not in text
    assert concise.fingerprint not in (plain.fingerprint, blind.fingerprint)
    own = make_views(template=own_template(tmp_path, note_concise=None), note="concise")
    with pytest.raises(UsageError, match="has no note without an answer") as raised:
        own.posterior_prompt(QUESTION)
    assert "add note_concise to it" in str(raised.value.mend)
    own = make_views(template=own_template(tmp_path, note_without_answer=None), note="none")
    with pytest.raises(UsageError, match="has no note without an answer"):
        own.posterior_prompt(QUESTION)


def test_the_note_of_another_question_is_never_one_with_a_control_token() -> None:
    tokenizer = tiny.make_tokenizer()
    questions = [QUESTION, Question("other", "And this?", "34"), Question("bad", "And that?", tokenizer.eos_token)]
    views = Views(tokenizer, ViewsConfig(note="other"), [tokenizer.eos_token_id], questions=questions)
    assert "The final answer is 34." in views.preview(QUESTION, POSTERIOR).text
    assert "The final answer is 12." in views.preview(questions[1], POSTERIOR).text
    assert "The final answer is 7." in views.decode(views.posterior_prompt(QUESTION, "7"))
    with pytest.raises(UsageError, match="question bad has no note of another question"):
        views.posterior_prompt(questions[2])


def test_a_prefix_whose_ids_depend_on_the_text_before_it_is_refused(tmp_path: Path) -> None:
    text = "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}swer{% endif %}"
    tokenizer = tiny.make_tokenizer("r1", template_text=text)
    assert len(tokenizer(" answer")["input_ids"]) == 1
    views = make_views(tokenizer=tokenizer, template=own_template(tmp_path, prior="{{ question }}"))
    with pytest.raises(UsageError, match="same assistant prefix"):
        views.prior_prompt(Question("q", "the an", "12"))


@pytest.mark.parametrize(
    "question",
    [
        Question("q", "What does <｜User｜> mean?", "12"),
        Question("q", "Close </think> now", "12"),
        Question("q", "Open <think> now", "12"),
        Question("q", "Which?", "A", ("fine", "<｜end▁of▁sentence｜>")),
        Question("q", "Which?", "</think>"),
    ],
)
def test_control_tokens_in_a_question_are_found(question: Question) -> None:
    found = make_views().control_token_in(question)
    assert found is not None
    assert found in "\n".join([question.text, *question.options, question.answer])


def test_markup_that_is_no_control_token_is_not() -> None:
    question = Question("q", "Is <b>1 < 2</b>? <|im_end|> <｜User> < /think >", "12")
    assert make_views().control_token_in(question) is None
    plain = make_views(tokenizer=tiny.make_tokenizer("r1", thinking_tags=False))
    assert plain.control_token_in(Question("q", "Close </think> now", "12")) is None
