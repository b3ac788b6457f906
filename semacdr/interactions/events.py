"""The events of one domain: every record judged, in order, each event once; the others to the rejects."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semacdr.database import ahead, kept_pages, read_sql, sorting_room, write_parquet
from semacdr.dataset import Filters, InteractionSource
from semacdr.interactions.sorting import in_order
from semacdr.interactions.staging import read_records
from semacdr.spread import Advance

INTERACTIONS = pa.schema(
    [
        ("user_id", pa.string()),
        ("domain", pa.string()),
        ("item_id", pa.string()),
        ("timestamp_s", pa.int64()),
        ("rating", pa.float64()),
    ]
)
ROWS_PER_GROUP = 100_000
UNITS_PER_SECOND = {"milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
FILLED_BY = {"user_id": "user_id", "item_id": "item_id", "timestamp_s": "timestamp", "rating": "rating"}
"""Column of a judged record -> column of the source."""


@dataclass
class Events:
    """What one domain's log held."""

    records: int = 0
    """Blank lines left out."""
    filled: dict[int, set[str]] = field(default_factory=dict)
    """Number of a file with records -> the source's columns that have a value in it."""
    accepted: int = 0
    users: int = 0
    first_timestamp_s: int | None = None
    last_timestamp_s: int | None = None


def write_events(
    connection: duckdb.DuckDBPyConnection,
    domain: str,
    source: InteractionSource,
    filters: Filters,
    files: Mapping[int, Path],
    output: Path,
    advance: Advance,
) -> Events:
    """Write the file of the domain's accepted events, and all other records into ``event_rejects``.

    Raises:
        DataError: a file is broken.
    """
    events = Events()
    parameters = {
        "time_format": source.time_format,
        "units_per_second": UNITS_PER_SECOND.get(source.time_format, 1),
        "min_timestamp_s": filters.min_timestamp_s,
        "max_timestamp_s": filters.max_timestamp_s,
        "until_s": filters.until_s,
    }

    held_bytes, folder = sorting_room(connection)

    def write() -> None:
        # What reads ahead ends before what it reads from, on failure as well: DuckDB refuses all else until then.
        judging = connection.sql(read_sql("ingest/judged_events"), params=parameters)
        with (
            connection.cursor() as rejects,
            kept_pages(),
            judging.to_arrow_reader(ROWS_PER_GROUP) as judged,
            closing(ahead(judged)) as records,
        ):
            refuse = _refuser(rejects)
            accepted = _accepted(_noted(records, events), refuse)
            once = _each_once(in_order(accepted, held_bytes, folder), refuse)
            with closing(ahead(_counted(once, domain, events))) as rows:
                write_parquet(output, INTERACTIONS, rows, ROWS_PER_GROUP, delta=["timestamp_s"])

    read_records(connection, "interactions", source, files, advance, write)
    return events


def _refuser(connection: duckdb.DuckDBPyConnection) -> Callable[[pa.RecordBatch], None]:
    def refuse(batch: pa.RecordBatch) -> None:
        if "refusal" not in batch.schema.names:
            batch = batch.append_column("refusal", pa.nulls(len(batch), pa.string()))
        connection.register("refused", batch)
        connection.execute(read_sql("ingest/event_rejects"))
        connection.unregister("refused")

    return refuse


def _noted(batches: Iterable[pa.RecordBatch], events: Events) -> Iterator[pa.RecordBatch]:
    """Pass on judged records; counts them, and notes which columns have values."""
    for batch in batches:
        events.records += len(batch)
        numbers = batch.column("place").to_numpy() >> 40
        starts = np.flatnonzero(np.diff(numbers, prepend=-1)).tolist()
        for start, end in itertools.pairwise([*starts, len(batch)]):
            records = batch.slice(start, end - start)
            events.filled.setdefault(int(numbers[start]), set()).update(
                column for name, column in FILLED_BY.items() if records.column(name).null_count < len(records)
            )
        yield batch


def _accepted(batches: Iterable[pa.RecordBatch], refuse: Callable[[pa.RecordBatch], None]) -> Iterator[pa.RecordBatch]:
    """Yield the records without a refusal; refuse the others."""
    for batch in batches:
        is_accepted = batch.column("refusal").is_null()
        yield _kept(batch, is_accepted.to_numpy(zero_copy_only=False), refuse).drop_columns("refusal")


def _each_once(batches: Iterable[pa.RecordBatch], refuse: Callable[[pa.RecordBatch], None]) -> Iterator[pa.RecordBatch]:
    """Yield the first of the records of each event; refuse the others."""
    for batch in batches:
        yield _kept(batch, _is_first(batch), refuse)


def _kept(batch: pa.RecordBatch, is_kept: np.ndarray, refuse: Callable[[pa.RecordBatch], None]) -> pa.RecordBatch:
    """Return some of the rows; refuse the others."""
    if is_kept.all():
        return batch
    refuse(batch.filter(pa.array(~is_kept)))
    return batch.filter(pa.array(is_kept))


def _is_first(records: pa.RecordBatch) -> np.ndarray:
    """Return which rows have another user, time or item than the row before."""
    times = records.column("timestamp_s").to_numpy()
    is_first = np.append(True, times[1:] != times[:-1])
    rows = np.flatnonzero(~is_first)
    for name in ("user_id", "item_id"):
        column = records.column(name)
        is_first[rows] |= pc.not_equal(column.take(rows), column.take(rows - 1)).to_numpy(zero_copy_only=False)
    return is_first


def _counted(batches: Iterable[pa.RecordBatch], domain: str, events: Events) -> Iterator[pa.RecordBatch]:
    """Yield rows of the table; counts them. A user is in one batch."""
    for batch in batches:
        users, times = batch.column("user_id"), batch.column("timestamp_s").to_numpy()
        events.accepted += len(batch)
        events.users += 1 + (pc.sum(pc.not_equal(users[1:], users[:-1])).as_py() or 0)
        known = [time_s for time_s in (events.first_timestamp_s, events.last_timestamp_s) if time_s is not None]
        events.first_timestamp_s = min([int(times.min()), *known])
        events.last_timestamp_s = max([int(times.max()), *known])
        domains = pa.repeat(domain, len(batch))
        columns = [domains if name == "domain" else batch.column(name) for name in INTERACTIONS.names]
        yield pa.record_batch(columns, schema=INTERACTIONS)
