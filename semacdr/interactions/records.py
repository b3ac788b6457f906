"""Raw files as streams of Arrow batches, one file after the other; a file is never in memory as a whole.

A stream of lines (JSONL) has the columns of ``LINES``; a stream of fields (CSV, Parquet) has file_number, line, fault,
record and the table's own columns, all of them strings. ``fault`` says why a record cannot be read at all, and
``record`` holds what was found in its place.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from isal import igzip, isal_zlib

from semacdr.dataset import COMPRESSIONS, Source
from semacdr.errors import DataError, SemacdrError
from semacdr.spread import Advance

if TYPE_CHECKING:
    from _csv import Reader

BLOCK_BYTES = 4 * 2**20
MAX_LINE_BYTES = 8 * 2**20
"""Longer lines are rejected; what lies beyond is not kept in memory."""
_EXACT = 2.0**53
"""Whole doubles below this stand for one whole number each."""
MAX_RECORD = 500
"""Characters of a rejected record that are kept."""
CSV_ROWS = 20_000
CSV_MAX_SPAN = 1_000
"""Lines that one broken CSV record may swallow before the file counts as broken."""

DELIMITERS = (",", "\t", ";", "|")
"""That CSV files are cut by."""

FILE_NUMBER = pa.field("file_number", pa.int32())
FILE_LINES = pa.schema([("line", pa.int64()), ("text", pa.string()), ("fault", pa.string()), ("record", pa.string())])
LINES = FILE_LINES.insert(0, FILE_NUMBER)


class RecordStream:
    """Batches of all files of a source, to be read once by DuckDB.

    DuckDB turns an exception of its source into an error of its own, so ours is kept here and raised again by
    ``consume``.
    """

    def __init__(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
        self.schema = schema
        self._batches = batches
        self._error: SemacdrError | None = None

    def consume(self, connection: duckdb.DuckDBPyConnection, name: str, use: Callable[[], object]) -> None:
        """Register the stream as view ``name`` and call ``use``, which reads it once.

        Raises:
            DataError: a file is broken.
        """
        connection.register(name, pa.RecordBatchReader.from_batches(self.schema, self._guarded()))
        try:
            use()
        except (duckdb.Error, pa.ArrowException, OSError):
            if self._error is not None:
                raise self._error from None
            raise
        finally:
            connection.unregister(name)

    def _guarded(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._batches
        except SemacdrError as error:
            self._error = error
            raise


def open_lines(files: Mapping[int, Path], advance: Advance) -> RecordStream:
    """Return the lines of text files, numbered from 1 in each; the number counts every line."""
    return RecordStream(LINES, _in_turn(files, lambda path: _line_batches(path, advance)))


def open_fields(files: Mapping[int, Path], source: Source, columns: Sequence[str], advance: Advance) -> RecordStream:
    """Return the records of CSV or Parquet files with the table's columns; unmapped ones are null."""
    schema = pa.schema(
        [
            ("line", pa.int64()),
            ("fault", pa.string()),
            ("record", pa.string()),
            *((name, pa.string()) for name in columns),
        ]
    )
    batches = _csv_batches if source.format == "csv" else _parquet_batches
    return RecordStream(
        schema.insert(0, FILE_NUMBER), _in_turn(files, lambda path: batches(path, source, schema, advance))
    )


def _in_turn(
    files: Mapping[int, Path], batches: Callable[[Path], Iterator[pa.RecordBatch]]
) -> Iterator[pa.RecordBatch]:
    for number, path in files.items():
        for batch in batches(path):
            numbers = pa.repeat(pa.scalar(number, FILE_NUMBER.type), len(batch))
            yield pa.record_batch([numbers, *batch.columns], schema=batch.schema.insert(0, FILE_NUMBER))


def default_delimiter(path: Path) -> str:
    """Return what delimits the fields of a CSV file by its name."""
    return "\t" if ".tsv" in path.suffixes else ","


def first_records(path: Path, source: Source, count: int) -> list[dict[str, Any]]:
    """Return the first records of a file that can be read, by field: as JSON has them, else as text.

    Raises:
        DataError: the file is broken, or of another kind.
    """
    if source.format == "parquet":
        return _first_rows(path, count)
    if source.format == "csv":
        reader, _ = _csv_reader(path, source, lambda _: None)
        header, rows = _header(path, reader), list[list[str]]()
        with _wide_fields(), suppress(csv.Error):
            rows.extend(itertools.islice(reader, count))
        return [dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header)]
    # The last line is a block of its own where nothing ends it.
    block = b"".join(itertools.islice(_blocks(path, lambda _: None), 2))
    _refuse_array(path, block)
    records = []
    for line in block.split(b"\n")[:count]:
        with suppress(ValueError, RecursionError):
            records.append(json.loads(line))
    return [record for record in records if isinstance(record, dict)]


def _first_rows(path: Path, count: int) -> list[dict[str, str | None]]:
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=count):
                texts: dict[str, list[str | None]] = {}
                for name, column in zip(batch.schema.names, batch.columns, strict=True):
                    try:
                        texts[name] = _as_text(path, name, column).to_pylist()
                    except DataError:
                        texts[name] = [None] * len(batch)
                return [dict(zip(texts, row, strict=True)) for row in zip(*texts.values(), strict=True)]
            return []
    except (pa.ArrowException, OSError) as error:
        raise _broken(path, "Parquet", error) from error


def field_names(path: Path, source: Source) -> list[str]:
    """Return the columns that a CSV or Parquet file says it has.

    Raises:
        DataError: the file is broken.
    """
    if source.format == "csv":
        return _header(path, _csv_reader(path, source, lambda _: None)[0])
    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise _broken(path, "Parquet", error) from error


def _broken(path: Path, kind: str, error: Exception) -> DataError:
    return DataError(
        f"{path.name} is broken, or no {kind} file",
        found=f"{error} ({path})",
        expected=f"a whole {kind} file",
        do="fetch or write the file again",
    )


def _decompressed(path: Path, raw: IO[bytes]) -> IO[bytes]:
    if path.suffix == ".gz":
        return igzip.open(raw)  # type: ignore[no-untyped-call, no-any-return]
    # Python's own bz2 is missing where it was built without the library.
    codec = {".zst": "zstd", ".bz2": "bz2"}.get(path.suffix)
    return pa.CompressedInputStream(pa.PythonFile(raw, "r"), codec) if codec else raw


def _blocks(path: Path, advance: Advance, *, cr: bool = False) -> Iterator[bytes]:
    """Yield blocks of whole lines. Of a line beyond ``MAX_LINE_BYTES`` only the beginning is there.

    Args:
        path: the file.
        advance: takes bytes read.
        cr: a carriage return ends a line, too.
    """
    with path.open("rb") as raw:
        stream = _decompressed(path, raw)
        carry, position, first = b"", 0, True
        while block := _read(path, stream):
            advance(raw.tell() - position)
            position = raw.tell()
            if first:
                _refuse_foreign(path, block)
                block, first = block.removeprefix(b"\xef\xbb\xbf"), False
            if len(carry) > MAX_LINE_BYTES:
                ends = [at for end in (b"\n", b"\r")[: 1 + cr] if (at := block.find(end)) >= 0]
                if not ends:
                    continue
                block = block[min(ends) :]
            block = carry + block
            # A carriage return at the end may have its line feed in the next block.
            cut = max(block.rfind(b"\n"), block.rfind(b"\r", 0, len(block) - 1) if cr else -1) + 1
            carry = block[cut : cut + MAX_LINE_BYTES + 1]
            if cut:
                yield block[:cut]
        if carry:
            yield carry


_FOREIGN = {
    b"PK\x03\x04": "a zip archive (or an Excel file)",
    b"BZh": "bzip2, compressed twice or without .bz2 at the end of its name",
    b"\x28\xb5\x2f\xfd": "Zstandard, compressed twice or without .zst at the end of its name",
    b"\xfd7zXZ\x00": "compressed with xz",
    b"\x1f\x8b": "gzip, compressed twice or without .gz at the end of its name",
    b"PAR1": "Parquet",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
"""How files begin that are no text in UTF-8."""


def _refuse_foreign(path: Path, block: bytes) -> None:
    for beginning, what in _FOREIGN.items():
        if block.startswith(beginning):
            ends = ", ".join(COMPRESSIONS)
            raise DataError(
                f"{path.name} is no text",
                found=f"{what} ({path})",
                expected=f"UTF-8, plain or in a file whose name ends in {ends}; or Parquet, if `format` says so",
                do="mend its name, or write it anew",
            )


def _refuse_array(path: Path, block: bytes) -> None:
    """Look whether a file begins as one JSON array that goes on in the next line, or is the only line."""
    first, *others = block.lstrip().split(b"\n", 2)
    first = first.rstrip()
    goes_on = first == b"[" or first.endswith(b",") or b"".join(others).lstrip()[:1] in {b"", b","}
    if first.startswith(b"[") and goes_on:
        raise DataError(
            f"{path.name} is one JSON array",
            found=f"{first[:40].decode(errors='replace')} ({path})",
            expected="JSON lines: one object a line",
            do="write it so: jq -c '.[]' FILE > FILE.jsonl",
        )


def _read(path: Path, stream: IO[bytes]) -> bytes:
    try:
        return stream.read(BLOCK_BYTES)
    except isal_zlib.error as error:  # type: ignore[misc]
        raise _broken(path, COMPRESSIONS[path.suffix], error) from error
    except (OSError, EOFError) as error:
        if path.suffix not in COMPRESSIONS:
            raise
        raise _broken(path, COMPRESSIONS[path.suffix], error) from error


def _line_batches(path: Path, advance: Advance) -> Iterator[pa.RecordBatch]:
    line = 1
    for block in _blocks(path, advance):
        if line == 1:
            _refuse_array(path, block)
        ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + 1
        if not block.endswith(b"\n"):
            ends = np.append(ends, len(block))
        offsets = np.concatenate([[0], ends]).astype(np.int32)
        numbers = pa.array(np.arange(line, line + len(ends)))
        line += len(ends)
        if _is_utf8(block) and np.diff(offsets).max() <= MAX_LINE_BYTES:
            text = pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(block))
            nothing = pa.nulls(len(ends), pa.string())
            yield pa.record_batch([numbers, text, nothing, nothing], schema=FILE_LINES)
        else:
            yield _judged_lines(numbers, [block[a:b] for a, b in itertools.pairwise(offsets)])


def _judged_lines(numbers: pa.Array, lines: list[bytes]) -> pa.RecordBatch:
    faults = [
        "line too long" if len(line) > MAX_LINE_BYTES else None if _is_utf8(line) else "not utf-8" for line in lines
    ]
    texts = [None if fault else line.decode() for fault, line in zip(faults, lines, strict=True)]
    records = [
        line[: 4 * MAX_RECORD].decode(errors="replace")[:MAX_RECORD] if fault else None
        for fault, line in zip(faults, lines, strict=True)
    ]
    return pa.record_batch(
        [numbers, pa.array(texts, pa.string()), pa.array(faults, pa.string()), pa.array(records, pa.string())],
        schema=FILE_LINES,
    )


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


class _Lines:
    """Lines of text, of which the last ones are remembered."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._last: deque[str] = deque(maxlen=CSV_MAX_SPAN + 1)

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self._last.append(line)
            yield line

    def last(self, count: int) -> list[str]:
        """Return the last lines that were read, at most as many as one broken record may swallow."""
        return list(self._last)[-count:] if count else []


def _csv_reader(path: Path, source: Source, advance: Advance) -> tuple[Reader, _Lines]:
    """Read CSV over blocks: bad bytes become lone surrogates, so that the other records stay readable."""
    texts = (block.decode(errors="surrogateescape") for block in _blocks(path, advance, cr=True))
    lines = _Lines(itertools.chain.from_iterable(io.StringIO(text, newline="") for text in texts))
    delimiter = source.delimiter or default_delimiter(path)
    return csv.reader(lines, delimiter=delimiter, strict=True), lines


def _header(path: Path, reader: Reader) -> list[str]:
    try:
        with _wide_fields():
            return next(reader, [])
    except csv.Error as error:
        raise _broken(path, "CSV", error) from error


@contextmanager
def _wide_fields() -> Iterator[None]:
    """Let a field be as long as a line may be."""
    limit = csv.field_size_limit(MAX_LINE_BYTES)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _csv_batches(path: Path, source: Source, schema: pa.Schema, advance: Advance) -> Iterator[pa.RecordBatch]:
    reader, lines = _csv_reader(path, source, advance)
    header = _header(path, reader)
    positions = [
        header.index(field) if (field := source.columns.get(name)) in header else None for name in schema.names[3:]
    ]
    record = 1
    while True:
        start = reader.line_num
        rows, broken = _csv_rows(reader)
        swallowed = 0
        if broken is not None:
            swallowed = reader.line_num - start - sum(map(_lines_of, rows))
            if swallowed > CSV_MAX_SPAN:
                raise DataError(
                    f"{path.name}: a quote is opened near record {record + len(rows)} and not closed",
                    found=f"{broken}; {swallowed} lines taken as one record ({path})",
                    expected="quotes in pairs, one inside a quoted field written twice",
                    do="mend the file",
                )
        records = [row for row in rows if row]
        yield _csv_batch(records, record, positions, width=len(header), schema=schema)
        record += len(records)
        if broken is not None:
            # Each line that went down with it is a record that is lost, and counts as one.
            for line in lines.last(max(swallowed, 1)):
                text = line.rstrip("\r\n")[:MAX_RECORD].encode(errors="surrogateescape").decode(errors="replace")
                yield _faulty(schema, record, "malformed csv", text)
                record += 1
        elif len(rows) < CSV_ROWS:
            return


def _csv_rows(reader: Reader) -> tuple[list[list[str]], csv.Error | None]:
    """Return the next rows, at most ``CSV_ROWS``, and the error that ended them early."""
    rows: list[list[str]] = []
    try:
        with _wide_fields():
            # What was read before the error stays in the list.
            rows.extend(itertools.islice(reader, CSV_ROWS))
    except csv.Error as error:
        return rows, error
    return rows, None


def _lines_of(row: list[str]) -> int:
    return 1 + sum(field.replace("\r\n", "\n").replace("\r", "\n").count("\n") for field in row)


def _csv_batch(
    rows: list[list[str]], first: int, positions: list[int | None], *, width: int, schema: pa.Schema
) -> pa.RecordBatch:
    faults: list[str | None] = [None] * len(rows)
    records: list[str | None] = [None] * len(rows)
    for number, row in enumerate(rows):
        if len(row) != width:
            faults[number] = "wrong number of fields"
        elif not "".join(row).isascii() and not _is_encodable(row):
            faults[number] = "not utf-8"
        if faults[number]:
            text = ",".join(row)[:MAX_RECORD]
            records[number] = text.encode(errors="surrogateescape").decode(errors="replace")
    columns = [
        pa.nulls(len(rows), pa.string())
        if position is None
        else pa.array([None if fault else row[position] for row, fault in zip(rows, faults, strict=True)], pa.string())
        for position in positions
    ]
    numbers = pa.array(range(first, first + len(rows)), pa.int64())
    texts = [pa.array(faults, pa.string()), pa.array(records, pa.string())]
    return pa.record_batch([numbers, *texts, *columns], schema=schema)


def _is_encodable(row: list[str]) -> bool:
    try:
        "".join(row).encode()
    except UnicodeEncodeError:
        return False
    return True


def _faulty(schema: pa.Schema, line: int, fault: str, record: str | None) -> pa.RecordBatch:
    row = {name: [None] for name in schema.names} | {"line": [line], "fault": [fault], "record": [record]}
    return pa.record_batch(row, schema=schema)


def _parquet_batches(path: Path, source: Source, schema: pa.Schema, advance: Advance) -> Iterator[pa.RecordBatch]:
    row, size = 1, path.stat().st_size
    try:
        with pq.ParquetFile(path) as file:
            there = file.schema_arrow.names
            if twice := sorted({field for field in source.columns.values() if there.count(field) > 1}):
                raise DataError(
                    f"{path.name} has several columns called {twice[0]!r}",
                    found=f"{', '.join(there)} ({path})",
                    expected="one column of each name",
                    do="write the file anew with names of their own",
                )
            mapped = sorted({field for field in source.columns.values() if field in there})
            for batch in file.iter_batches(batch_size=65_536, columns=mapped):
                advance(size * len(batch) // max(file.metadata.num_rows, 1))
                nothing = pa.nulls(len(batch), pa.string())
                columns = [
                    _as_text(path, field, batch.column(field))
                    if (field := source.columns.get(name)) in mapped
                    else nothing
                    for name in schema.names[3:]
                ]
                numbers = pa.array(np.arange(row, row + len(batch)))
                row += len(batch)
                yield pa.record_batch([numbers, nothing, nothing, *columns], schema=schema)
    except (pa.ArrowException, OSError) as error:
        raise _broken(path, "Parquet", error) from error


def _as_text(path: Path, field: str, column: pa.Array) -> pa.Array:
    """Return values as a JSONL file would hold them: lists as JSON, times as ISO 8601 in UTC, NaN as null."""
    kind = column.type
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
        if pa.types.is_float16(kind):  # no arithmetic
            column = column.cast(pa.float32())
            kind = column.type
        whole = pc.and_(pc.equal(pc.trunc(column), column), pc.less(pc.abs(column), _EXACT))
        if pc.any(whole).as_py():
            # An id of a column that lacks some is a float to pandas: 1.2e+10 would be another than 12000000000.
            digits = pc.if_else(whole, column, pa.scalar(None, kind)).cast(pa.int64()).cast(pa.string())
            return pc.coalesce(digits, column.cast(pa.string()))
    if pa.types.is_nested(kind):
        values = column.to_pylist()
        texts = [None if value is None else json.dumps(value, ensure_ascii=False, default=str) for value in values]
        return pa.array(texts, pa.string())
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        # Instants are kept in UTC; without the zone they print without needing a time zone database.
        column = column.cast(pa.timestamp(kind.unit, "UTC")).cast(pa.timestamp(kind.unit))
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{path.name}: values of {field!r} are no text",
            found=f"{kind}: {error}",
            expected="a column of strings, numbers or times",
            do="write it as strings",
        ) from error
