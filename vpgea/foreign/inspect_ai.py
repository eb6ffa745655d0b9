"""Logs of inspect: `.eval` (a zip of JSON, a file per sample) and `.json` (all in one)."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from vpgea.errors import UsageError
from vpgea.foreign.lines import LONGEST, found, json_object, whole_object
from vpgea.foreign.sample import (
    ForeignLog,
    ForeignSample,
    Found,
    Sampling,
    UnusableError,
    count_of,
    finish_of,
    last_user_text,
    mapping,
    optional_text,
    response_of,
    single,
    text_of,
)

_HEADER, _SAMPLES = "header.json", "samples/"
_ZSTANDARD = 93  # of the zip format; zipfile knows it only from Python 3.14 on
_LOCAL_HEADER = 30  # bytes before the name of an entry
_GENERATE = ("temperature", "top_p", "top_k", "max_tokens", "seed", "stop_seqs", "system_message", "reasoning_effort")
_OF_EVAL = ("task", "task_version")
_OF_DATASET = ("name", "location", "samples", "shuffled")


def read_log(files: Sequence[Path]) -> ForeignLog:
    """The log of one evaluation.

    Raises:
        UsageError: There are several, or it is no such log.
    """
    if len(files) > 1:
        raise UsageError(
            f"{files[0].parent} holds {len(files)} logs of inspect",
            why=f"each is an evaluation of its own: {', '.join(path.name for path in files[:4])}",
            mend="give the file of one",
        )
    path = files[0]
    header = _zip_header(path) if path.suffix == ".eval" else whole_object(path)
    stated, status = mapping(header.get("eval")), optional_text(header.get("status"))
    task = optional_text(stated.get("task")) or path.stem
    plan = mapping(header.get("plan"))
    steps = plan.get("steps")
    config = mapping(plan.get("config"))
    scores = mapping(header.get("results")).get("scores")
    scorers = [optional_text(mapping(score).get("name")) for score in scores] if isinstance(scores, list) else []
    protocol = {name: stated[name] for name in _OF_EVAL if stated.get(name) is not None}
    data = mapping(stated.get("dataset"))
    protocol["dataset"] = {name: data[name] for name in _OF_DATASET if data.get(name) is not None}
    protocol |= {name: config[name] for name in _GENERATE if config.get(name) is not None}
    protocol["solvers"] = [_solver(mapping(step)) for step in steps] if isinstance(steps, list) else []
    protocol["status"] = status
    return ForeignLog(
        tool="inspect",
        version=optional_text(mapping(stated.get("packages")).get("inspect_ai")),
        model=optional_text(stated.get("model")),
        protocol=protocol,
        files=(path,),
        metrics=tuple(dict.fromkeys(name for name in scorers if name)),
        sampling=Sampling.stated_in(config),
        samples=partial(_zip_samples if path.suffix == ".eval" else _json_samples, path, task),
        remarks=() if status == "success" else (f"the evaluation did not finish there: its status is {status}",),
    )


def _solver(step: Mapping[str, object]) -> dict[str, object]:
    return {"solver": step.get("solver"), "params": step.get("params_passed", step.get("params"))}


def _zip_header(path: Path) -> dict[str, object]:
    try:
        with zipfile.ZipFile(path) as archive:
            return json_object(_content(archive, archive.getinfo(_HEADER)))
    except (KeyError, UnusableError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"cannot read {path}",
            why=f"it is no finished log of inspect: {error}",
            mend="let inspect finish it, or convert it with `inspect log convert`",
        ) from error


def _zip_samples(path: Path, task: str, metric: str | None) -> Iterator[Found]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename.startswith(_SAMPLES):
                place = f"{path.name}, {entry.filename}"
                yield from found(place, partial(_from_zip, archive, entry, task))


def _json_samples(path: Path, task: str, metric: str | None) -> Iterator[Found]:
    samples = whole_object(path).get("samples")
    for number, sample in enumerate(samples if isinstance(samples, list) else [], start=1):
        yield from found(f"{path.name}, sample {number}", partial(_sample, task, mapping(sample)))


def _from_zip(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, task: str) -> Iterator[ForeignSample]:
    yield from _sample(task, json_object(_content(archive, entry)))


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """An entry's bytes, unpacked no further than it says itself.

    Raises:
        UnusableError: It is damaged, or too long.
    """
    if entry.file_size > LONGEST:
        raise UnusableError(f"it is longer than {LONGEST >> 20} MiB")
    try:
        if entry.compress_type != _ZSTANDARD:
            return archive.read(entry)
        content = _unpack(_stored(archive, entry), entry.file_size)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError) as error:
        raise UnusableError(f"it cannot be unpacked: {str(error)[:100]}") from error
    if len(content) != entry.file_size or zlib.crc32(content) != entry.CRC:
        raise UnusableError("it cannot be unpacked: its checksum is another")
    return content


def _stored(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """The packed bytes, which stand behind the entry's own header."""
    stream = archive.fp
    assert stream is not None, "the archive is open"
    stream.seek(entry.header_offset)
    header = stream.read(_LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or not header.startswith(b"PK\x03\x04"):
        raise zipfile.BadZipFile("an entry is not where the list says")
    name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    stream.seek(entry.header_offset + _LOCAL_HEADER + name + extra)
    return stream.read(entry.compress_size)


def _unpack(packed: bytes, size: int) -> bytes:
    import pyarrow as pa

    with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
        return bytes(stream.read(size + 1))


def _sample(task: str, sample: Mapping[str, object]) -> Iterator[ForeignSample]:
    output = mapping(sample.get("output"))
    choices = output.get("choices")
    choice = mapping(choices[0]) if isinstance(choices, list) and choices else {}
    if not choice:
        error = mapping(sample.get("error")).get("message")
        raise UnusableError(f"there is no response{f': {str(error)[:80]}' if error else ''}")
    usage, finish = mapping(output.get("usage")), finish_of(choice.get("stop_reason"))
    asked, options, epoch = sample.get("input"), sample.get("choices"), sample.get("epoch")
    scores = mapping(sample.get("scores"))
    answers = [optional_text(mapping(score).get("answer")) for score in scores.values()]
    yield ForeignSample(
        question_id=f"{task}/{text_of(sample.get('id'), 'id')}",
        index=epoch - 1 if isinstance(epoch, int) and epoch > 0 else None,
        completion=response_of(mapping(choice.get("message")), is_unended=finish == "length"),
        question=asked if isinstance(asked, str) else last_user_text(asked),
        reference=single(sample.get("target")),
        options=tuple(map(str, options)) if isinstance(options, list) else (),
        tokens=count_of(usage.get("output_tokens")),
        thinking_tokens=count_of(usage.get("reasoning_tokens")),
        finish_reason=finish,
        scores={name: mapping(score).get("value") for name, score in scores.items()},
        extracted=answers[0] if len(answers) == 1 else None,
    )
