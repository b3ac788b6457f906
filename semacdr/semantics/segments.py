"""Columnar copies of finished journals: a million answers are looked up in seconds, without parsing their lines.

A segment is a Parquet file that can be made again from its journal at any time. Its name says of which journal's state
it is the copy (size and time of change) and what its own bytes sum up to, so one ``os.replace`` publishes it whole:

    <folder>/segments/<journal>.<format>-<bytes>-<mtime_ns>-<crc32>.parquet

A journal that was cut, damaged or edited since has another state: it is read line by line again.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow.parquet as pq
import structlog

from semacdr.semantics.record import Record, from_line, is_whole, to_frame

log = structlog.get_logger()

FOLDER = "segments"
FORMAT = 2
"""Raised when the columns or the digest of a record change: segments are made again then."""
BATCH_LINES = 10_000
_CHUNK_BYTES = 1 << 20


class Lines(NamedTuple):
    """What was read of a journal."""

    frame: pl.DataFrame
    end: int
    """Where the next line begins."""
    damaged: int
    """Lines that are not as they were written."""
    torn: bool
    """The last line has no end: its writer was killed, or is writing it."""


def read_lines(journal: Path, offset: int = 0) -> Generator[Lines]:
    """Yield a journal's whole lines from ``offset`` on, at most ``BATCH_LINES`` at a time."""
    records: list[Record] = []
    damaged = 0
    with journal.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                yield Lines(to_frame(records), offset, damaged, torn=True)
                return
            offset += len(line)
            if is_whole(line):
                records.append(from_line(line))
            else:
                damaged += 1
            if len(records) == BATCH_LINES:
                yield Lines(to_frame(records), offset, damaged, torn=False)
                records, damaged = [], 0
    if records or damaged:
        yield Lines(to_frame(records), offset, damaged, torn=False)


def find_segment(journal: Path) -> Path | None:
    """Return the segment of a journal's present state, if there is one and it is whole."""
    for path in _segments_of(journal, _state(journal)):
        if _crc32(path) == path.stem.rsplit("-", 1)[1]:
            return path
        log.warning("a damaged copy of answers is made again; none is lost", file=str(path), journal=journal.name)
        with contextlib.suppress(OSError):
            path.unlink()
    return None


def write_segment(journal: Path) -> int:
    """Copy a journal that nobody writes any more; return how many of its lines are damaged.

    Raises:
        OSError: no room, or no right to write.
    """
    state = _state(journal)
    folder = journal.parent / FOLDER
    folder.mkdir(exist_ok=True)
    temporary = folder / f".{journal.stem}.{os.getpid()}.tmp"
    faults = 0
    try:
        schema = to_frame([]).to_arrow().schema
        with pq.ParquetWriter(temporary, schema, compression="zstd", use_dictionary=False) as writer:
            for lines in read_lines(journal):
                faults += lines.damaged + lines.torn
                writer.write_table(lines.frame.to_arrow())
        final = folder / f"{journal.stem}.{state}-{_crc32(temporary)}.parquet"
        os.replace(temporary, final)  # noqa: PTH105 (says what it does)
    finally:
        temporary.unlink(missing_ok=True)
    # Copies of earlier states, and of journals that are gone: who deletes one wants its items asked again.
    journals = {path.stem for path in journal.parent.glob("*.jsonl")}
    for path in folder.glob("*.parquet"):
        stem = path.name.split(".", 1)[0]
        if stem not in journals or (stem == journal.stem and path != final):
            path.unlink(missing_ok=True)
    return faults


def _state(journal: Path) -> str:
    stat = journal.stat()
    return f"{FORMAT}-{stat.st_size}-{stat.st_mtime_ns}"


def _segments_of(journal: Path, state: str) -> list[Path]:
    return sorted((journal.parent / FOLDER).glob(f"{journal.stem}.{state}*.parquet"))


def _crc32(path: Path) -> str:
    total = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            total = zlib.crc32(chunk, total)
    return f"{total:08x}"
