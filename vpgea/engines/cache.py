"""Keys and values of the rows that a batch advances, in buffers with room ahead: no token copies what stands before it.

transformers' own growing cache joins all keys and values anew at every token; its static one computes over room that
is still empty.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from vpgea.errors import EngineError, UsageError
from vpgea.modeling.policy import SAME, largest_difference, short_windows

_ROOM = 64  # tokens that a new buffer has ahead at least
# Ids that every vocabulary has. They come again and again, so that a choice among keys has equals to choose from.
_PROBE, _PROBE_START = (5, 6, 7, 8, 9) * 5, 19
_CHOSEN = "keep_window_size"  # of a configuration: attention to the keys of largest weight, as in Doge
_ROOM_SHARE = 4  # or this part of what it holds: every token is copied about four times, however many come


class Stretch:
    """States of consecutive tokens, (rows, heads, tokens, size), the first of which can be forgotten."""

    def __init__(self) -> None:
        self._buffer: Tensor | None = None
        self._first = self._end = 0

    @property
    def states(self) -> Tensor:
        """What is held, a view."""
        assert self._buffer is not None
        return self._buffer[:, :, self._first : self._end]

    def append(self, states: Tensor) -> Tensor:
        """Put states behind the others; all of them, a view."""
        if self._buffer is None:
            self._move_to(states[:, :, :0], states.shape[2])
        elif self._end + states.shape[2] > self._buffer.shape[2]:
            self._move_to(self.states, self._end - self._first + states.shape[2])
        assert self._buffer is not None
        self._buffer[:, :, self._end : self._end + states.shape[2]] = states
        self._end += states.shape[2]
        return self.states

    def keep_last(self, tokens: int) -> None:
        """Forget all but the last `tokens` of them."""
        self._first = max(self._first, self._end - tokens)

    def select(self, rows: Tensor) -> None:
        """Go on with these rows, int64 (R,), alone; a row may be there several times."""
        before = self.states
        torch.index_select(before, 0, rows, out=self._begin(before, len(rows), before.shape[2]))

    def _move_to(self, states: Tensor, tokens: int) -> None:
        """Go on in a buffer with room for more than `tokens`, and these states at its beginning."""
        self._begin(states, len(states), tokens).copy_(states)

    def _begin(self, like: Tensor, rows: int, tokens: int) -> Tensor:
        """A new buffer; its first places, a view (rows, heads, tokens of `like`, size), which are to be filled."""
        _, heads, held, size = like.shape
        self._buffer = like.new_empty((rows, heads, tokens + max(_ROOM, tokens // _ROOM_SHARE), size))
        self._first, self._end = 0, held
        return self.states


class _InStretches:
    """Keys and values of a layer in stretches. Rows are repeated and dropped by batch_select_indices alone."""

    is_initialized: bool
    keys: Tensor
    values: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._keys, self._values = Stretch(), Stretch()

    def batch_select_indices(self, indices: Tensor) -> None:
        """Go on with these rows alone; a row may be there several times. A layer that holds nothing has none."""
        if self.is_initialized:
            self._keys.select(indices)
            self._values.select(indices)
            self._show()

    def _show(self) -> None:
        """What the next token finds."""
        self.keys, self.values = self._keys.states, self._values.states


class GrowingLayer(_InStretches, DynamicLayer):
    """A layer that attends to all before a token."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """All keys and values, (rows, heads, tokens, size), with these behind the earlier ones."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self.values = self._keys.append(key_states), self._values.append(value_states)
        return self.keys, self.values


class GrowingWindowLayer(_InStretches, DynamicSlidingWindowLayer):
    """A layer that attends to the last `sliding_window` tokens; what is behind it is forgotten."""

    def __init__(self, sliding_window: int) -> None:
        super().__init__(sliding_window=sliding_window)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keys and values that these tokens can see, (rows, heads, tokens, size), their own included."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.cumulative_length += key_states.shape[2]
        seen = self._keys.append(key_states), self._values.append(value_states)
        self._show()
        return seen

    def _show(self) -> None:
        """The next token sees itself and `sliding_window - 1` before it."""
        for stretch in (self._keys, self._values):
            stretch.keep_last(self.sliding_window - 1)
        super()._show()


def growing_cache(model: Any) -> DynamicCache:
    """An empty cache for this model. Layers of other kinds, whose rows can leave too, stay transformers' own."""
    cache = DynamicCache(config=model.config)
    cache.layers = [_growing(layer) for layer in cache.layers]
    return cache


def _growing(layer: Any) -> Any:
    if type(layer) is DynamicLayer:
        return GrowingLayer()
    if type(layer) is DynamicSlidingWindowLayer:
        return GrowingWindowLayer(layer.sliding_window)
    return layer


def require_cache(model: Any) -> None:
    """See that rows can leave a batch: what a model keeps of them must be a plain cache of attention.

    Raises:
        UsageError: It is something else, as in hybrid and recurrent models.
    """
    layers = DynamicCache(config=model.config).layers
    causal = model.get_base_model() if hasattr(model, "peft_config") else model
    takes_it = "past_key_values" in inspect.signature(causal.forward).parameters
    keeps_more = getattr(causal, "_is_stateful", False)  # beside the cache, or in layers that call it keys and values
    if keeps_more or not takes_it or not all(_is_attention(layer) for layer in layers):
        raise UsageError(
            f"models of type {model.config.model_type} cannot be sampled by the transformers engine",
            why="they keep more of a sequence than keys and values, and rows could not leave a batch",
            mend="use rollout.engine=sglang, or a model with attention alone",
        )
    if getattr(model.config.get_text_config(), _CHOSEN, None) is not None:
        raise _not_the_same(model, f"from {_CHOSEN} keys on their attention chooses among equals, and rounding decides")


@torch.inference_mode()
def require_same_cached(model: Any) -> None:
    """See that tokens that come one by one behind a cache get the logits that they get in a whole forward pass.

    Raises:
        UsageError: They do not: what is sampled would be scored and trained with other probabilities.
        EngineError: They are not finite.
    """
    ids = torch.tensor([_PROBE], device=next(model.parameters()).device)
    with short_windows(model):
        whole = model(input_ids=ids, use_cache=False).logits[0]
        require_finite(whole)
        cache = growing_cache(model)
        stretches = [slice(0, _PROBE_START), *(slice(at, at + 1) for at in range(_PROBE_START, len(_PROBE)))]
        parts = [model(input_ids=ids[:, part], past_key_values=cache, use_cache=True).logits[0] for part in stretches]
    difference = largest_difference(torch.cat(parts), whole)
    if not difference <= SAME[whole.dtype]:
        raise _not_the_same(model, f"their logits differ by {difference:.2g} of their size")


def require_finite(logits: Tensor) -> None:
    """See that each row of logits (B, V) has a largest one.

    Raises:
        EngineError: One has none.
    """
    if not torch.isfinite(logits.amax(-1)).all():
        raise EngineError(
            "the model's logits are not finite",
            why="its weights are damaged, or its arithmetic overflows in this dtype",
            mend="try model.dtype=bfloat16 or float32; else check the model",
        )


def _not_the_same(model: Any, how: str) -> UsageError:
    return UsageError(
        f"models of type {model.config.model_type} do not compute token by token what a whole forward pass does",
        why=f"{how}: samples would be trained with other probabilities than they were drawn with",
        mend="use a model whose attention sees all keys, or those in a window",
    )


def _is_attention(layer: Any) -> bool:
    """Layers that keep a recurrent state as well have the method, but it selects rows of keys and values alone."""
    return hasattr(layer, "batch_select_indices") and not hasattr(layer, "update_recurrent_state")
