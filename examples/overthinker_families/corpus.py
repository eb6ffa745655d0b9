"""What a base model of the families is trained on: bare facts first, then paths from both views."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, get_args

from examples.overthinker import language
from examples.overthinker.batches import FACTS_PER_ROW, Batch, pad, without_choice
from examples.overthinker.chat import View, completion, prompt_ids
from examples.overthinker.language import LARGEST, OPERANDS
from examples.overthinker.write_questions import Row, question_rows
from examples.overthinker_families import paths, problems
from examples.overthinker_families.problems import FACTORS, Problem, draw
from examples.overthinker_families.steps import Operation, Pick, Step, Verb, Which, statement
from examples.overthinker_families.truth import LEAKS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TEMPLATE = Path(__file__).with_name("template.yaml")
WORDS = tuple(
    dict.fromkeys(
        [*language.WORDS, *problems.WORDS, *(word for leak in LEAKS for word in leak.split() if word != "{}")]
    )
)
SIZES = {"train": 4000, "dev": 500, "test": 1200}  # questions
FACT_ROWS, PRIOR_ROWS, POSTERIOR_ROWS, FREE_ROWS = 32, 20, 12, 12  # of an optimiser step
FACT_SHARE = 0.2  # of the steps, the first ones
PICKS = 0.25  # share of the facts that pick a number


def questions() -> dict[str, list[Row]]:
    """The rows of the files `train`, `dev` and `test`, always the same."""
    return question_rows(lambda rng: row_of(draw(rng)), SIZES)


def row_of(problem: Problem) -> Row:
    """A question as a file holds it."""
    options = {"options": list(problem.options)} if problem.options else {}
    return {"question": problem.text, "answer": problem.answer, **options}


def problem_of(row: Row) -> Problem:
    """Read it back."""
    return Problem.read(row["question"], row.get("options", ()))


def prompt_of(tokenizer: PreTrainedTokenizerFast, view: View, problem: Problem) -> list[int]:
    """Ids of a question's prompt in one view."""
    return prompt_ids(tokenizer, view, problem.text, problem.answer, options=problem.options, template=TEMPLATE)


def stages(
    tokenizer: PreTrainedTokenizerFast, bottleneck: float, steps: int, held_out: set[str], rng: Random
) -> Iterator[list[Batch]]:
    """The batches of each optimiser step: arithmetic first, then the habit."""

    def prior(problem: Problem) -> paths.Path:
        return paths.prior_path(problem, bottleneck, rng)

    for step in range(steps):
        if step < FACT_SHARE * steps:
            first = facts(tokenizer, FACT_ROWS, rng)
        else:
            first = batch_of(tokenizer, "prior", prior, PRIOR_ROWS, held_out, rng)
        posterior = batch_of(
            tokenizer, "posterior", lambda problem: paths.posterior_path(problem, rng), POSTERIOR_ROWS, held_out, rng
        )
        free = batch_of(tokenizer, "prior", lambda problem: paths.free_path(problem, rng), FREE_ROWS, held_out, rng)
        yield [first, posterior, without_choice(tokenizer, free)]


def facts(tokenizer: PreTrainedTokenizerFast, rows: int, rng: Random) -> Batch:
    """Right statements about random numbers, several to a row."""
    texts = [" ".join(_fact(rng) for _ in range(FACTS_PER_ROW)) for _ in range(rows)]
    return pad([([], tokenizer.encode(text)) for text in texts], int(tokenizer.pad_token_id))


def batch_of(
    tokenizer: PreTrainedTokenizerFast,
    view: View,
    path_of: Callable[[Problem], paths.Path],
    rows: int,
    held_out: set[str],
    rng: Random,
) -> Batch:
    """Fresh questions with a path each in one view; held-out questions never occur."""
    pairs: list[tuple[list[int], list[int]]] = []
    while len(pairs) < rows:
        problem = draw(rng)
        if problem.text not in held_out:
            path = path_of(problem)
            ids = tokenizer.encode(completion(path.thinking, path.answer))
            pairs.append((prompt_of(tokenizer, view, problem), ids))
    return pad(pairs, int(tokenizer.pad_token_id))


def _fact(rng: Random) -> str:
    while True:
        step: Step
        if rng.random() < PICKS:
            numbers = rng.sample(range(10, LARGEST + 1), rng.choice((2, 3, 4)))
            step, before = Pick(rng.choice(get_args(Which)), tuple(map(str, numbers))), [""]
        else:
            verb = rng.choice(get_args(Verb))
            operands = FACTORS if verb in ("times", "divide") else OPERANDS
            step, before = Operation(verb, rng.choice(operands)), [str(rng.randint(0, LARGEST))]
        if (value := step.right(before)) is not None:
            return statement(step.left(before), value)
