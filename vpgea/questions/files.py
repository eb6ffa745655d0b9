"""Rows out of question files: jsonl, json, csv and tsv (each also as .gz), parquet and arrow.

What a row must hold is the business of `load`; here a row is any mapping from column to value. Rows that cannot be
read at all become `BadRow`s, so that one pass over a file finds everything that is wrong with it.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import shlex
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from vpgea.errors import UsageError
from vpgea.questions.features import Features, described_in, is_media_column, shortest, values_of
from vpgea.questions.rows import RawRows, RowError

if TYPE_CHECKING:
    import pyarrow as pa

_GZIP_MAGIC, _PARQUET_MAGIC, _ARROW_MAGIC = b"\x1f\x8b", b"PAR1", b"ARROW1"
_KIND_OF_MAGIC = {_GZIP_MAGIC: "gzip", _PARQUET_MAGIC: "parquet", _ARROW_MAGIC: "arrow"}
_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-32, too
_READ_BYTES = 1 << 20
_ROWS_AT_A_TIME, _IMAGES_AT_A_TIME = 1024, 32
_GZIP_DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile)


def read_file(path: Path, wanted: AbstractSet[str]) -> RawRows:
    """Read the wanted columns of one question file; the format is told by the suffix.

    Damage that leaves earlier rows readable (a cut-off gzip or arrow stream) is one of the bad rows. Values of csv
    files are text as it stands, and an empty cell is none; json's are what json says; those of tables are read through
    the description of their columns that `datasets` puts into them.

    Raises:
        UsageError: The file is empty, unreadable, of an unknown suffix, or (json) not one whole list.
    """
    reader = next((read for suffix, read in READERS.items() if path.name.lower().endswith(suffix)), None)
    if reader is None:
        raise UsageError(
            f"{path}: this kind of question file is not known",
            why=f"the name ends with none of {', '.join(READERS)}",
            mend="convert the file, or rename it if it has one of these formats",
        )
    try:
        if path.stat().st_size == 0:
            raise UsageError(f"{path}: the file is empty", why="it has 0 bytes", mend="write the file again")
        return reader(path, wanted)
    except OSError as error:
        raise UsageError(
            f"{path}: the file cannot be read", why=str(error), mend="check the path and its permissions"
        ) from error


class _Reads(Protocol):
    def read1(self, size: int, /) -> bytes: ...


class _Line(NamedTuple):
    """A line without its end. `offset`: bytes before it in the (unpacked) file. `ended`: it had a line end."""

    number: int
    offset: int
    content: bytes
    ended: bool


def _lines(stream: _Reads) -> Iterator[_Line]:
    """Lines, without a leading byte order mark. `read1` hands out all there is before a damaged place."""
    number, offset, rest = 0, 0, b""
    while chunk := stream.read1(_READ_BYTES):
        *contents, rest = (rest + chunk).split(b"\n")
        for content in contents:
            number += 1
            yield _without_mark(_Line(number, offset, content, ended=True))
            offset += len(content) + 1
    if rest:
        yield _without_mark(_Line(number + 1, offset, rest, ended=False))


def _without_mark(line: _Line) -> _Line:
    if line.number > 1 or not line.content.startswith(_UTF8_BOM):
        return line
    return line._replace(content=line.content.removeprefix(_UTF8_BOM), offset=len(_UTF8_BOM))


def _read_jsonl(path: Path, wanted: AbstractSet[str]) -> RawRows:
    """One JSON object per line. Lines of white space only carry no row and are passed over."""
    raw = RawRows(file=str(path), unit="line")
    last = 0
    with _open(path, "JSON lines") as stream:
        try:
            for line in _lines(stream):
                last = line.number
                if line.content.strip():
                    _add_line(raw, line, wanted)
        except _GZIP_DAMAGE as damage:
            raw.add_bad(last + 1, f"the compressed file is cut off or damaged here ({damage}); the rest is lost")
    return raw


def _open(path: Path, kind: str) -> io.BufferedReader | gzip.GzipFile:
    """The bytes of a text file, unpacked where its name ends in .gz."""
    compressed = path.suffix.lower() == ".gz"
    _refuse_other_magic(path, kind, expected=_GZIP_MAGIC if compressed else b"")
    return gzip.open(path) if compressed else path.open("rb")


def _add_line(raw: RawRows, line: _Line, wanted: AbstractSet[str]) -> None:
    try:
        raw.add(line.number, parse_object(line.content, line.offset), wanted)
    except RowError as error:
        raw.add_bad(line.number, str(error) if line.ended else f"half-written last line: {error}")


def _refuse_other_magic(path: Path, named: str, expected: bytes) -> None:
    with path.open("rb") as file:
        start = file.read(8)
    if not expected and start.startswith(_UTF16_BOMS):
        raise UsageError(
            f"{path}: the file is not UTF-8",
            why=f"it begins with the mark of UTF-16, 0x{start[0]:02x} 0x{start[1]:02x}",
            mend=f"save it as UTF-8: iconv -f UTF-16 -t UTF-8 {shlex.quote(path.name)} > FILE",
        )
    kind = next((kind for magic, kind in _KIND_OF_MAGIC.items() if start.startswith(magic)), "something else")
    if (expected and not start.startswith(expected)) or (not expected and kind != "something else"):
        raise UsageError(
            f"{path}:1: the content does not fit the file's name",
            why=f"the name says {'gzip' if expected else named}, but the first bytes say {kind}",
            mend="rename the file after what it is (.jsonl, .jsonl.gz, .parquet, .arrow)",
        )


def parse_object(line: bytes, offset: int = 0) -> dict[str, object]:
    """The JSON object in one line of UTF-8.

    Args:
        line: Its bytes.
        offset: Bytes of the file before the line, for the message.

    Raises:
        RowError: Another encoding, broken JSON, another JSON value, or a key that stands twice.
    """
    try:
        value = json.loads(line.decode("utf-8"), object_pairs_hook=_object_of_unique_keys)
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise RowError(f"not UTF-8: byte 0x{byte:02x} at byte offset {offset + error.start}") from None
    except json.JSONDecodeError as error:
        raise RowError(f"not JSON: {error.msg} (column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; thousands of brackets
        raise RowError(f"JSON that cannot be read: {str(error)[:100]}") from None
    if not isinstance(value, dict):
        mend = ": one list of all rows belongs in a .json file" if isinstance(value, list) else ""
        raise RowError(f"not a JSON object but {_JSON_KIND[type(value)]}{mend}")
    return value


_JSON_KIND: dict[type, str] = {
    list: "a list",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a truth value",
    type(None): "null",
}


def _object_of_unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise RowError(f"the key {next(n for n in names if names.count(n) > 1)!r} stands twice in one object")
    return value


def _read_json(path: Path, wanted: AbstractSet[str]) -> RawRows:
    """One list of objects, or one object per line. A list is readable whole only: damage is an error of the file."""
    mend = "write one JSON list of objects, or one object per line into a .jsonl file"
    try:
        with _open(path, "JSON") as stream:
            content = stream.read().removeprefix(_UTF8_BOM)
        value = json.loads(content, object_pairs_hook=_object_of_unique_keys)
    except _GZIP_DAMAGE as damage:
        raise UsageError(f"{path}: the compressed file is damaged", why=str(damage), mend="get it again") from None
    except UnicodeDecodeError as error:
        why = f"byte 0x{error.object[error.start]:02x} at byte offset {error.start}"
        raise UsageError(f"{path}: the file is not UTF-8", why=why, mend="save it as UTF-8") from None
    except json.JSONDecodeError as error:
        if content.lstrip().startswith(b"{") and _is_object(content.splitlines()[0]):
            return _read_jsonl(path, wanted)
        raise UsageError(
            f"{path}:{error.lineno}: not JSON", why=f"{error.msg} (column {error.colno})", mend=mend
        ) from None
    except (RowError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: JSON that cannot be read", why=str(error)[:200], mend=mend) from None
    if not isinstance(value, list):
        raise UsageError(f"{path}: not a list of questions", why=f"it holds {type(value).__name__}", mend=mend)
    raw = RawRows(file=str(path))
    for number, row in enumerate(value, start=1):
        if isinstance(row, dict):
            raw.add(number, row, wanted)
        else:
            raw.add_bad(number, f"not a JSON object but {_JSON_KIND[type(row)]}")
    return raw


def _is_object(line: bytes) -> bool:
    try:
        return bool(parse_object(line))
    except RowError:
        return False


def _read_csv(path: Path, wanted: AbstractSet[str]) -> RawRows:
    """Values are text as it stands; an empty cell holds none. Row 1 follows the header."""
    raw = RawRows(file=str(path))
    delimiter = "\t" if ".tsv" in path.suffixes[-2:] else ","
    csv.field_size_limit(sys.maxsize)
    number = 0
    with io.TextIOWrapper(_open(path, "csv"), encoding="utf-8-sig", newline="") as file:
        try:
            first = file.readline()
            _require_delimiter(first, delimiter, str(path))
            reader = csv.DictReader(itertools.chain([first], file), delimiter=delimiter, strict=True)
            _require_unique([name for name in reader.fieldnames or [] if name], str(path))
            for number, row in enumerate(reader, start=1):
                if None in row:
                    raw.add_bad(number, "it has more cells than the header")
                elif None in row.values():
                    raw.add_bad(number, "it has fewer cells than the header")
                else:
                    raw.add(number, {name: value or None for name, value in row.items()}, wanted)
        except (*_GZIP_DAMAGE, UnicodeDecodeError, csv.Error) as damage:
            raw.add_bad(number + 1, f"the file cannot be read from here on ({damage}); the rest is lost")
    return raw


def _require_delimiter(header: str, delimiter: str, file: str) -> None:
    """Refuse a header that is one name between the file's delimiters, and several between others."""
    others = {mark: header.count(mark) for mark in (";", "\t", ",", "|") if mark in header}
    if not others or delimiter in others:
        return
    found = max(others, key=lambda mark: others[mark])
    raise UsageError(
        f"{file}: the delimiter is {found!r}, and the name says {delimiter!r}",
        why=f"the header is {header.strip()[:100]!r}",
        mend="rename it to .tsv" if found == "\t" else "save it with commas as .csv, or with tabs as .tsv",
    )


def _require_unique(names: Sequence[str], file: str) -> None:
    if len(set(names)) < len(names):
        raise UsageError(
            f"{file}: a column name stands twice", why=f"columns: {', '.join(names)}", mend="rename one of them"
        )


def _read_parquet(path: Path, wanted: AbstractSet[str]) -> RawRows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    raw = RawRows(file=str(path))
    try:
        with pq.ParquetFile(path) as file:
            features = described_in(file.schema_arrow, str(path))
            read = [
                field.name
                for field in file.schema_arrow
                if field.name in wanted or is_media_column(field, features.get(field.name))
            ]
            at_a_time = _ROWS_AT_A_TIME if set(read) <= wanted else _IMAGES_AT_A_TIME
            batches = file.iter_batches(columns=read, batch_size=at_a_time)
            add_batches(raw, file.schema_arrow, batches, wanted, features)
    except (pa.ArrowException, OSError, ValueError) as damage:  # ValueError: a column name that is not UTF-8
        raw.add_bad(len(raw.rows) + len(raw.bad) + 1, _damaged(damage))
    return raw


def _read_arrow(path: Path, wanted: AbstractSet[str]) -> RawRows:
    """An Arrow IPC file, or a stream (what `datasets` writes)."""
    import pyarrow as pa

    raw = RawRows(file=str(path))
    try:
        # No memory map: a file that shrinks while it is mapped kills the process.
        with pa.OSFile(str(path)) as source:
            is_file = source.read(len(_ARROW_MAGIC)) == _ARROW_MAGIC
            source.seek(0)
            reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches)) if is_file else reader
            add_batches(raw, reader.schema, batches, wanted, described_in(reader.schema, str(path)))
    except (pa.ArrowException, OSError, ValueError) as damage:
        raw.add_bad(len(raw.rows) + len(raw.bad) + 1, _damaged(damage))
    return raw


def _damaged(damage: Exception) -> str:
    return f"the file is cut off or damaged here ({str(damage).splitlines()[0]}); the rest is lost"


def add_batches(
    raw: RawRows,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    wanted: AbstractSet[str],
    features: Features,
) -> None:
    """Append the rows of Arrow record batches to `raw`.

    Args:
        raw: What they are appended to.
        schema: All columns of the table, read or not.
        batches: At least the wanted columns, and those that may hold an image or the like.
        wanted: Columns to keep.
        features: What the columns mean, where `datasets` says more than Arrow.
    """
    _require_unique(schema.names, raw.file)
    raw.columns.update({field.name: field.type for field in schema})
    for batch in batches:
        read = [
            field.name
            for field in batch.schema
            if field.name in wanted or is_media_column(field, features.get(field.name))
        ]
        chosen = batch.select(read)
        first = len(raw.rows) + len(raw.bad) + 1
        for i in range(chosen.num_rows):
            try:
                raw.add(first + i, _arrow_row(chosen.slice(i, 1), features), wanted)
            except RowError as error:
                raw.add_bad(first + i, str(error))


def _arrow_row(row: pa.RecordBatch, features: Features) -> dict[str, object]:
    """Python values of a batch of one row. Offsets and UTF-8 are validated first: bad ones would read wild memory."""
    import pyarrow as pa

    try:
        row.validate(full=True)
        return {
            field.name: values_of(features.get(field.name), field.type, shortest(field.type, column[0].as_py()))
            for field, column in zip(row.schema, row.columns, strict=True)
        }
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise RowError(f"a value that cannot be read: {str(error).splitlines()[0]}") from None


_Reader = Callable[[Path, AbstractSet[str]], RawRows]
_TEXTS: dict[str, _Reader] = {".jsonl": _read_jsonl, ".json": _read_json, ".csv": _read_csv, ".tsv": _read_csv}
READERS: dict[str, _Reader] = {suffix + packed: read for suffix, read in _TEXTS.items() for packed in ("", ".gz")} | {
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
}
