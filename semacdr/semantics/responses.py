"""The response cache: every answer of every LLM, kept for good, so that none is paid for twice.

A folder of append-only journals, one per process that ever asked, one JSON object a line, shared by all data sets of a
store. ``key`` is the first field and ``checksum`` the last, both of fixed width: a reader indexes a line by slicing it,
and a line that was cut or has a flipped bit costs one answer and no other.

A line is flushed to the operating system before the next item is asked, so killing the process loses nothing. There is
no fsync: after a power cut the last seconds' answers may be asked again.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import structlog

from semacdr.errors import StoreError
from semacdr.manifest import fingerprint

log = structlog.get_logger()

MAX_RAW_CHARS = 2_000

_HEAD = b'{"key": "'
_KEY = slice(len(_HEAD), len(_HEAD) + 64)
_TAIL = b', "checksum": "%08x"}\n'
_TAIL_LENGTH = len(_TAIL % 0)
_ACCEPTED = b'", "status": "ok", '
_STATUS = slice(_KEY.stop, _KEY.stop + len(_ACCEPTED))
_OFFSET_BITS = 40  # a journal of up to 1 TB


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One answered item."""

    key: str
    status: str
    """``ok`` or ``failed``."""
    reason: str | None = None
    """Why it failed."""
    model: str
    revision: str
    prompt: str
    text_hash: str
    specific: str | None = None
    agnostic: str | None = None
    raw: str = ""
    """What the model said, at most ``MAX_RAW_CHARS`` characters."""
    prompt_tokens: int = 0
    """Of the call whose answer this is."""
    completion_tokens: int = 0
    finish_reason: str | None = None
    calls: int = 1
    """2 when the first answer was not accepted."""
    spent_tokens: int = 0
    """Prompt and completion tokens of all its calls."""
    seconds: float = 0.0
    created_at: str = ""
    """ISO 8601, UTC."""
    source: str = "generated"

    @property
    def accepted(self) -> bool:
        """Whether it holds two texts."""
        return self.status == "ok"

    @property
    def digest(self) -> str:
        """sha256 of what a table takes from it: not of how long it took, nor of when."""
        return fingerprint(
            [self.status, self.reason, self.specific, self.agnostic, self.prompt_tokens, self.completion_tokens]
        )


_FIELDS = frozenset(field.name for field in fields(Record))


def utc_now() -> str:
    """Return the time as records keep it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Responses:
    """The journals of one folder. Safe to use from several threads, and beside other processes that write.

    Args:
        folder: ``<store>/responses``; made at the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._places: dict[bytes, int] = {}
        """Key -> journal number and offset in one integer, and whether accepted: small, for a million answers."""
        self._journals: list[Path] = []
        self._read_until: dict[Path, int] = {}
        self._torn: set[Path] = set()
        """Journals whose last line is not ended: warned of once, and looked at again when they grow."""
        self._own: BinaryIO | None = None

    def answered(self, keys: Iterable[str]) -> set[str]:
        """Return those of the keys that have an answer, accepted or failed for good."""
        with self._lock:
            self._refresh()
            return {key for key in keys if bytes.fromhex(key) in self._places}

    def get(self, keys: Iterable[str]) -> dict[str, Record]:
        """Return the records of those of the keys that have one."""
        return {record.key: record for record in self.scan(keys)}

    def scan(self, keys: Iterable[str]) -> Iterator[Record]:
        """Yield the records of those of the keys that have one, in no order; holds one at a time."""
        with self._lock:
            self._refresh()
            wanted = sorted(self._places[key] for key in {bytes.fromhex(key) for key in keys} if key in self._places)
            journals = list(self._journals)
        opened: BinaryIO | None = None
        number = -1
        try:
            for place in wanted:
                if number != place >> (_OFFSET_BITS + 1):
                    number = place >> (_OFFSET_BITS + 1)
                    if opened:
                        opened.close()
                    opened = _open(journals[number])
                assert opened is not None
                opened.seek((place >> 1) & ((1 << _OFFSET_BITS) - 1))
                raw = json.loads(opened.readline())
                yield Record(**{name: raw[name] for name in _FIELDS if name in raw})
        finally:
            if opened:
                opened.close()

    def put(self, record: Record) -> None:
        """Append one record and flush it.

        Raises:
            StoreError: the journal cannot be written; what it held before is whole.
        """
        values = asdict(record)
        values["raw"] = record.raw[:MAX_RAW_CHARS]
        # ASCII, so that a lone surrogate of a broken answer is kept as it came.
        body = json.dumps(values).encode()[:-1]
        line = body + _TAIL % zlib.crc32(body)
        assert body.startswith(_HEAD)
        with self._lock:
            try:
                self._append(line)
            except OSError as error:
                raise StoreError(
                    f"answers cannot be kept in {self.folder}",
                    found=error.strerror or error,
                    do="make room or mend the permissions and run again; answers that were kept are not asked again",
                ) from error

    def close(self) -> None:
        """Close this process's journal; a later ``put`` opens another."""
        with self._lock:
            if self._own:
                self._own.close()
                self._own = None

    def _append(self, line: bytes) -> None:
        if self._own is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
            self._own = (self.folder / name).open("xb", buffering=0)
        start = self._own.tell()
        written = 0
        try:
            while written < len(line):
                written += self._own.write(line[written:])
        except OSError:
            # Without this the next line would be joined to the torn one.
            self._own.truncate(start)
            self._own.seek(start)
            raise

    def _refresh(self) -> None:
        """Read what was appended, by anyone, since the last look."""
        damaged: dict[str, int] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            if path not in self._read_until:
                self._journals.append(path)
            before = self._read_until.setdefault(path, 0)
            if path.stat().st_size > before:
                faults = self._read(path, self._journals.index(path), before)
                if faults:
                    damaged[path.name] = faults
        if damaged:
            log.warning(
                "answers lost to damaged lines; they will be asked again",
                folder=str(self.folder),
                lines=sum(damaged.values()),
                files=list(damaged)[:5],
            )

    def _read(self, path: Path, number: int, offset: int) -> int:
        faults = 0
        with _open(path) as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    faults += path not in self._torn
                    self._torn.add(path)
                    break
                if _is_whole(line):
                    self._index(line, number, offset)
                else:
                    faults += 1
                offset += len(line)
                self._read_until[path] = offset
        return faults

    def _index(self, line: bytes, number: int, offset: int) -> None:
        key = bytes.fromhex(line[_KEY].decode())
        accepted = line[_STATUS] == _ACCEPTED
        known = self._places.get(key)
        # Two processes may have asked the same: an accepted answer wins, then the one that was read first.
        if known is None or (accepted and not known & 1):
            self._places[key] = (number << _OFFSET_BITS | offset) << 1 | accepted


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise StoreError(f"answers cannot be read: {path}", found=error.strerror or error) from error


def _is_whole(line: bytes) -> bool:
    body = line[:-_TAIL_LENGTH]
    return line.startswith(_HEAD) and line[-_TAIL_LENGTH:] == _TAIL % zlib.crc32(body)
