"""One answered item, and the line that keeps it: JSON with the key first and a checksum last, both of fixed width."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

import polars as pl

MAX_RAW_CHARS = 2_000

_HEAD = b'{"key": "'
_TAIL = b', "checksum": "%08x"}\n'
_TAIL_LENGTH = len(_TAIL % 0)


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
    fields: str | None = None
    """JSON object of what else the answer holds, by the prompt's schema."""
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
        texts = [self.status, self.reason, self.specific, self.agnostic, self.fields, self.raw, self.finish_reason]
        written_by = [self.source, self.model, self.revision, self.prompt]
        taken = [*texts, *written_by, self.prompt_tokens, self.completion_tokens]
        return hashlib.sha256(json.dumps(taken).encode()).hexdigest()


NAMES = tuple(field.name for field in fields(Record))
_TYPES: Mapping[str, type[pl.DataType]] = {"str": pl.String, "int": pl.Int64, "float": pl.Float64}
SCHEMA: dict[str, type[pl.DataType]] = {
    **{field.name: _TYPES[str(field.type).removesuffix(" | None")] for field in fields(Record)},
    "digest": pl.String,
}
"""The columns of records as a table."""


def utc_now() -> str:
    """Return the time as records keep it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def to_line(record: Record) -> bytes:
    """Return the line that keeps a record."""
    values: dict[str, Any] = {name: getattr(record, name) for name in NAMES}
    # A broken answer may hold half a surrogate pair, which no Parquet file and no SQL reader takes.
    values["raw"] = record.raw[:MAX_RAW_CHARS].encode(errors="replace").decode()
    body = json.dumps(values).encode()[:-1]
    return body + _TAIL % zlib.crc32(body)


def is_whole(line: bytes) -> bool:
    """Tell whether a line is as it was written."""
    body = line[:-_TAIL_LENGTH]
    return line.startswith(_HEAD) and line[-_TAIL_LENGTH:] == _TAIL % zlib.crc32(body)


def from_line(line: bytes) -> Record:
    """Return the record of a whole line; fields that it does not have are as by default, unknown ones left out."""
    raw = json.loads(line)
    return Record(**{name: raw[name] for name in NAMES if name in raw})


def to_frame(records: list[Record]) -> pl.DataFrame:
    """Return records as a table of ``SCHEMA``."""
    columns: dict[str, list[Any]] = {name: [getattr(record, name) for record in records] for name in SCHEMA}
    return pl.DataFrame(columns, schema=SCHEMA)
