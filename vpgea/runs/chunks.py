"""The loop over the chunks of a part: one after the other is made, committed, and counted as done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import pyarrow as pa

from vpgea.runs.journals import Journals
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.runs.stopping import StopRequest
from vpgea.storage.shards import write_table

Made = Iterator[tuple[int, Mapping[str, pa.Table]]]


def run_chunks(
    folder: PhaseFolder, missing: Sequence[int], stop: StopRequest, work: Callable[[], Made], journals: Journals
) -> None:
    """Commit what `work` makes, chunk by chunk; a stop that was asked for is heeded once a chunk is on disk.

    Args:
        folder: The part that the chunks belong to.
        missing: Numbers of the chunks to make.
        stop: Told of each chunk that is done; may find that no other fits before a time limit.
        work: Makes the chunks, in any order: (number, kind of shard → table), the shard that completes it last.
        journals: What is finished of chunks that are not whole; those of a chunk go once it is on disk.

    Raises:
        UsageError: The folder is another run's by now.
        Stopped: What was finished of chunks that are not whole is in their journals.
    """
    stop.begin()
    for done, (chunk, tables) in enumerate(work(), start=1):
        folder.require_ours()
        for kind, table in tables.items():
            write_table(folder.chunk(chunk, kind), table)
        journals.committed(chunk)
        stop.account.committed()
        stop.unit_done(more=done < len(missing))
        stop.check()
