"""Estimates against what torch, transformers and peft really do with small models."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import tiny
from vpgea.config.resolve import resolve
from vpgea.config.schema import LoopConfig, ModelConfig, RunConfig
from vpgea.config.training import LoraConfig
from vpgea.errors import UsageError
from vpgea.estimate import hardware
from vpgea.estimate.estimator import Estimator
from vpgea.estimate.hardware import NAMED, Hardware
from vpgea.estimate.phase_estimate import whole_run
from vpgea.filtering.cost import Lengths, Paths, RolloutLengths
from vpgea.modeling.local_model import LocalModel
from vpgea.modeling.shape import ModelShape, published_shape, read_shape, shape_of
from vpgea.modeling.weight_files import read_tensors

MACHINE = Hardware(name="test", flops=1e12, bandwidth=1e11, overhead_s=0.0, memory_bytes=10**9)
FIELDS: dict[str, Any] = {
    "model_type": "qwen2",
    "vocab_size": 96,
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("shape"))


def qwen2(tie: bool = False) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    given = {key: value for key, value in FIELDS.items() if key != "model_type"}
    return Qwen2ForCausalLM(Qwen2Config(**given, tie_word_embeddings=tie)).eval()


def config_of(**dotted: Any) -> RunConfig:
    options = {"model.device": "cpu", "model.dtype": "float32"}
    return resolve(options=options | {key.replace("__", "."): value for key, value in dotted.items()}).config


def lengths(*values: int) -> Lengths:
    return np.array(values, dtype=np.int64)


# --- the model ------------------------------------------------------------------------------------------------------


def test_headers_give_the_dimensions_without_the_weights(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_bytes((folder / "config.json").read_bytes())
    whole = (folder / "model.safetensors").read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    (bare / "model.safetensors").write_bytes(whole[:end])
    os.truncate(bare / "model.safetensors", len(whole))  # a hole where the weights were
    shape = read_shape(LocalModel.resolve(ModelConfig(path=str(bare))))
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert shape.matmul_parameters == shape.parameters - model.get_input_embeddings().weight.numel()
    assert shape.stored_bytes == len(whole) - end
    assert (shape.layers, shape.hidden, shape.heads, shape.kv_heads, shape.head_dim) == (2, 32, 4, 2, 8)
    assert shape.vocabulary == model.config.vocab_size


def test_sharded_weights_are_read_through_their_index(tmp_path: Path) -> None:
    model = qwen2()
    model.save_pretrained(tmp_path, max_shard_size="1MB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    tensors = read_tensors(tmp_path).values()
    assert {name: tensor.shape for name, tensor in read_tensors(tmp_path).items()} == {
        name: tuple(value.shape) for name, value in model.state_dict().items()
    }
    assert sum(tensor.size for tensor in tensors) == sum(value.numel() * 4 for value in model.state_dict().values())


@pytest.mark.parametrize("tie", [False, True])
def test_published_dimensions_give_the_same_shape_as_the_model(tie: bool) -> None:
    model = qwen2(tie)
    named = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    shape = published_shape({**FIELDS, "tie_word_embeddings": tie}, dtype_bytes=4)
    assert shape == shape_of(model.config, named, shape.stored_bytes)
    looked_up = 0 if tie else model.get_input_embeddings().weight.numel()
    assert shape.parameters - shape.matmul_parameters == looked_up


def test_a_damaged_header_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(UsageError, match="damaged weights"):
        read_shape(LocalModel.resolve(ModelConfig(path=str(tmp_path))))


@pytest.mark.parametrize("targets", [["all-linear"], ["q_proj", "v_proj"]])
def test_lora_parameters_are_those_of_peft(targets: list[str]) -> None:
    import peft

    model = qwen2()
    shape = published_shape({**FIELDS, "tie_word_embeddings": False}, dtype_bytes=4)
    wanted: Any = "all-linear" if targets == ["all-linear"] else targets
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=5, target_modules=wanted))
    trainable = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert shape.lora_parameters(LoraConfig(rank=5, targets=targets)) == trainable


# --- arithmetic and memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [16, 512])
def test_flops_are_those_that_torch_counts(tokens: int) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = qwen2()
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(input_ids=torch.zeros((1, tokens), dtype=torch.long))
    estimator = Estimator(config_of(), shape_of_model(model), MACHINE)
    # torch counts the masked half of the attention too: as much as a second path's from 0 context to `tokens`
    masked = estimator.flops(lengths(0), lengths(tokens)) - 2 * estimator.shape.matmul_parameters * tokens
    assert estimator.flops(lengths(0), lengths(tokens)) + masked == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_flops_of_a_prompt_and_its_continuation_add_up() -> None:
    estimator = Estimator(config_of(), shape_of_model(qwen2()), MACHINE)
    start, end = lengths(10, 3), lengths(40, 50)
    parts = estimator.flops(np.zeros_like(start), start) + estimator.flops(start, end)
    assert parts == pytest.approx(estimator.flops(np.zeros_like(end), end))


def test_the_cache_has_the_bytes_that_transformers_keeps() -> None:
    from transformers import DynamicCache

    model, cache = qwen2(), DynamicCache()
    with torch.inference_mode():
        model(input_ids=torch.zeros((2, 7), dtype=torch.long), past_key_values=cache)
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert kept == 14 * shape_of_model(model).kv_bytes_per_token(4)


@pytest.mark.parametrize(
    ("train", "dtype", "targets", "most"),
    [
        ("full", "float32", ["all-linear"], 1.1),
        ("full", "bfloat16", ["all-linear"], 1.1),
        ("lora", "float32", ["all-linear"], 1.2),
        ("lora", "bfloat16", ["all-linear"], 1.3),
        ("lora", "bfloat16", ["q_proj", "v_proj"], 1.5),
    ],
)
def test_activations_are_those_that_autograd_keeps(train: str, dtype: str, targets: list[str], most: float) -> None:
    import peft

    model = qwen2()
    shape = shape_of_model(model)
    config = config_of(model__dtype=dtype, distill__train=train, distill__lora__targets=targets)
    if train == "lora":
        wanted: Any = "all-linear" if targets == ["all-linear"] else targets
        adapted = peft.get_peft_model(model.to(getattr(torch, dtype)), peft.LoraConfig(r=8, target_modules=wanted))
        inner = adapted.get_base_model().model
    else:
        inner = model.model
    kept = saved_bytes(inner, tokens=768, autocast=train == "full" and dtype == "bfloat16") / 768 / shape.layers
    estimated = Estimator(config, shape, MACHINE).saved_bytes_per_token()
    assert 0.97 * kept <= estimated <= most * kept


def saved_bytes(model: Any, tokens: int, autocast: bool) -> int:
    """Bytes that a forward pass keeps for the backward pass; the parameters' own and their casts do not count."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    sizes = {tuple(parameter.shape) for parameter in model.parameters()}
    transposed = {size[::-1] for size in sizes}
    kept: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        own = tuple(tensor.shape) in sizes | transposed or tensor.untyped_storage().data_ptr() in parameters
        if not own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast),
    ):
        model(input_ids=torch.zeros((1, tokens), dtype=torch.long), use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def shape_of_model(model: Any) -> ModelShape:
    named = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    return shape_of(model.config, named, 0)


# --- phases ---------------------------------------------------------------------------------------------------------


def test_a_rollout_is_bounded_by_its_caps() -> None:
    config = config_of(rollout__prior_samples=3, rollout__posterior_samples=2, rollout__max_new_tokens=100)
    estimator = Estimator(config, shape_of_model(qwen2()), MACHINE)
    upper = estimator.rollout(lengths(10, 20), lengths(30, 50))
    assert upper.sampled_tokens == 2 * (3 + 2) * 100
    assert upper.processed_tokens == 10 + 20 + 30 + 50
    shorter = estimator.rollout(lengths(10, 20), lengths(30, 50), 40, 20)
    assert shorter.sampled_tokens == 2 * (3 * 40 + 2 * 20)
    assert shorter.flops < upper.flops
    assert shorter.disk_bytes < upper.disk_bytes
    assert shorter.memory == upper.memory, "the longest completion still reaches the cap"


def test_one_view_alone_costs_nothing_for_the_other() -> None:
    config = config_of(rollout__prior_samples=0, rollout__posterior_samples=2, rollout__max_new_tokens=10)
    estimate = Estimator(config, shape_of_model(qwen2()), MACHINE).rollout(lengths(10), lengths(30))
    assert (estimate.sampled_tokens, estimate.processed_tokens) == (20, 30)


def test_time_follows_the_slower_of_multiplying_and_moving_and_the_overhead() -> None:
    config, shape = config_of(rollout__max_new_tokens=50), shape_of_model(qwen2())
    prompts = lengths(10, 20)

    def seconds(**rates: float) -> float:
        infinite = Hardware(name="x", flops=1e30, bandwidth=1e30, overhead_s=0.0, memory_bytes=1)
        machine = replace(infinite, **rates)  # type: ignore[arg-type]
        return Estimator(config, shape, machine).rollout(prompts, prompts).seconds

    work = Estimator(config, shape, MACHINE).rollout(prompts, prompts)
    assert seconds(flops=1e9) == pytest.approx(work.flops / 1e9)
    assert seconds(bandwidth=1e9) >= shape.matmul_parameters * 4 * 50 / 1e9
    assert seconds(overhead_s=1.0) == pytest.approx(shape.layers * (50 + 1))  # one batch: 50 steps and the prompts
    assert seconds() < 1e-6


def test_every_check_of_the_filter_is_counted() -> None:
    shape = shape_of_model(qwen2())
    prior, posterior = Paths(lengths(10, 10), lengths(90, 80)), Paths(lengths(10, 10), lengths(50, 40))
    noted = Paths(lengths(30, 30), lengths(50, 40))
    known = RolloutLengths(
        prompts=lengths(10),
        prior=prior,
        posterior=posterior,
        candidates=posterior,
        noted_prior=Paths(lengths(30, 30), lengths(90, 80)),
        noted_posterior=noted,
        noted_candidates=noted,
        completion_tokens=260,
    )

    def sampled(answer_tokens: float | None = None, **dotted: Any) -> int:
        return Estimator(config_of(**dotted), shape, MACHINE).filter(known, answer_tokens).sampled_tokens

    off: dict[str, Any] = {"filter__answerability__enabled": False, "filter__derivation__enabled": False}
    assert sampled(**off) == 0
    answerability = {**off, "filter__answerability__enabled": True}
    assert sampled(**answerability) == (2 + 1) * 8 * 512  # two paths, and the question without thinking
    assert sampled(**answerability, answer_tokens=12) == (2 + 1) * 8 * 12
    assert sampled(**answerability, filter__early_exits=True) == (2 * 4 + 1) * 8 * 512
    assert sampled(**{**off, "filter__derivation__enabled": True}) == 2 * 4 * (16 + 16)


def test_training_all_weights_costs_more_than_an_adapter() -> None:
    shape = shape_of_model(qwen2())
    paths, prompts = Paths(lengths(10, 10), lengths(90, 80)), lengths(30, 30)

    def cost(**dotted: Any) -> Any:
        return Estimator(config_of(**dotted), shape, MACHINE).distill(paths, paths, prompts)

    full, lora = cost(distill__train="full"), cost(distill__train="lora")
    assert full.memory["gradients and optimiser"] == 16 * shape.parameters
    assert full.memory["weights"] == 4 * shape.parameters, "the frozen reference"
    assert lora.memory["weights"] == 4 * shape.parameters
    assert lora.flops < full.flops
    assert lora.disk_bytes < full.disk_bytes
    assert lora.trained_tokens == full.trained_tokens == 2 * 170
    assert cost(distill__epochs=2).trained_tokens == 4 * 170
    assert cost(distill__kl_form="dense-cv").flops > lora.flops
    assert cost(distill__reference_weight=0.0).memory["logits"] < lora.memory["logits"]


def test_a_run_is_the_sum_of_its_rounds() -> None:
    config = config_of(rollout__max_new_tokens=64, eval__max_new_tokens=32)
    estimator = Estimator(config, shape_of_model(qwen2()), MACHINE)
    phases, evaluation = estimator.round(lengths(10, 20), lengths(30, 40)), estimator.evaluation(lengths(15))
    whole = whole_run(phases, evaluation, LoopConfig(rounds=3))
    stays = sum(phase.disk_bytes - phase.scratch_bytes for phase in phases)
    evaluated = evaluation.disk_bytes - evaluation.scratch_bytes
    assert whole.disk_bytes == 3 * stays + 4 * evaluated + max(phase.scratch_bytes for phase in (*phases, evaluation))
    assert [phase.phase for phase in phases] == ["rollout", "filter", "distill"]
    assert whole.seconds == pytest.approx(3 * sum(phase.seconds for phase in phases) + 4 * evaluation.seconds)
    seldom = whole_run(phases, evaluation, LoopConfig(rounds=5, eval_every=3))  # the base, rounds 2 and 4
    assert seldom.seconds == pytest.approx(5 * sum(phase.seconds for phase in phases) + 3 * evaluation.seconds)
    assert whole.peak_memory == max(phase.peak_memory for phase in [*phases, evaluation])
    assert evaluation.sampled_tokens == 32


# --- machines -------------------------------------------------------------------------------------------------------


def test_this_machine_is_measured() -> None:
    machine = hardware.measure(torch.device("cpu"), torch.float32)
    assert machine.flops > 1e8
    assert machine.bandwidth > 1e8
    assert machine.memory_bytes > 10**8


def test_eight_cards_share_everything() -> None:
    shape, prompts = shape_of_model(qwen2()), lengths(10, 20)
    one, eight = (
        Estimator(config_of(), shape, NAMED[name]).round(prompts, prompts) for name in ("1x H100 80GB", "8x H100 80GB")
    )
    factors = [a.seconds / b.seconds for a, b in zip(one, eight, strict=True)]
    assert factors == pytest.approx([8, 8, 8])
