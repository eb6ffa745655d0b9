"""The recipes resolve, fit the card that they name, and hold the table that is computed from them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from vpgea.config.resolve import dump_yaml, loads, resolve
from vpgea.config.schema import RunConfig, leaves
from vpgea.errors import UsageError
from vpgea.estimate.hardware import NAMED

ROOT = Path(__file__).parents[3]
RECIPES = {  # parameters as published
    "r1-distill-1.5b": 1_777_088_000,
    "r1-distill-7b": 7_615_616_512,
    "r1-distill-llama-8b": 8_030_261_248,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
}

OTHER_FILES = (
    "template.yaml",
    "site.yaml",
    "experiment.yaml",
    "sound-part.yaml",
    "controls.yaml",
    "gates.yaml",
)  # their own tests read them
CONFIGURATIONS = [path for path in sorted(ROOT.glob("examples/**/*.yaml")) if path.name not in OTHER_FILES]


@pytest.fixture(scope="module")
def recipe_table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recipe_table", ROOT / "examples" / "recipe_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["recipe_table"] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


def recipe(name: str) -> RunConfig:
    return resolve(file=ROOT / "examples" / f"{name}.yaml").config


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: str(path.name))
def test_every_shipped_configuration_resolves(path: Path) -> None:
    resolved = resolve(file=path)
    given = [key for key, origin in resolved.origins.items() if origin.startswith(str(path))]
    assert len(given) > 10
    assert loads(dump_yaml(resolved.config)) == resolved.config


@pytest.mark.parametrize("name", RECIPES)
def test_dimensions_give_the_published_number_of_parameters(recipe_table: ModuleType, name: str) -> None:
    from vpgea.modeling.shape import published_shape

    fields = recipe_table.DIMENSIONS[recipe(name).model.path]
    shape = published_shape(fields, dtype_bytes=2)
    assert shape.parameters == RECIPES[name]
    assert shape.stored_bytes == 2 * RECIPES[name]
    assert shape.kv_bytes_per_token(2) == 2 * fields["num_hidden_layers"] * fields["num_key_value_heads"] * 128 * 2


@pytest.mark.parametrize("name", RECIPES)
def test_tables_in_the_recipe_and_the_docs_are_the_computed_ones(recipe_table: ModuleType, name: str) -> None:
    lines = recipe_table.table(recipe(name))
    comments = (ROOT / "examples" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert [f"#   {line}" for line in lines] == [
        line for line in comments if line.startswith("#   ") and "vpgea loop" not in line
    ]
    docs = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for computed in (lines, recipe_table.longer_paths(recipe(name))):
        assert "\n".join(f"    {line}" for line in computed) in docs


@pytest.mark.parametrize("name", RECIPES)
def test_every_phase_fits_the_card_with_room_for_fragments(recipe_table: ModuleType, name: str) -> None:
    card = NAMED["1x A100 80GB"].memory_bytes
    for phase in recipe_table.estimates(recipe(name), recipe_table.Assumed(), "1x A100 80GB")[:-1]:
        served = recipe(name).rollout.engine == "sglang" and phase.phase != "distill"  # what is left is for its graphs
        assert phase.peak_memory <= (card if served else 0.85 * card), phase.phase


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_train_at_temperature_one_and_measure_as_the_model_card_says(name: str) -> None:
    config = recipe(name)
    assert (config.rollout.temperature, config.rollout.top_p, config.rollout.top_k) == (1.0, 1.0, 0)
    assert (config.eval.temperature, config.eval.top_p) == (0.6, 0.95)
    assert config.model.dtype == "bfloat16"
    thresholds = (config.filter.answerability, config.filter.derivation)
    assert [(check.enabled, check.threshold) for check in thresholds] == [(True, 0.875), (True, 0.5)]


@pytest.mark.parametrize("name", ["r1-distill-1.5b", "r1-distill-7b"])
def test_recipes_for_one_card_or_eight_let_paths_be_long(recipe_table: ModuleType, name: str) -> None:
    config = recipe(name)
    assert (config.rollout.engine, config.model.devices, config.rollout.max_new_tokens) == ("sglang", "auto", 16384)
    assert config.distill.gradient_checkpointing
    assert config.distill.max_tokens_per_batch >= config.views.max_prompt_tokens + config.rollout.max_new_tokens
    one, eight = (recipe_table.estimates(config, recipe_table.Assumed(), card)[-1] for card in list(NAMED)[1:])
    assert eight.seconds == pytest.approx(one.seconds / 8)


@pytest.mark.parametrize("name", RECIPES)
def test_every_choice_of_a_recipe_is_a_known_key_once(name: str) -> None:
    origins = resolve(file=ROOT / "examples" / f"{name}.yaml").origins
    assert set(origins) == {key for key, _ in leaves()}
    assert sum(origin != "default" for origin in origins.values()) >= 30


def test_a_file_of_another_model_is_no_recipe(
    recipe_table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.yaml"
    monkeypatch.setattr(sys, "argv", ["recipe_table.py", str(file)])
    for text, words in (
        ("model: {path: Qwen/Qwen3-4}", r"no dimensions of 'Qwen/Qwen3-4' are known"),
        ("model: {path: Qwen/Qwen3-4B}", r"has no loop\.questions_per_round"),
    ):
        file.write_text(text)
        with pytest.raises(UsageError, match=words):
            recipe_table.main()
