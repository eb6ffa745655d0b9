"""Where the thinking of a completion ends, what no thinking is, and where an answer begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.support import tiny
from tests.support.made_views import make_views, own_template
from vpgea.config.schema import ViewsConfig
from vpgea.prompts.views import Views


def test_end_of_thinking_as_one_added_token() -> None:
    views = make_views()
    end = views.tokenizer.get_added_vocab()["</think>"]
    ids = views.encode("so 12.\n</think>\n\nagain </think> 12")
    assert views.thinking_length(ids) == ids.index(end) + 1
    assert ids.count(end) == 2
    assert views.thinking_length(views.encode("so 12.")) is None
    assert views.thinking_length([]) is None
    assert views.end_of_thinking_ids == [end]
    assert views.content_length(ids[: ids.index(end) + 1]) == ids.index(end)
    assert views.content_length(views.encode("so 12.")) == len(views.encode("so 12."))  # it was cut off
    assert views.content_length([end]) == 0


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
    content = views.decode(ids[: views.content_length(ids[:length])])
    assert f"so{before}".startswith(content.rstrip("\ufffd"))
    assert content.startswith("so")


def test_an_end_that_is_merged_with_its_neighbours_is_found() -> None:
    """`.</` and `>\\n\\n` are single tokens in large vocabularies; looking for fixed ids misses them."""
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
    assert views.content_length(ids[:4]) == 1


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
