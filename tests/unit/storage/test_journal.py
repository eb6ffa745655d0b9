"""Journals of finished completions: what is whole of them is read, and damage is told from an end that was cut off."""

from __future__ import annotations

import random
import resource
from pathlib import Path

import numpy as np
import pytest

from vpgea.storage.journal import Journal, JournalHead, JournalWriter, KeptRow, read_journal

HEAD = JournalHead(fingerprint="abc", chunk=3, engine="transformers", logprobs_of="sampler")


def kept(name: str, length: int = 5) -> KeptRow:
    ids = np.arange(length, dtype=np.int32)
    return KeptRow(request=name, completion_ids=ids, logprobs=-ids.astype(np.float32), finish_reason="stop")


def names(journal: Journal) -> list[str]:
    return [row.request for row in journal.rows]


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, list[int]]:
    """A journal of three appends, and its length behind the head and each of them."""
    path = tmp_path / "journal"
    writer = JournalWriter(path, HEAD)
    ends = [path.stat().st_size]
    for rows in (["a", "b"], ["c"], ["d", "e", "f"]):
        writer.append([kept(name) for name in rows])
        ends.append(path.stat().st_size)
    writer.close()
    return path, ends


def test_what_is_written_is_read_bit_by_bit(written: tuple[Path, list[int]]) -> None:
    journal = read_journal(written[0])
    assert (journal.head, journal.torn, journal.damage) == (HEAD, 0, "")
    assert names(journal) == list("abcdef")
    assert journal.rows[3].completion_ids.tobytes() == kept("d").completion_ids.tobytes()
    assert journal.rows[3].logprobs.tobytes() == kept("d").logprobs.tobytes()


def test_an_end_that_was_cut_off_anywhere_is_counted_and_no_damage(written: tuple[Path, list[int]]) -> None:
    path, ends = written
    content, known = path.read_bytes(), ["", "ab", "abc", "abcdef"]
    for length in (*range(0, len(content), 41), *ends, *(end - 1 for end in ends), *(end + 1 for end in ends[:-1])):
        path.write_bytes(content[:length])
        journal = read_journal(path)
        whole = max((number for number, end in enumerate(ends) if end <= length), default=None)
        assert journal.damage == ""
        assert (journal.head is None) == (whole is None)
        assert "".join(names(journal)) == ("" if whole is None else known[whole])
        assert journal.torn == length - (0 if whole is None else ends[whole])


def test_a_bit_that_flipped_anywhere_is_found_and_nothing_behind_it_is_read(written: tuple[Path, list[int]]) -> None:
    path, ends = written
    content, known, rng = path.read_bytes(), ["", "", "ab", "abc"], random.Random(0)
    for place in (*rng.sample(range(len(content)), 200), *ends[:-1], *(end + 7 for end in ends[:-1])):
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        journal = read_journal(path)
        assert "has not its checksum" in journal.damage
        assert "".join(names(journal)) == known[sum(end <= place for end in ends)]


def test_what_finds_the_disk_full_leaves_what_was_there_and_may_come_later(written: tuple[Path, list[int]]) -> None:
    path = written[0].with_name("other")
    writer = JournalWriter(path, HEAD)
    writer.append([kept("a")])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            writer.append([kept("b", 1000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_journal(path).torn == 0
    writer.append([kept("c")])
    writer.close()
    assert names(read_journal(path)) == ["a", "c"]


def test_a_journal_of_a_later_format_is_not_read(tmp_path: Path) -> None:
    head = JournalHead(fingerprint="abc", chunk=3, engine="transformers", logprobs_of="sampler")
    object.__setattr__(head, "format", 2)
    writer = JournalWriter(tmp_path / "journal", head)
    writer.append([kept("a")])
    writer.close()
    journal = read_journal(tmp_path / "journal")
    assert journal.head is None
    assert journal.rows == []
    assert "format 2" in journal.damage
