"""Prompts of both views for the chat templates in the field, and the place where thinking ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.support import tiny
from vpgea.config.schema import ViewsConfig
from vpgea.errors import UsageError
from vpgea.prompts.texts import BUILT_IN, load_template
from vpgea.prompts.views import Views
from vpgea.questions.load import Question
from vpgea.storage.schemas import POSTERIOR, PRIOR

QUESTION = Question("q", "What is 3 times 4?", "12")
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


def make_views(family: str = "r1", *, tokenizer: Any = None, eos_ids: list[int] | None = None, **config: Any) -> Views:
    tokenizer = tokenizer or tiny.make_tokenizer(family)
    return Views(tokenizer, ViewsConfig(**config), eos_ids or [tokenizer.eos_token_id])


def own_template(folder: Path, **changes: Any) -> str:
    """The built-in template with changes, as a user's file; None takes a key away."""
    content = yaml.safe_load((BUILT_IN / "default.yaml").read_text(encoding="utf-8")) | changes
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


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


# --- the end of thinking --------------------------------------------------------------------------------------------


def test_end_of_thinking_as_one_added_token() -> None:
    views = make_views()
    end = views.tokenizer.get_added_vocab()["</think>"]
    ids = views.encode("so 12.\n</think>\n\nagain </think> 12")
    assert views.thinking_length(ids) == ids.index(end) + 1
    assert ids.count(end) == 2
    assert views.thinking_length(views.encode("so 12.")) is None
    assert views.thinking_length([]) is None
    assert views.end_of_thinking_ids == [end]


@pytest.mark.parametrize("before", ["\n", ".", " ", "12", ".\n\n", "é", "😀", "<"])
@pytest.mark.parametrize("after", ["", "\n", "\n\n", " The", ">"])
def test_end_of_thinking_as_several_ids_in_any_context(before: str, after: str) -> None:
    views = make_views(tokenizer=tiny.make_tokenizer("r1", thinking_tags=False))
    assert len(views.end_of_thinking_ids) > 1
    ids = views.encode(f"so{before}</think>{after} and </think>")
    length = views.thinking_length(ids)
    assert length is not None
    assert "</think>" in views.decode(ids[:length])
    assert "</think>" not in views.decode(ids[: length - 1])
    assert views.decode(ids[:length]).startswith(f"so{before}</think>")


def test_an_end_that_is_merged_with_its_neighbours_is_found() -> None:
    """`.</` and `>\\n\\n` are single tokens in large vocabularies; looking for fixed ids misses them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["so", ".</", "think", ">\n\n", "</", ">", "12", "<end>"]
    encoded = [piece.replace("\n", "Ċ") for piece in pieces]
    letters = sorted({letter for piece in encoded[:-1] for letter in piece})
    merges = [("s", "o"), ("<", "/"), (".", "</"), ("t", "h"), ("th", "i"), ("thi", "n"), ("thin", "k")]
    merges += [("Ċ", "Ċ"), (">", "ĊĊ"), ("1", "2")]
    vocabulary = {piece: index for index, piece in enumerate([*letters, "th", "thi", "thin", "ĊĊ", *encoded])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("think", "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), tokenizer.pre_tokenizer]
    )
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", chat_template=tiny.CHAT_TEMPLATES["qwen3"]
    )
    views = make_views(tokenizer=fast)
    ids = views.encode("so.</think>\n\n12")
    assert fast.convert_ids_to_tokens(ids) == ["so", ".</", "think", ">ĊĊ", "12"]
    assert views.thinking_length(ids) == 4


@pytest.mark.parametrize(
    "views",
    [
        make_views(end_of_thinking=None),
        make_views("qwen3", chat_template_kwargs={"enable_thinking": False}),
    ],
    ids=["no end of thinking", "closed by the prompt"],
)
def test_without_thinking_all_of_the_completion_is_answer(views: Views) -> None:
    assert not views.thinks
    assert views.thinking_length(views.encode("\\boxed{12}")) == 0
    assert views.empty_thinking_ids == []
    assert views.end_of_thinking_ids == []


@pytest.mark.parametrize(
    ("family", "expected"),
    [("r1", "</think>"), ("r1-old", "<think>\n\n</think>"), ("qwen3", "<think>\n\n</think>")],
)
def test_empty_thinking(family: str, expected: str) -> None:
    views = make_views(family)
    assert views.empty_thinking_ids == views.encode(expected)
    assert views.thinking_length(views.empty_thinking_ids) == len(views.empty_thinking_ids)


def test_empty_thinking_of_the_template(tmp_path: Path) -> None:
    views = make_views(template=own_template(tmp_path, empty_thinking="\n</think>\n\n"))
    assert views.empty_thinking_ids == views.encode("\n</think>\n\n")


def test_several_end_ids_all_stop_and_keep_their_order() -> None:
    assert make_views(eos_ids=[457, 3, 457, 5]).stop_ids == (457, 3, 5)


def test_tokens_before_an_offset() -> None:
    views = make_views()
    text = "3 times 4 is 12, é 😀 is 12."
    ids = views.encode(text)
    for offset in range(len(text)):
        count = views.tokens_before(ids, offset)
        assert len(views.decode(ids[:count])) <= offset
        assert len(views.decode(ids[: count + 1])) > offset
    assert views.tokens_before(ids, len(text)) == len(ids)


def test_answer_ids_follow_the_cue_as_the_text_would() -> None:
    views = make_views()
    whole = views.encode(views.template.answer_cue + "12" + views.template.answer_close)
    assert views.answer_cue_ids + views.answer_ids("12") == whole


@pytest.fixture(scope="module")
def merging() -> Any:
    r"""A byte-level tokenizer in whose vocabulary `{\\` and `{-` are tokens, split as Qwen2's."""
    split = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    built = Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated"), byte_level])
    built.decoder = decoders.ByteLevel()
    texts = [r"so \boxed{\frac{3}{4}} and \boxed{-5}. The final answer is \boxed{\sqrt{2}}, \boxed{12}."] * 50
    alphabet = byte_level.alphabet()
    built.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    made = PreTrainedTokenizerFast(tokenizer_object=built, eos_token="!", clean_up_tokenization_spaces=False)
    made.chat_template = tiny.make_tokenizer("r1").chat_template
    return made


ANSWERS = ("42", "-5", r"\frac{3}{4}", r"\sqrt{2}", "x+1", "(1,2)", r"\{1, 2\}", "π", " 7", "$3$")


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_is_scored_in_the_ids_in_which_a_model_would_write_it(merging: Any, answer: str) -> None:
    r"""The cue ends in `{`, which makes one token with what begins many answers."""
    views = make_views(tokenizer=merging)
    template = views.template
    whole = views.encode(template.answer_cue + answer + template.answer_close)
    assert views.answer_cue_ids + views.answer_ids(answer) == whole
    assert len(views.encode(template.answer_cue)) - len(views.answer_cue_ids) == 1  # the brace


# --- questions that spell control tokens ----------------------------------------------------------------------------


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


# --- templates ------------------------------------------------------------------------------------------------------


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


def test_a_model_of_which_nothing_knows_the_end_of_thinking_is_told_before_anything_is_sampled() -> None:
    """Where it is an added token, stands in a template, or was chosen, there is nothing to say."""
    tokenizer = tiny.make_tokenizer("qwen3")
    assert Views(tokenizer, ViewsConfig(), [2]).remarks == []
    tokenizer.chat_template = tokenizer.chat_template.replace("</think>", "")
    unknowing = Words(tokenizer)
    [remark] = Views(unknowing, ViewsConfig(), [2]).remarks
    assert "</think>" in remark
    assert "views.end_of_thinking" in remark
    assert "rollout.posterior_samples=0" in remark
    assert Views(unknowing, ViewsConfig(end_of_thinking="."), [2]).remarks == []
    assert Views(unknowing, ViewsConfig(end_of_thinking=None), [2]).remarks == []


class Words:
    """A tokenizer without added tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def get_added_vocab(self) -> dict[str, int]:
        return {}


def test_an_end_without_tags_is_its_own_empty_thinking_and_is_shown_on_one_line() -> None:
    views = make_views(end_of_thinking="\n\n")
    assert views.decode(views.empty_thinking_ids) == "\n\n"
    assert views.end_shown == r"'\n\n'"
    assert make_views().end_shown == "</think>"
