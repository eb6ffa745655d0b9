"""What a round is decided by: its questions, its price of length, and what follows from the lines before it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vpgea.config.schema import PRICE_SPAN, DataConfig, RunConfig
from vpgea.errors import UsageError
from vpgea.questions.load import Question
from vpgea.runs.history import all_lines, is_regularly_measured, read_line
from vpgea.runs.records import RoundLine


def held_out_data(config: RunConfig) -> DataConfig:
    """The data section for the held-out questions: other file, same field names."""
    if not config.loop.eval_dataset:
        raise UsageError(
            "no held-out questions were given",
            why="loop.eval_dataset is empty, and every round is measured on questions that are not trained on",
            mend="give --eval-dataset with a question file of its own",
        )
    return config.data.model_copy(update={"dataset": config.loop.eval_dataset, "limit": config.loop.eval_limit})


def round_questions(questions: Sequence[Question], index: int, per_round: int | None, seed: int) -> list[Question]:
    """The questions of one round: consecutive slices of one seeded permutation per pass over the data."""
    count = len(questions)
    if per_round is None or per_round >= count:
        return list(questions)
    first = index * per_round
    passes = range(first // count, (first + per_round - 1) // count + 1)
    order = np.concatenate([np.random.default_rng([seed, epoch]).permutation(count) for epoch in passes])
    begin = first - passes[0] * count
    chosen = [questions[place] for place in order[begin : begin + per_round]]
    return list({question.id: question for question in chosen}.values())  # over the end of a pass one may come twice


def length_price(config: RunConfig, lines: Sequence[RoundLine]) -> float:
    """lambda, or 0 while held-out accuracy has fallen behind the base's or the token target is reached.

    The price acts once per round and compounds over rounds, so it must be able to rest. It follows the newest round
    that is measured regularly: what the last one of an earlier call says must not decide a run that was made longer.
    With loop.price_step the target does not let it rest, but moves it.

    Args:
        config: Of the run.
        lines: Of the base and of every round so far.
    """
    base, *measured = (line for line in lines if line.is_measured and is_regularly_measured(line.round, config.loop))
    last = measured[-1] if measured else base
    if fell_behind(config, base, last):
        return 0.0
    start, target = config.filter.utility.length_price, config.loop.token_target
    if target is None or not config.loop.price_step:
        return 0.0 if target is not None and last.measured.tokens <= target else start
    good = [line.measured.tokens for line in measured if not fell_behind(config, base, line)]
    return followed_price(start, good, target, config.loop.price_step)


def followed_price(start: float, tokens: Sequence[float], target: float, step: float) -> float:
    """The price that comes to a target of tokens: exponentiated dual ascent on the constraint mean tokens <= target.

    After each measurement lambda <- lambda exp(step min(tokens / target - 1, 1)), kept within start / PRICE_SPAN and
    start PRICE_SPAN. Our own choice; docs/loop.md.

    Args:
        start: lambda of the first round.
        tokens: (n,) mean tokens after the rounds in their order, without those that let the price rest.
        target: Mean tokens to come to.
        step: Of the ascent; a price changes at most by the factor exp(step) at once.
    """
    price = start
    for measured in tokens:
        moved = price * math.exp(step * min(measured / target - 1, 1.0))
        price = min(max(moved, start / PRICE_SPAN), start * PRICE_SPAN)
    return price


def fell_behind(config: RunConfig, base: RoundLine, line: RoundLine) -> bool:
    """Whether held-out accuracy is below the base's by more than delta, and by more than chance.

    On a few hundred questions accuracy moves by more than a point without any cause. The two runs share their
    questions, so the paired interval of the difference says what is chance; without an interval delta alone decides.
    """
    is_noise = line.accuracy_gain_high is not None and line.accuracy_gain_high >= 0
    return line.measured.accuracy < base.measured.accuracy - config.loop.accuracy_margin and not is_noise


def ended_early(config: RunConfig, lines: Sequence[RoundLine]) -> str | None:
    """Why no further round is to follow, if so: what may be sampled is used up, or held-out accuracy left its band.

    Raises:
        UsageError: There is a bound on what is sampled, and a round of an earlier version does not say its share.
    """
    return _used_up(config.loop.max_sampled_tokens, lines) or _left_band(config.loop.max_accuracy_drop, lines)


def _used_up(bound: int | None, lines: Sequence[RoundLine]) -> str | None:
    if bound is None:
        return None
    sampled = 0
    for line in lines[1:]:
        if line.sampled_tokens is None:
            raise UsageError(
                "loop.max_sampled_tokens cannot be kept in this run",
                why=f"round {line.round} was made by an earlier version, which did not count what it sampled",
                mend="leave it away, or begin the run anew in another folder",
            )
        sampled += line.sampled_tokens
    return f"{sampled:,} tokens were sampled, and loop.max_sampled_tokens is {bound:,}" if sampled >= bound else None


def _left_band(band: float | None, lines: Sequence[RoundLine]) -> str | None:
    if band is None or not lines:
        return None
    base = lines[0].measured.accuracy
    last = next(line.measured.accuracy for line in reversed(lines) if line.is_measured)
    if last >= base - band:
        return None
    return f"held-out accuracy is {last:.3f}, the base's {base:.3f}, and loop.max_accuracy_drop {band:g}"


def best_round(run_dir: Path, config: RunConfig) -> int | None:
    """The round of highest e3 among those that were measured and whose held-out accuracy has not fallen behind."""
    base = read_line(run_dir, None)
    measured = [line for line in all_lines(run_dir)[1:] if line.is_measured]
    good = [line for line in measured if not fell_behind(config, base, line)]
    return max(good, key=lambda line: (line.measured.e3, line.round)).round if good else None
