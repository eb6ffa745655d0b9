"""What is published beside trained weights renders the same prompts, whichever folder's files were used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import tiny
from vpgea.config.schema import ModelConfig, ViewsConfig
from vpgea.modeling.local_model import LocalModel
from vpgea.modeling.tokenizer_files import copy_tokenizer
from vpgea.prompts.views import load_views
from vpgea.storage.files import read_json

TEMPLATE = "{% for message in messages %}[{{ message.content }}]{% endfor %}<think>\n"


def local(folder: Path, adapter: Path | None) -> LocalModel:
    return LocalModel(config=ModelConfig(path=str(folder)), folder=folder, adapter=adapter)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    tiny.make_tokenizer("r1").save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 400, "eos_token_id": None}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 1}))
    return folder


@pytest.mark.parametrize("brings", ["nothing", "template", "template in the settings", "tokenizer", "vocabulary alone"])
def test_the_next_round_has_the_prompts_of_the_one_before(base: Path, tmp_path: Path, brings: str) -> None:
    adapter, published = tmp_path / "adapter", tmp_path / "published"
    adapter.mkdir()
    published.mkdir()
    if brings == "template":
        (adapter / "chat_template.jinja").write_text(TEMPLATE)
    elif brings == "template in the settings":
        (adapter / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    elif brings != "nothing":
        tiny.make_tokenizer("qwen3-thinking").save_pretrained(adapter)
        if brings == "vocabulary alone":
            (adapter / "chat_template.jinja").unlink()
    before = load_views(local(base, adapter), ViewsConfig())
    copy_tokenizer(base, adapter, published)
    assert load_views(local(base, published), ViewsConfig()).fingerprint == before.fingerprint


def test_sampling_goes_on_to_stop_at_the_ends_of_both(base: Path, tmp_path: Path) -> None:
    adapter, published = tmp_path / "adapter", tmp_path / "published"
    for folder in (adapter, published):
        folder.mkdir()
    (adapter / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 3], "top_k": 7}))
    copy_tokenizer(base, adapter, published)
    assert read_json(published / "generation_config.json") == {"eos_token_id": [2, 3, 1], "top_k": 7}
    copy_tokenizer(base, None, published)
    assert (published / "generation_config.json").read_bytes() == (base / "generation_config.json").read_bytes()
