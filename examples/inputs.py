"""What the examples' scripts read: rounds of a run, question files, models. What is none of these is refused."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpgea.errors import UsageError
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.layout import SETS, SUMMARY, round_dir, round_numbers
from vpgea.runs.records import FilterSummary
from vpgea.storage.records import read_record
from vpgea.storage.shards import iterate_rows, shard_files

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def filtered_rounds(folder: Path) -> list[Path]:
    """The rounds of a loop whose filter is finished; a round's own folder is one. Others are named on stderr.

    Raises:
        UsageError: There is none.
    """
    mend = "give the folder of a loop, or one of its rounds"
    if not folder.is_dir():
        why = "it is a file" if folder.exists() else "there is nothing there"
        raise UsageError(f"folder not found: {folder}", why=why, mend=mend)
    rounds = [folder] if (folder / "filter").is_dir() else [round_dir(folder, one) for one in round_numbers(folder)]
    finished = [one for one in rounds if (one / "filter" / SUMMARY).is_file()]
    if not finished:
        why = "none of its filters is finished" if rounds else "it has neither rounds nor a filter"
        raise UsageError(f"{folder} has no round to look at", why=why, mend=mend)
    for one in rounds:
        if one not in finished:
            print(f"left out: {one}, whose filter is not finished", file=sys.stderr)
    return finished


def judged_rows(round_folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of what a round's filter has selected, then of what it has rejected.

    Raises:
        UsageError: The filter is not complete, or some of them are gone.
    """
    measured = CompletePhase.open(round_folder / "filter", "filter")
    measured.require_selection(read_record(measured.root / SUMMARY, FilterSummary).selection)
    for name in SETS:
        yield from iterate_rows(shard_files(measured.root / name))


def rows_of(file: Path, *fields: str) -> list[dict[str, Any]]:
    """The rows of a question file, one JSON object on each line, all of which have these fields.

    Raises:
        UsageError: It is none.
    """
    mend = "give a question file as the example writes it"
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
    except OSError as error:
        raise UsageError(f"question file cannot be read: {file}", why=str(error.strerror), mend=mend) from error
    except ValueError as error:
        raise UsageError(f"{file} is no question file", why=f"its lines are not JSON: {error}", mend=mend) from error
    for number, row in enumerate(rows, start=1):
        if missing := [name for name in fields if not isinstance(row, dict) or name not in row]:
            why = f"line {number} has no {missing[0]}"
            raise UsageError(f"{file} is no question file of this example", why=why, mend=mend)
    if not rows:
        raise UsageError(f"{file} is no question file", why="it is empty", mend=mend)
    return rows


def require_readable(source: Path, questions: Iterable[tuple[Any, ...]], read: Callable[..., object]) -> None:
    """See that questions are an example's own.

    Args:
        source: Where they stand.
        questions: What is handed to `read`, of each.
        read: Takes one apart; ValueError where it is not its own.

    Raises:
        UsageError: One is another's.
    """
    for question in questions:
        try:
            read(*question)
        except ValueError as error:
            mend = "use the script of the example that its questions are from"
            raise UsageError(f"{source} is of another testbed", why=str(error), mend=mend) from error


def own_tokenizer(folder: Path, words: Collection[str]) -> PreTrainedTokenizerFast:
    """The tokenizer of a model's folder, which knows these words.

    Raises:
        UsageError: There is no model, or it is another example's.
    """
    from transformers import PreTrainedTokenizerFast

    mend = "give the folder of a model that was made for this testbed"
    if missing := [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]:
        why = f"it has no {missing[0]}" if folder.is_dir() else "there is no such folder"
        raise UsageError(f"{folder} is no folder of a model", why=why, mend=mend)
    # Not AutoTokenizer: for model type qwen2, transformers 5 replaces the folder's tokenizer by Qwen2's own.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    known = tokenizer.get_vocab()
    if unknown := [word for word in words if word not in known]:
        raise UsageError(f"{folder} is of another testbed", why=f"its tokenizer has no token {unknown[0]!r}", mend=mend)
    return tokenizer


def count(text: str) -> int:
    """An option that says how many: at least one."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def fraction(text: str) -> float:
    """An option that says which part of all: from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return value
