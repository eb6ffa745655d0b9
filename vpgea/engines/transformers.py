"""The in-process engine: plain transformers on a CPU or one GPU.

Rows of a batch advance together and leave it as they finish, so that a long tail costs little. Every row draws from
its own stream of uniforms, a hash of (seed, step), by inversion of the cumulative distribution: the same seed gives
the same completion in any batch, up to the arithmetic of the model itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vpgea.engines.base import (
    Completion,
    EngineUsage,
    GenerateRequest,
    LogprobsOf,
    OnTokens,
    Sampling,
    ScoreRequest,
    TopLogprobs,
    ignore_tokens,
)
from vpgea.engines.cache import growing_cache, require_cache, require_finite, require_same_cached
from vpgea.engines.crowding import CoreTime
from vpgea.engines.decoding import use_decoding_attention
from vpgea.errors import UsageError
from vpgea.modeling.context import require_one_side
from vpgea.modeling.head import logit_pieces
from vpgea.modeling.logprobs import log_softmax, token_logprobs
from vpgea.modeling.packing import packed_attention
from vpgea.modeling.policy import Policy, checked_policy

_SCORE_TOKENS = 1 << 15  # of one scoring pass over several sequences: no layer keeps anything of them
_CPU_SCORE_TOKENS = 1 << 12  # on a CPU a layer's memory is then used by the next one; larger pieces go to the kernel
LONG_BEGINNING = 512  # ids from which on it is computed once for several ends; shorter ones are packed with others
_SHORT_END = 64  # ids of such an end at most
CPU_LOGITS = 1 << 18  # drawn from at a time on a CPU: they stay in its cache, and no memory goes back to the kernel
_COMPACT_SHARE = 0.125  # drop finished rows once they are this share of the batch: copying the cache is not free


class TransformersEngine:
    """Samples and scores with a loaded causal language model."""

    name = "transformers"
    logprobs_of: LogprobsOf = "sampler"

    def __init__(self, model: Any, *, batch_size: int) -> None:
        require_cache(model)
        use_decoding_attention(model)
        self.model = model.eval()
        require_same_cached(model)
        self._policy = _scoring_policy(model)
        self.device = next(model.parameters()).device
        self.batch_size = self.draws_together = batch_size
        self.usage = EngineUsage()

    def generate(
        self,
        batches: Iterable[Sequence[GenerateRequest]],
        sampling: Sampling,
        on_tokens: OnTokens = ignore_tokens,
    ) -> Iterator[tuple[int, int, Completion]]:
        """See Engine.generate. One batch after the other, so that each is drawn the same way whenever it is drawn."""
        for number, requests in enumerate(batches):
            for index, completion in self._generate(requests, sampling, on_tokens):
                yield number, index, completion

    def _generate(
        self, requests: Sequence[GenerateRequest], sampling: Sampling, on_tokens: OnTokens
    ) -> Iterator[tuple[int, Completion]]:
        """Consecutive requests advance together, so requests that share a prompt belong together."""
        for start in range(0, len(requests), self.batch_size):
            began, cores = time.perf_counter(), CoreTime.now()
            batch = _Batch(self.model, self.device, requests[start : start + self.batch_size], sampling)
            self.usage.prompt_tokens += batch.prefilled_tokens
            self.usage.seconds += time.perf_counter() - began
            while batch.rows.size:
                began = time.perf_counter()
                sampled, finished = batch.step()
                self.usage.sampled_tokens += sampled
                self.usage.seconds += time.perf_counter() - began
                for row, completion in finished:
                    yield start + row, completion
                on_tokens(sampled)
            if self.device.type == "cpu":
                self.usage.trouble = CoreTime.now().trouble_since(cores, torch.get_num_threads())

    def score(self, requests: Sequence[ScoreRequest]) -> list[np.ndarray]:
        """See Engine.score. Several short ends of one long beginning share what is computed of it."""
        results: list[np.ndarray] = [np.empty(0)] * len(requests)
        together = [places for places in _ends_of_one(requests) if len(places) > 1]
        for places in together:
            first = requests[places[0]]
            ends = [list(requests[place].ids[first.start :]) for place in places]
            for place, end in zip(places, self._ends(list(first.ids[: first.start]), ends), strict=True):
                results[place] = end
        alone = sorted(set(range(len(requests))) - {place for places in together for place in places})
        read = self._read(
            [requests[place] for place in alone],
            lambda logits, targets: token_logprobs(logits, targets).float().cpu().numpy(),
        )
        for place, logprobs in zip(alone, read, strict=True):
            results[place] = logprobs
        return results

    @torch.inference_mode()
    def _ends(self, beginning: list[int], ends: list[list[int]]) -> list[np.ndarray]:
        """float32 log-probabilities of each end behind the beginning, which is computed once."""
        began = time.perf_counter()
        cache = growing_cache(self.model)
        ids = torch.tensor([beginning], device=self.device)
        first = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        cache.batch_select_indices(torch.zeros(len(ends), dtype=torch.long, device=self.device))
        logits = first.expand(len(ends), -1, -1)
        if (width := max(map(len, ends)) - 1) > 0:
            rows = torch.tensor([end[:-1] + [0] * (width + 1 - len(end)) for end in ends], device=self.device)
            positions = torch.arange(len(beginning), len(beginning) + width, device=self.device).expand(len(ends), -1)
            more = self.model(input_ids=rows, position_ids=positions, past_key_values=cache, use_cache=True).logits
            logits = torch.cat([logits, more], dim=1)
        targets = [torch.tensor(end, dtype=torch.long, device=self.device) for end in ends]
        found = [
            token_logprobs(row[: len(end)], end).float().cpu().numpy() for row, end in zip(logits, targets, strict=True)
        ]
        self.usage.scored_tokens += sum(map(len, ends))
        self.usage.seconds += time.perf_counter() - began
        return found

    def top_logprobs(self, requests: Sequence[ScoreRequest], k: int) -> list[TopLogprobs]:
        """See Engine.top_logprobs."""

        def largest(logits: Tensor, _: Tensor) -> np.ndarray:
            """float64 (T, 2, k), which holds both log-probabilities and ids."""
            values, ids = log_softmax(logits).topk(k)
            return torch.stack([values.double(), ids.double()], 1).cpu().numpy()

        found = self._read(requests, largest)
        return [TopLogprobs(one[:, 1].astype(np.int32), one[:, 0].astype(np.float32)) for one in found]

    @torch.inference_mode()
    def _read(
        self, requests: Sequence[ScoreRequest], measure: Callable[[Tensor, Tensor], np.ndarray]
    ) -> list[np.ndarray]:
        """What measure(logits (T, V), targets (T,)) gives, (T, ...), cut by request. Similar lengths share a batch."""
        results: list[np.ndarray] = [np.empty(0)] * len(requests)
        order = sorted(range(len(requests)), key=lambda index: len(requests[index].ids), reverse=True)
        policy = self._policy
        lengths = [len(requests[index].ids) for index in order]
        most = score_tokens(on_gpu=self.device.type != "cpu")
        for indices in score_batches(lengths, self.batch_size, most, policy.packing):
            batch = [requests[order[index]] for index in indices]
            began = time.perf_counter()
            targets = torch.tensor(
                [token for request in batch for token in request.ids[request.start :]],
                dtype=torch.long,
                device=self.device,
            )
            with packed_attention(self.model) if policy.packing else nullcontext():
                hidden = policy([request.ids for request in batch], [request.start for request in batch], _same)
            pieces = logit_pieces(policy.logits, hidden)
            measured = np.concatenate([measure(logits, targets[rows]) for rows, logits in pieces])
            sizes = [len(request.ids) - request.start for request in batch]
            for index, part in zip(indices, np.split(measured, np.cumsum(sizes)[:-1]), strict=True):
                results[order[index]] = part
            self.usage.scored_tokens += sum(sizes)
            self.usage.seconds += time.perf_counter() - began
        return results

    def close(self) -> None:
        """Drop the weights."""
        del self.model, self._policy


def _scoring_policy(model: Any) -> Policy:
    """Packed where the model can be. Raises what `checked_policy` does."""
    try:
        return checked_policy(model, packing=True)
    except UsageError:
        return checked_policy(model, packing=False)


def _ends_of_one(requests: Sequence[ScoreRequest]) -> list[list[int]]:
    """Places of the requests that ask for few ids behind the same long beginning."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, request in enumerate(requests):
        length = len(request.ids) - request.start
        if 0 < length <= _SHORT_END and request.start >= LONG_BEGINNING:
            groups.setdefault(tuple(request.ids[: request.start]), []).append(place)
    return list(groups.values())


def score_tokens(*, on_gpu: bool) -> int:
    """How many tokens one scoring pass over several sequences has at most."""
    return _SCORE_TOKENS if on_gpu else _CPU_SCORE_TOKENS


def score_batches(lengths: Sequence[int], batch_size: int, most: int, packing: bool) -> list[range]:
    """Neighbours that are scored together: up to batch_size of them, within `most` tokens, or one by itself.

    lengths: in falling order. Without packing every sequence counts as long as the longest of its batch.
    """
    batches, start, tokens = [], 0, 0
    for index, length in enumerate(lengths):
        tokens += length if packing else lengths[start]
        if index > start and (tokens > most or index - start == batch_size):
            batches.append(range(start, index))
            start, tokens = index, length
    return [*batches, range(start, len(lengths))] if lengths else []


def _same(hidden: Tensor) -> Tensor:
    return hidden


class _Batch:
    """Rows that advance together. `rows` are the request indices still under way, in the order of the cache."""

    def __init__(
        self, model: Any, device: torch.device, requests: Sequence[GenerateRequest], sampling: Sampling
    ) -> None:
        self.model, self.device, self.sampling = model, device, sampling
        caps = [
            sampling.max_new_tokens
            if request.max_new_tokens is None
            else min(sampling.max_new_tokens, request.max_new_tokens)
            for request in requests
        ]
        assert min(caps) >= 1
        pairs = zip(requests, caps, strict=True)
        require_one_side(model.config, max(len(request.prompt_ids) + cap for request, cap in pairs))
        self.caps = np.array(caps)
        self.seeds = np.array([request.seed for request in requests], dtype=np.uint64)
        self.tokens = np.zeros((len(requests), max(caps)), dtype=np.int32)
        self.logprobs = np.zeros((len(requests), max(caps)), dtype=np.float32)
        self.rows = np.arange(len(requests))
        self.live = np.ones(len(requests), dtype=bool)  # by position in the cache; finished rows wait to be dropped
        self.steps = 0
        self._prefill([list(request.prompt_ids) for request in requests], max(caps))

    @torch.inference_mode()
    def _prefill(self, prompts: list[list[int]], cap: int) -> None:
        """Run each distinct prompt once, padded on the left, and repeat its cache for every row that has it."""
        distinct = {tuple(prompt): position for position, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        width = max(len(prompt) for prompt in distinct)
        ids = torch.zeros((len(distinct), width), dtype=torch.long)
        mask = torch.zeros((len(distinct), width + cap), dtype=torch.long)
        for prompt, row in distinct.items():
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        mask = mask.to(self.device)
        positions = (mask[:, :width].cumsum(-1) - 1).clamp(min=0)
        self.cache = growing_cache(self.model)
        logits = self.model(
            input_ids=ids.to(self.device),
            attention_mask=mask[:, :width],
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        repeat = torch.tensor([distinct[tuple(prompt)] for prompt in prompts], device=self.device)
        if len(distinct) < len(prompts):
            self.cache.batch_select_indices(repeat)
        self.width, self.mask, self.logits = width, mask[repeat], logits[repeat]
        self.positions = positions[repeat, -1:]
        self.prefilled_tokens = int(sum(len(prompt) for prompt in distinct))

    @torch.inference_mode()
    def step(self) -> tuple[int, list[tuple[int, Completion]]]:
        """Sample one token for every live row; return their number and what finished."""
        if self.steps > 0:
            self._forward()
        uniforms = uniform_stream(self.seeds[self.rows], self.steps)
        tokens, logprobs = sample(self.logits, uniforms, self.sampling)
        self.tokens[self.rows, self.steps], self.logprobs[self.rows, self.steps] = tokens, logprobs
        self.last, sampled = tokens, int(self.live.sum())
        self.steps += 1
        stopped = np.isin(tokens, self.sampling.stop_ids)
        ended = self.live & (stopped | (self.steps >= self.caps[self.rows]))
        finished = [
            (
                int(self.rows[position]),
                Completion(
                    self.tokens[self.rows[position], : self.steps].copy(),
                    self.logprobs[self.rows[position], : self.steps].copy(),
                    "stop" if stopped[position] else "length",
                ),
            )
            for position in np.flatnonzero(ended)
        ]
        self.live &= ~ended
        self._drop_finished()
        return sampled, finished

    def _forward(self) -> None:
        self.positions = self.positions + 1
        self.logits = self.model(
            input_ids=torch.from_numpy(self.last.astype(np.int64))[:, None].to(self.device),
            attention_mask=self.mask[:, : self.width + self.steps],
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
        ).logits[:, -1]

    def _drop_finished(self) -> None:
        waiting = len(self.live) - int(self.live.sum())
        if waiting == len(self.live):
            self.rows = self.rows[:0]
        elif waiting >= _COMPACT_SHARE * len(self.live):
            keep = np.flatnonzero(self.live)
            index = torch.from_numpy(keep).to(self.device)
            self.cache.batch_select_indices(index)
            self.mask, self.positions = self.mask[index], self.positions[index]
            self.rows, self.last, self.live = self.rows[keep], self.last[keep], self.live[keep]
        # every forward pass grows the mask by the token it feeds
        self.mask[:, self.width + self.steps - 1] = 1


def uniform_stream(seeds: np.ndarray, step: int) -> np.ndarray:
    """float64 (B,) in [0, 1): the step-th uniform of each seed's stream (the splitmix64 finaliser of seed and step).

    seeds: uint64 (B,).
    """
    with np.errstate(over="ignore"):
        z = seeds + np.uint64(step + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def sample(logits: Tensor, uniforms: np.ndarray, sampling: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """Draw one token per row.

    Args:
        logits: (B, V).
        uniforms: float64 (B,).
        sampling: How to sample.

    Returns:
        int32 ids (B,) and float32 log-probabilities (B,) under the sampler.

    Raises:
        EngineError: The logits are not finite.
    """
    count = len(logits) if logits.device.type != "cpu" else max(1, CPU_LOGITS // logits.shape[1])
    parts = [
        _sample(some, uniforms[start : start + count], sampling)
        for start, some in zip(range(0, len(logits), count), logits.split(count), strict=True)
    ]
    return np.concatenate([tokens for tokens, _ in parts]), np.concatenate([logprobs for _, logprobs in parts])


def _sample(logits: Tensor, uniforms: np.ndarray, sampling: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """See sample."""
    wide = logits.float()
    require_finite(wide)
    if sampling.temperature == 0:
        tokens = wide.argmax(-1)
        return tokens.int().cpu().numpy(), token_logprobs(wide, tokens).cpu().numpy()
    logprobs = truncate(wide / sampling.temperature, sampling).log_softmax(-1)
    cumulative = logprobs.double().exp().cumsum(-1)
    thresholds = torch.from_numpy(uniforms).to(cumulative.device)[:, None] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, thresholds, right=True).squeeze(-1)
    return tokens.int().cpu().numpy(), logprobs.gather(-1, tokens[:, None]).squeeze(-1).cpu().numpy()


def truncate(logits: Tensor, sampling: Sampling) -> Tensor:
    """Logits (B, V) with everything outside top-k and the nucleus at -inf, as SGLang and vLLM do it: k, then p."""
    if 0 < sampling.top_k < logits.shape[-1]:
        smallest = logits.topk(sampling.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    if sampling.top_p < 1:
        ordered, order = logits.sort(descending=True)
        probabilities = ordered.softmax(-1)
        outside = probabilities.cumsum(-1) - probabilities >= sampling.top_p
        logits = logits.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), -torch.inf)
    return logits
