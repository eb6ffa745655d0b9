"""Tokenizers are read as their files say, keep spaces and line breaks, and an adapter's own goes before the base's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import AutoTokenizer

from tests.support import tiny
from tests.support.model_files import edit
from vpgea.config.schema import ModelConfig, ViewsConfig
from vpgea.errors import UsageError
from vpgea.modeling.local_model import LocalModel
from vpgea.prompts.views import Views, load_views
from vpgea.questions.load import Question
from vpgea.storage.schemas import PRIOR

QUESTION = Question("q", "What is 1234 plus 56?\n\nShow  every step, é.", "1290")
CLASSES = ["LlamaTokenizerFast", "LlamaTokenizer", "Qwen2Tokenizer", "PreTrainedTokenizerFast", None]


def folder_with(folder: Path, tokenizer: Any, *, model_type: str = "llama", declared: str | None = None) -> Path:
    """What a tokenizer is read from: its files and a config.json, no weights."""
    tokenizer.save_pretrained(folder)
    edit(folder / "tokenizer_config.json", tokenizer_class=declared)
    fields = {"model_type": model_type, "vocab_size": len(tokenizer), "eos_token_id": None}
    (folder / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    return folder


def views_of(folder: Path, adapter: Path | None = None) -> Views:
    model = LocalModel(config=ModelConfig(path=str(folder)), folder=folder, adapter=adapter)
    return load_views(model, ViewsConfig())


@pytest.mark.parametrize("model_type", ["llama", "qwen2"])
@pytest.mark.parametrize("declared", CLASSES)
def test_ids_are_those_of_the_file_whatever_class_is_declared(
    tmp_path: Path, model_type: str, declared: str | None
) -> None:
    folder = folder_with(tmp_path, tiny.make_tokenizer(), model_type=model_type, declared=declared)
    stored = Tokenizer.from_file(str(folder / "tokenizer.json"))
    views = views_of(folder)
    shown = views.preview(QUESTION, PRIOR)
    assert QUESTION.text in shown.text, "a preview shows what the model reads"
    assert stored.encode(shown.text, add_special_tokens=False).ids == shown.ids
    assert views.decode(stored.encode("So  12.\n\n3 é").ids) == "So  12.\n\n3 é"


def test_a_class_that_would_lose_every_space_is_not_taken(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, tiny.make_tokenizer(), declared="LlamaTokenizerFast")
    broken = AutoTokenizer.from_pretrained(folder)
    assert "What is" not in broken.decode(broken("What is it")["input_ids"]), "else nothing is shown here"
    views = views_of(folder)
    assert views.decode(views.encode("What is it")) == "What is it"
    assert views.remarks == [], "what is read rightly needs no word"


def test_what_was_begun_in_the_declared_class_goes_on_in_it_unless_that_one_loses_spaces(tmp_path: Path) -> None:
    for declared, model_type in (("Qwen2Tokenizer", "qwen2"), ("LlamaTokenizerFast", "llama")):
        folder = folder_with(tmp_path / model_type, tiny.make_tokenizer(), model_type=model_type, declared=declared)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        earlier = Views(tokenizer, ViewsConfig(), [tokenizer.eos_token_id])
        model = LocalModel(config=ModelConfig(path=str(folder)), folder=folder, adapter=None)
        now, continued = (
            load_views(model, ViewsConfig(), begun=begun) for begun in (None, {"template": earlier.fingerprint})
        )
        assert now.fingerprint != earlier.fingerprint
        goes_on = declared == "Qwen2Tokenizer"
        assert (continued.fingerprint == earlier.fingerprint) == goes_on
        assert (continued.prior_prompt(QUESTION) == earlier.prior_prompt(QUESTION)) == goes_on


def test_a_file_that_loses_spaces_by_itself_is_refused(tmp_path: Path) -> None:
    tokenizer = tiny.make_tokenizer()
    tokenizer.backend_tokenizer.decoder = decoders.Replace("Ġ", "")
    folder = folder_with(tmp_path, tokenizer, declared="PreTrainedTokenizerFast")
    with pytest.raises(UsageError, match="cannot be loaded") as error:
        views_of(folder)
    assert "spaces or line breaks are lost" in error.value.why


def test_words_that_a_vocabulary_cannot_spell_say_nothing_of_its_spaces(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"?": 0, "so": 1, "12": 2, "<end>": 3}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="?", eos_token="<end>", chat_template=tiny.CHAT_TEMPLATES["qwen3"]
    )
    assert views_of(folder_with(tmp_path, tokenizer)).encode("so 12") == [1, 2]


def test_template_and_tokenizer_beside_an_adapter_go_before_the_base_s(tmp_path: Path) -> None:
    base = folder_with(tmp_path / "base", tiny.make_tokenizer("qwen3"))
    adapter = tmp_path / "adapter"
    tiny.make_tokenizer("qwen3-thinking").save_pretrained(adapter)
    views = views_of(base, adapter)
    assert views.assistant_tail.endswith("<|im_start|>assistant\n<think>\n")
    assert [remark for remark in views.remarks if "chat template beside the adapter" in remark]
    (base / "chat_template.jinja").unlink()
    assert views_of(base, adapter).assistant_tail == views.assistant_tail, "a base need not bring a template then"
    (adapter / "tokenizer.json").unlink()
    assert views_of(base, adapter).assistant_tail == views.assistant_tail


def test_an_adapter_whose_files_are_the_base_s_changes_nothing(tmp_path: Path) -> None:
    base = folder_with(tmp_path / "base", tiny.make_tokenizer(), declared="LlamaTokenizerFast")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (adapter / name).write_bytes((base / name).read_bytes())
    assert views_of(base, adapter).fingerprint == views_of(base).fingerprint
    assert views_of(base, adapter).remarks == views_of(base).remarks


def test_a_prompt_with_ids_beyond_the_embedding_is_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, tiny.make_tokenizer())
    edit(folder / "config.json", vocab_size=len(tiny.make_tokenizer()) - 2)  # without the tags of the thinking
    with pytest.raises(UsageError, match="ids that the model does not have"):
        views_of(folder).prior_prompt(QUESTION)


def test_files_are_read_once_in_a_process_until_one_of_them_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []

    def read(folder: Path, known: Any = AutoTokenizer.from_pretrained, **options: Any) -> Any:
        reads.append(folder)
        return known(folder, **options)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", read)
    base = folder_with(tmp_path / "base", tiny.make_tokenizer("qwen3"))
    adapter = tmp_path / "adapter"
    tiny.make_tokenizer("qwen3-thinking").save_pretrained(adapter)
    (adapter / "tokenizer.json").unlink()  # a template alone
    plain, adapted, again = views_of(base), views_of(base, adapter), views_of(base)
    assert reads == [base]
    assert plain.assistant_tail == again.assistant_tail != adapted.assistant_tail
    edit(base / "tokenizer_config.json", bos_token="<|im_start|>")
    assert views_of(base).tokenizer.bos_token == "<|im_start|>"
    assert reads == [base] * 2
