"""What the device computes: against the CPU, bfloat16 against float32, packed against alone, cached against whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.gpu.places import DEVICE
from tests.support import overthinker
from tests.support.models import causal_model
from tests.unit.engines.test_cache import ARCHITECTURES, small_model
from vpgea.engines.base import GenerateRequest, Sampling, ScoreRequest
from vpgea.engines.sglang.weights.establish import CANARY_TOLERANCE
from vpgea.engines.transformers import TransformersEngine
from vpgea.modeling.packing import packed_attention
from vpgea.modeling.policy import checked_policy, completion_logprobs

pytestmark = pytest.mark.gpu
CLOSE = 1e-3  # nats: float32, other kernels
LENGTHS = (9, 120, 33, 2, 121, 64)


def model_in(dtype: str, device: str = DEVICE) -> Any:
    return causal_model(overthinker.config(model__device=device, model__dtype=dtype).model)


@pytest.fixture(scope="module")
def sequences() -> tuple[list[list[int]], list[int]]:
    """Ids that the testbed's vocabulary has, and where each is wanted from."""
    rng = np.random.default_rng(0)
    vocabulary = model_in("float32", "cpu").config.vocab_size
    return [rng.integers(0, vocabulary, length).tolist() for length in LENGTHS], [max(1, n // 3) for n in LENGTHS]


@pytest.fixture(scope="module")
def expected(sequences: tuple[list[list[int]], list[int]]) -> Tensor:
    """Log-probabilities on the CPU in float64."""
    return completion_logprobs(model_in("float32", "cpu").double(), *sequences)


def test_float32_gives_what_the_cpu_gives(sequences: tuple[list[list[int]], list[int]], expected: Tensor) -> None:
    model = model_in("float32")
    assert next(model.parameters()).device.type == DEVICE
    found = completion_logprobs(model, *sequences)
    assert found.device.type == DEVICE
    torch.testing.assert_close(found.cpu().double(), expected, atol=CLOSE, rtol=0)


def test_bfloat16_stays_within_its_tolerance_of_float32(
    sequences: tuple[list[list[int]], list[int]], expected: Tensor
) -> None:
    difference = (completion_logprobs(model_in("bfloat16"), *sequences).cpu().double() - expected).abs()
    assert difference.max() < CANARY_TOLERANCE["bfloat16"]
    assert difference.mean() < 0.05
    assert difference.max() > 0, "it is another dtype"


@pytest.mark.parametrize(("dtype", "close"), [("float32", CLOSE), ("bfloat16", CANARY_TOLERANCE["bfloat16"])])
def test_packed_sequences_give_what_each_gives_alone(
    dtype: str, close: float, sequences: tuple[list[list[int]], list[int]]
) -> None:
    """Log-probabilities, and in float32 the gradients of their sum."""
    model = model_in(dtype)
    packed = checked_policy(model, packing=True)
    with packed_attention(model):
        together = packed.logprobs(*sequences)
        together.sum().backward()
    gradients = _gradients(model)
    apart = checked_policy(model, packing=False)
    alone = torch.cat([apart.logprobs([ids], [start]) for ids, start in zip(*sequences, strict=True)])
    alone.sum().backward()
    torch.testing.assert_close(together, alone, atol=close, rtol=0)
    if dtype == "float32":
        for name, one in _gradients(model).items():
            assert (gradients[name] - one).abs().max() <= 1e-3 * one.abs().max() + 1e-6, name


def _gradients(model: Any) -> dict[str, Tensor]:
    """Of every parameter, which are then forgotten."""
    found = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
    model.zero_grad(set_to_none=True)
    assert found
    return found


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_drawn_with_a_cache_is_scored_alike_without(name: str) -> None:
    engine = TransformersEngine(small_model(name).to(DEVICE), batch_size=16)
    prompts = [[5, 6, 7], [9, 8, 7, 6, 5, 4, 3, 5, 8], [11]]
    requests = [GenerateRequest(prompts[seed % 3], seed, 20 + 7 * seed) for seed in range(8)]
    drawn = [found for _, found in _drawn(engine, requests)]
    again = [found for _, found in _drawn(engine, requests)]
    assert [one.ids.tolist() for one in drawn] == [one.ids.tolist() for one in again], "the seeds decide"
    pairs = list(zip(requests, drawn, strict=True))
    scored = engine.score(
        [ScoreRequest([*asked.prompt_ids, *one.ids.tolist()], len(asked.prompt_ids)) for asked, one in pairs]
    )
    for (_, one), scores in zip(pairs, scored, strict=True):
        np.testing.assert_allclose(one.logprobs, scores, atol=CLOSE)


def _drawn(engine: TransformersEngine, requests: list[GenerateRequest]) -> list[tuple[int, Any]]:
    sampling = Sampling(max_new_tokens=80, stop_ids=())
    return sorted(((index, one) for _, index, one in engine.generate([requests], sampling)), key=lambda pair: pair[0])
