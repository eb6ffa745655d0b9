"""A causal language model as its two parts: a decoder that gives hidden states, and a head that gives logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from vpgea.errors import UsageError
from vpgea.modeling.context import require_one_side
from vpgea.modeling.head import logit_pieces
from vpgea.modeling.logprobs import pad_right, token_logprobs
from vpgea.modeling.packing import pack, packed_attention

Result = TypeVar("Result")
BASE = None  # the name under which a model without its adapter goes
CURRENT = ""  # the adapter that is on

# Relative to the size of the values, by dtype: rounding stays far below, a wrong computation far above.
SAME = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.2}
_PROBE_WINDOW = 4  # tokens: less than the probes have, so that a window that is lost shows in them
# What models call the number of tokens that a layer sees at most: those next to it, or those that it weighs most.
_WINDOWS = ("sliding_window", "keep_window_size", "attention_chunk_size")
_PROBE = ((5, 6, 7, 8, 9, 10, 11), (12, 11, 10, 9, 8))  # ids that every vocabulary has


class Policy(nn.Module):
    """Hidden states of many sequences at once, and logits of a few tokens at a time.

    Args:
        model: A transformers causal language model, plain or with peft adapters.
        packing: Sequences go end to end through the decoder, for which its attention must be `packing.ATTENTION`; else
            they are padded to the longest.
    """

    def __init__(self, model: Any, *, packing: bool) -> None:
        super().__init__()
        from peft.tuners.tuners_utils import BaseTunerLayer

        self.model, self.packing = model, packing
        causal = model.get_base_model() if hasattr(model, "peft_config") else model
        self._scale = _logit_scale(causal.config)
        # not registered a second time: they are inside `model`
        object.__setattr__(self, "causal", causal)
        object.__setattr__(self, "decoder", causal.get_decoder())
        object.__setattr__(self, "head", causal.get_output_embeddings())
        adapted = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
        object.__setattr__(self, "_adapted", adapted)
        object.__setattr__(self, "_adapted_head", [module for module in adapted if module is self.head])

    causal: Any
    decoder: Any
    head: Any
    _adapted: list[Any]
    _adapted_head: list[Any]

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def vocabulary(self) -> int:
        """Columns of the logits."""
        return int(self.causal.config.get_text_config().vocab_size)

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder's layers, in order."""
        return next(module for module in self.decoder.children() if isinstance(module, nn.ModuleList))

    @property
    def head_weights(self) -> list[Tensor]:
        """The head's parameters that are trained: its own, its adapter's, or none."""
        return [parameter for parameter in self.head.parameters() if parameter.requires_grad]

    def forward(
        self, sequences: Sequence[Sequence[int]], starts: Sequence[int], use: Callable[[Tensor], Result]
    ) -> Result:
        """Hidden states (T, H), those that precede each token of `sequences[i][starts[i]:]`, in order, handed to `use`.

        Args:
            sequences: Token ids.
            starts: Of each sequence, at least 1.
            use: What needs the head belongs into it: sharded weights are whole only while a forward pass runs.

        Returns:
            use(hidden).
        """
        require_one_side(self.causal.config, max(map(len, sequences)))
        assert all(1 <= start <= len(sequence) for start, sequence in zip(starts, sequences, strict=True))
        return use(self._packed(sequences, starts) if self.packing else self._padded(sequences, starts))

    def logits(self, hidden: Tensor, *, adapter: str | None = CURRENT) -> Tensor:
        """(T, V), in the model's dtype, as the model itself makes them of hidden (T, H); adapter: if another."""
        with nullcontext() if adapter == CURRENT else _switched(self._adapted_head, adapter):
            return self._scale(self.head(hidden))

    def logprobs(self, sequences: Sequence[Sequence[int]], starts: Sequence[int]) -> Tensor:
        """log pi (T,) in nats, float32 at least, of the tokens of `sequences[i][starts[i]:]`."""
        ends = [torch.as_tensor(ids[start:], dtype=torch.long) for ids, start in zip(sequences, starts, strict=True)]
        targets = torch.cat(ends).to(self.device)

        def measure(hidden: Tensor) -> Tensor:
            pieces = logit_pieces(self.logits, hidden)
            return torch.cat([token_logprobs(logits, targets[rows]) for rows, logits in pieces])

        return self(sequences, starts, measure)

    def _packed(self, sequences: Sequence[Sequence[int]], starts: Sequence[int]) -> Tensor:
        packed = pack(sequences, starts, self.device)
        output = self.decoder(
            input_ids=packed.ids, position_ids=packed.position_ids, use_cache=False, packed=packed.groups
        )
        return output.last_hidden_state[0].index_select(0, packed.before)

    def _padded(self, sequences: Sequence[Sequence[int]], starts: Sequence[int]) -> Tensor:
        ids, mask = pad_right(sequences, self.device)
        hidden = self.decoder(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        rows = zip(hidden, sequences, starts, strict=True)
        return torch.cat([row[start - 1 : len(sequence) - 1] for row, sequence, start in rows])

    @contextmanager
    def adapter(self, name: str | None) -> Iterator[None]:
        """Compute with this adapter, or with none (BASE), while the block runs.

        Unlike peft's own ways it leaves `requires_grad` alone, which sharding reads once, and walks no modules.
        """
        with _switched(self._adapted, name):
            yield


@torch.no_grad()
def completion_logprobs(model: Any, sequences: Sequence[Sequence[int]], starts: Sequence[int]) -> Tensor:
    """log pi (T,) in nats of `sequences[i][starts[i]:]` under a model as it was loaded."""
    return Policy(model, packing=False).logprobs(sequences, starts)


@contextmanager
def _switched(layers: Sequence[Any], adapter: str | None) -> Iterator[None]:
    before = [(layer._active_adapter, layer._disable_adapters) for layer in layers]
    for layer in layers:
        layer._active_adapter, layer._disable_adapters = [adapter], adapter is BASE
    try:
        yield
    finally:
        for layer, (active, disabled) in zip(layers, before, strict=True):
            layer._active_adapter, layer._disable_adapters = active, disabled


@torch.no_grad()
def checked_policy(model: Any, *, packing: bool) -> Policy:
    """The model as a Policy that computes what the model's own forward pass does, seen on two short sequences.

    Raises:
        UsageError: It does not: unknown operations behind its head, or layers that do not keep packed sequences apart.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    policy = Policy(model, packing=packing)
    try:
        with short_windows(model):
            own = torch.cat([model(input_ids=torch.tensor([ids], device=device)).logits[0, :-1] for ids in _PROBE])
            with packed_attention(model) if packing else nullcontext():
                ours = policy(_PROBE, [1] * len(_PROBE), policy.logits)
    except (TypeError, ValueError, AttributeError) as error:  # no attention that can be exchanged, no plain decoder
        if packing:
            raise _no_packing(model, str(error).splitlines()[0]) from error
        raise UsageError(
            f"models of type {model.config.model_type} can neither be scored nor trained",
            why=f"their decoder does not give hidden states as others do: {str(error).splitlines()[0]}",
            mend="use a model whose decoder and head are two parts",
        ) from error
    model.train(was_training)
    difference = largest_difference(ours, own)
    if difference > SAME[own.dtype]:
        if packing:
            raise _no_packing(model, f"logits of packed sequences differ by {difference:.2g} of their size")
        raise UsageError(
            f"models of type {model.config.model_type} cannot be trained",
            why=f"their logits are not the output layer's of the last hidden state: they differ by {difference:.2g}",
            mend="use a model whose head is a linear layer, with or without scaling and soft capping",
        )
    return policy


@contextmanager
def short_windows(model: Any) -> Iterator[None]:
    """Windows of a few tokens while the block runs, wherever a model keeps theirs.

    Some have them in their layers, which packing asks, others in their configuration alone, from which they make a mask
    that packing leaves out: only sequences beyond the window show it, and real windows are thousands of tokens wide.
    """
    places = [model.config.get_text_config(), *model.modules()]
    named = [(place, name, getattr(place, name, None)) for place in places for name in _WINDOWS]
    before = [(place, name, window) for place, name, window in named if isinstance(window, int) and window > 0]
    try:
        for place, name, window in before:
            setattr(place, name, min(window, _PROBE_WINDOW))
        yield
    finally:
        for place, name, window in before:
            setattr(place, name, window)


def largest_difference(found: Tensor, expected: Tensor) -> float:
    """Of logits, relative to the size of the expected ones."""
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))


def _no_packing(model: Any, why: str) -> UsageError:
    return UsageError(
        f"models of type {model.config.model_type} cannot take packed sequences",
        why=why,
        mend="use --set distill.packing=false: sequences are then padded to the longest",
    )


def _logit_scale(config: Any) -> Callable[[Tensor], Tensor]:
    """What some architectures do behind the head: Cohere and Granite scale, Gemma caps."""
    text = config.get_text_config()
    factor, divisor = getattr(text, "logit_scale", None), getattr(text, "logits_scaling", None)
    cap = getattr(text, "final_logit_softcapping", None)
    if cap is not None:
        return lambda logits: torch.tanh(logits / cap) * cap
    if factor is not None:
        return lambda logits: logits * factor
    if divisor is not None:
        return lambda logits: logits / divisor
    return lambda logits: logits
