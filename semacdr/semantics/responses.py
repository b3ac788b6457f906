"""The response cache: every answer of every LLM, kept for good, so that none is paid for twice.

A folder of append-only journals, shared by all data sets of a store, each written by one process that asked. A line has
a checksum: one that was cut or has a flipped bit costs its own answer and no other. A journal that nobody writes any
more is copied once into a columnar segment (``segments.py``), and looked up there.

A line is flushed to the operating system before the next item is asked, so killing the process loses nothing. There is
no fsync: after a power cut the last seconds' answers may be asked again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import duckdb
import polars as pl
import structlog

from semacdr.errors import StoreError
from semacdr.semantics.record import MAX_RAW_CHARS, NAMES, SCHEMA, Record, to_frame, to_line, utc_now
from semacdr.semantics.segments import find_segment, read_lines, write_segment
from semacdr.tables import scan_files

__all__ = ["MAX_RAW_CHARS", "Record", "Responses", "utc_now"]

log = structlog.get_logger()

JOURNAL_BYTES = 64 << 20
"""A writer goes on in a new journal then: bounds what is read line by line, and what is held of it."""
_SLICE_ROWS = 50_000


@dataclass
class _Tail:
    """A journal that someone still writes, as far as it was read."""

    end: int = 0
    torn: bool = False
    frames: list[pl.DataFrame] = field(default_factory=list)


class Responses:
    """The answers of one folder. Safe to use from several threads, and beside other processes that write.

    Args:
        folder: ``<store>/responses``; made at the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._sealed: dict[Path, Path] = {}
        """Journal -> its segment, found whole."""
        self._tails: dict[Path, _Tail] = {}
        self._own: BinaryIO | None = None
        self._own_bytes = 0

    def answered(self, keys: Iterable[str]) -> set[str]:
        """Return those of the keys that have an answer, accepted or failed for good."""
        return set(self.table(keys, ["key"])["key"])

    def get(self, keys: Iterable[str]) -> dict[str, Record]:
        """Return the records of those of the keys that have one."""
        return {record.key: record for record in self.scan(keys)}

    def scan(self, keys: Iterable[str]) -> Iterator[Record]:
        """Yield the records of those of the keys that have one, in no order."""
        for part in self.table(keys, NAMES).iter_slices(_SLICE_ROWS):
            for row in part.iter_rows(named=True):
                yield Record(**row)

    def table(self, keys: Iterable[str] | pl.Series, columns: Sequence[str] = tuple(SCHEMA)) -> pl.DataFrame:
        """Return the records of those of the keys that have one: a row each, in the order they were kept.

        Args:
            keys: a million of them are found in about a second.
            columns: of ``record.SCHEMA``: the fields of ``Record``, and its ``digest``.
        """
        wanted = pl.Series("key", keys if isinstance(keys, pl.Series) else list(keys), dtype=pl.String)
        answers = self.all()
        if wanted.is_empty():
            return answers.select(columns).head(0).collect()
        found = answers.select("key", "status").with_row_index("place")
        found = found.join(pl.LazyFrame({"key": wanted}), on="key", how="semi")
        # Two processes may have asked the same: an accepted answer wins, then the one that was kept first.
        best = found.sort(pl.col("status") != "ok", "place").unique("key", keep="first").select("place").collect()
        rows = answers.with_row_index("place").join(best.lazy(), on="place", how="semi", maintain_order="left")
        return rows.select(columns).collect()

    def all(self) -> pl.LazyFrame:
        """Return every record there is, several of one key included, oldest journal first, with its ``journal``."""
        with self._lock:
            self._refresh()
            parts = []
            for journal in sorted(self._sealed.keys() | self._tails.keys()):
                if journal in self._sealed:
                    frame = scan_files(self._sealed[journal])
                else:
                    tail = self._tails[journal]
                    tail.frames = [pl.concat([to_frame([]), *tail.frames])]
                    frame = tail.frames[0].lazy()
                parts.append(frame.with_columns(journal=pl.lit(journal.name)))
        return pl.concat(parts or [to_frame([]).lazy().with_columns(journal=pl.lit(""))])

    def create_view(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Make every record readable as ``answers`` in SQL, several of one key included, as of now."""
        with self._lock:
            self._refresh()
            files = [str(path) for path in self._sealed.values()]
            tails = [frame for tail in self._tails.values() for frame in tail.frames]
        connection.from_arrow(pl.concat([to_frame([]), *tails]).to_arrow()).create("unsealed")
        sealed = (
            connection.read_parquet(files, hive_partitioning=False) if files else connection.table("unsealed").limit(0)
        )
        sealed.create_view("sealed")
        connection.execute("create view answers as from sealed union all by name from unsealed")

    def digest(self, keys: Iterable[str] | pl.Series) -> tuple[int, str]:
        """Return how many of the keys have an answer, and the sha256 of what a table takes from these answers."""
        found = self.table(keys, ["key", "digest"]).sort("key")
        total = hashlib.sha256()
        for part in found.iter_slices(_SLICE_ROWS):
            lines = part.select(pl.concat_str("key", pl.lit(":"), "digest", pl.lit("\n"))).to_series()
            total.update("".join(lines).encode())
        return found.height, total.hexdigest()

    def put(self, *records: Record) -> None:
        """Append records and flush them.

        Raises:
            StoreError: the journal cannot be written; what it held before is whole.
        """
        lines = b"".join(map(to_line, records))
        with self._lock:
            try:
                self._append(lines)
            except OSError as error:
                raise StoreError(
                    f"answers cannot be kept in {self.folder}",
                    found=error.strerror or error,
                    do="make room or mend the permissions and run again; answers that were kept are not asked again",
                ) from error

    def close(self) -> None:
        """Close this process's journal; a later ``put`` opens another."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._own:
            self._own.close()
            self._own, self._own_bytes = None, 0

    def _append(self, lines: bytes) -> None:
        if self._own_bytes >= JOURNAL_BYTES:
            self._close()
        if self._own is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
            self._own = (self.folder / name).open("xb", buffering=0)
            self._own_bytes = 0
            # Held until this process closes it or dies: tells the others that it is being written. Who looks at it
            # right now holds it for a moment.
            fcntl.flock(self._own, fcntl.LOCK_EX)
        written = 0
        try:
            while written < len(lines):
                written += self._own.write(lines[written:])
        except OSError:
            # Without this the next line would be joined to the torn one.
            self._own.truncate(self._own_bytes)
            self._own.seek(self._own_bytes)
            raise
        self._own_bytes += written

    def _refresh(self) -> None:
        """Look for journals that are new or have grown."""
        damaged: dict[str, int] = {}
        for journal in sorted(self.folder.glob("*.jsonl")):
            if journal in self._sealed:
                continue
            try:
                faults = self._seal(journal)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StoreError(f"answers cannot be read: {journal}", found=error.strerror or error) from error
            if faults:
                damaged[journal.name] = faults
        if damaged:
            log.warning(
                "answers lost to damaged lines; they will be asked again",
                folder=str(self.folder),
                lines=sum(damaged.values()),
                files=list(damaged)[:5],
            )

    def _seal(self, journal: Path) -> int:
        """Find or make a journal's segment, or read on in one that is being written; return its damaged lines."""
        if segment := find_segment(journal):
            self._sealed[journal] = segment
            return 0
        if not journal.stat().st_size:
            # Its writer has made it and not locked it yet.
            return 0
        faults = 0
        with journal.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                faults = write_segment(journal)
            except OSError:
                # Someone writes it, or it lies where we may not write or where there is no room: read it as it is.
                return self._read_on(journal)
        if segment := find_segment(journal):
            known = self._tails.pop(journal, None)
            self._sealed[journal] = segment
            return 0 if known else faults
        return self._read_on(journal)

    def _read_on(self, journal: Path) -> int:
        tail = self._tails.setdefault(journal, _Tail())
        faults = 0
        with contextlib.closing(read_lines(journal, tail.end)) as parts:
            for lines in parts:
                tail.frames.append(lines.frame)
                tail.end = lines.end
                faults += lines.damaged + (lines.torn and not tail.torn)
                tail.torn = tail.torn or lines.torn
        return faults
