"""What goes over the wire: requests as SGLang's `/generate` takes them, and its answers as completions and scores.

Pure functions. Everything that an answer claims is compared with what was asked: a server that stops at another token,
served other weights, or left out a position is never believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vpgea.engines.base import Completion, FinishReason, GenerateRequest, Sampling, ScoreRequest, TopLogprobs
from vpgea.engines.sglang.traffic.answers import Entry, Finish, Generated, Meta
from vpgea.errors import EngineError

_SIGN, _SPAN = 1 << 63, 1 << 64
_ROUNDING = 0.01  # by which a log-probability may pass zero, in the coarsest dtype


class Aborted(Exception):
    """The server gave the request up; another try may do."""


@dataclass(frozen=True)
class Served:
    """What every answer must come from.

    Attributes:
        weight_version: Which the server has for its weights.
        adapter: Its name there; None without one.
        routed: Behind a router, which takes no negative seeds.
    """

    weight_version: str
    adapter: str | None = None
    routed: bool = False


def generate_payload(request: GenerateRequest, sampling: Sampling, served: Served) -> dict[str, Any]:
    """One completion, with the log-probabilities of its tokens after temperature and before truncation."""
    cap = sampling.max_new_tokens if request.max_new_tokens is None else request.max_new_tokens
    return {
        "input_ids": [int(token) for token in request.prompt_ids],
        "sampling_params": {
            "max_new_tokens": min(cap, sampling.max_new_tokens),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "stop_token_ids": list(sampling.stop_ids),
            "ignore_eos": not sampling.stop_ids,  # else the server adds the model's own
            "sampling_seed": _seed(request.seed, served),
        },
        "return_logprob": True,
        **_adapter(served),
    }


def score_payload(request: ScoreRequest, served: Served, top: int = 0) -> dict[str, Any]:
    """Log-probabilities from just before `start`: all that stands before it may come from the server's cache.

    Args:
        request: Whose ids are scored.
        served: What must answer.
        top: Also ask for so many of the likeliest tokens at every position.
    """
    return {
        "input_ids": [int(token) for token in request.ids],
        "sampling_params": {"max_new_tokens": 0, "temperature": 0.0},
        "return_logprob": True,
        "logprob_start_len": request.start - 1,
        **({"top_logprobs_num": top} if top else {}),
        **_adapter(served),
    }


def _seed(seed: int, served: Served) -> int:
    """A server keeps seeds in 64 signed bits; a router refuses the negative ones, and there the top bit is left out."""
    if seed < _SIGN:
        return seed
    return seed - (_SIGN if served.routed else _SPAN)


def _adapter(served: Served) -> dict[str, Any]:
    return {} if served.adapter is None else {"lora_path": served.adapter}


def read_completion(answer: Generated, cap: int, sampling: Sampling, served: Served, vocabulary: int) -> Completion:
    """A completion from its answer.

    Args:
        answer: The server's.
        cap: Most tokens that were asked for.
        sampling: What was asked for.
        served: What must have answered.
        vocabulary: Number of the model's ids.

    Raises:
        Aborted: The server gave the request up.
        EngineError: The answer cannot be right.
    """
    meta = _meta(answer, served)
    names, values = _columns(meta.output_token_logprobs, "output_token_logprobs")
    if answer.output_ids != names or not names:
        raise _senseless(f"it has log-probabilities for {len(names)} tokens and names {len(answer.output_ids or ())}")
    if max(names) >= vocabulary:
        raise _senseless(f"it holds the id {max(names)}, and the vocabulary ends at {vocabulary - 1}")
    if len(names) > cap:
        raise _senseless(f"{cap:,} tokens were asked for at most, and {len(names):,} came back")
    if any(name in sampling.stop_ids for name in names[:-1]):
        raise _senseless("it goes on after a token that ends a response")
    ids, logprobs = np.array(names, dtype=np.int32), _logprobs(values)
    return Completion(ids, logprobs, _finish_reason(meta.finish_reason, ids, cap, sampling))


def read_scores(answer: Generated, request: ScoreRequest, served: Served, vocabulary: int) -> np.ndarray:
    """The log-probabilities of ids[start:].

    Entry 0 of the answer belongs to position start - 1 and has no value. SGLang 0.5.23 reports the vocabulary's last
    id as id 0, with the right value.

    Returns:
        float32 (len(ids) - start,), in nats.

    Raises:
        Aborted: The server gave the request up.
        EngineError: The answer cannot be right.
    """
    names, values = _columns(_meta(answer, served).input_token_logprobs, "input_token_logprobs", first=1)
    wanted = [int(token) for token in request.ids[request.start :]]
    if len(names) != len(wanted):
        raise _senseless(f"{len(wanted)} positions were asked for and {len(names)} came back")
    if any(name != token and (name, token) != (0, vocabulary - 1) for name, token in zip(names, wanted, strict=True)):
        raise _senseless("its log-probabilities are those of other tokens")
    return _logprobs(values)


def read_top_logprobs(answer: Generated, request: ScoreRequest, served: Served, k: int, vocabulary: int) -> TopLogprobs:
    """The k likeliest tokens at each position of ids[start:].

    Raises:
        Aborted: The server gave the request up.
        EngineError: The answer cannot be right.
    """
    positions = (_meta(answer, served).input_top_logprobs or [])[1:]
    wanted = len(request.ids) - request.start
    if [len(entries or ()) for entries in positions] != [k] * wanted:
        raise _senseless(f"the {k} likeliest tokens of {wanted} positions were asked for, and others came back")
    columns = [_columns(entries, "input_top_logprobs") for entries in positions]
    if any(max(names) >= vocabulary for names, _ in columns):
        raise _senseless(f"it holds ids outside the vocabulary, which ends at {vocabulary - 1}")
    ids = np.array([names for names, _ in columns], dtype=np.int32)
    return TopLogprobs(ids, np.array([_logprobs(values) for _, values in columns], dtype=np.float32))


def cached_tokens(answer: Generated) -> int:
    return answer.meta_info.cached_tokens or 0


def _meta(answer: Generated, served: Served) -> Meta:
    meta = answer.meta_info
    reason = meta.finish_reason
    if reason is not None and reason.type == "abort":
        raise Aborted(str(reason.message or "aborted"))
    versions = {span.version for span in meta.weight_versions} if meta.weight_versions else {meta.weight_version}
    if versions != {served.weight_version}:
        raise EngineError(
            "the server's weights were changed while it was in use",
            why=f"it answered with weights {', '.join(sorted(map(str, versions)))}, not {served.weight_version}",
            mend="let each run have its servers for itself; run the command again to continue",
        )
    return meta


def _columns(entries: list[Entry] | None, what: str, first: int = 0) -> tuple[list[int], list[float | None]]:
    """Ids and log-probabilities of entries, from the first that has one on."""
    if entries is None:
        raise _senseless(f"it has no {what}")
    return [entry[1] for entry in entries[first:]], [entry[0] for entry in entries[first:]]


def _logprobs(values: list[float | None]) -> np.ndarray:
    """float32 log-probabilities: there for each position, finite, and none above zero but by rounding."""
    if any(value is None for value in values):
        raise _senseless("a position has no log-probability")
    logprobs = np.array(values, dtype=np.float32)
    if not np.isfinite(logprobs).all():
        raise EngineError(
            "the server's log-probabilities are not finite",
            why="its weights are damaged, or its arithmetic overflows in this dtype",
            mend="try model.dtype=bfloat16 or float32; else check the model",
        )
    if logprobs.max(initial=0.0) > _ROUNDING:
        raise _senseless(f"a log-probability is {float(logprobs.max()):.3g}, which is above zero")
    return logprobs


def _finish_reason(reason: Finish | None, ids: np.ndarray, cap: int, sampling: Sampling) -> FinishReason:
    kind = None if reason is None else reason.type
    if kind == "length" and len(ids) == cap:
        return "length"
    if kind == "length":
        raise EngineError(
            f"the server cut a completion at {len(ids):,} of {cap:,} tokens",
            why="prompt and completion outgrow its context or its memory for one sequence",
            mend="lower max_new_tokens, or give the server more (--context-length, --max-total-tokens)",
        )
    if kind == "stop" and int(ids[-1]) in sampling.stop_ids:
        return "stop"
    if kind != "stop":
        raise _senseless(f"it ended for the reason {kind!r}, which no completion ends for")
    raise EngineError(
        f"the server ended a completion at token {int(ids[-1])}",
        why="that token does not end a response of this model: the ids that do are in its generation_config.json",
        mend="add the id to eos_token_id in generation_config.json, or take it out of the server's model",
    )


def _senseless(why: str) -> EngineError:
    return EngineError(
        "the server's answer does not fit the request",
        why=why,
        mend="compare the server's SGLang with the tested version (`vpgea doctor`)",
    )
