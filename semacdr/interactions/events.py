"""The events of one domain: every record judged, in order, each event once; the others to the rejects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semacdr.database import ahead, read_sql, write_parquet
from semacdr.dataset import Filters, InteractionSource
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

    def write() -> None:
        judged = connection.sql(read_sql("ingest/judged_events"), params=parameters).to_arrow_reader(ROWS_PER_GROUP)
        with connection.cursor() as rejects:
            accepted = _each_once(_noted(ahead(judged), events), _refuser(rejects))
            counted = _counted(accepted, domain, events)
            write_parquet(output, INTERACTIONS, counted, ROWS_PER_GROUP, delta=["timestamp_s"])

    read_records(connection, "interactions", source, files, advance, write)
    return events


def _refuser(connection: duckdb.DuckDBPyConnection) -> Callable[[pa.RecordBatch], None]:
    def refuse(batch: pa.RecordBatch) -> None:
        connection.register("refused", batch)
        connection.execute(read_sql("ingest/event_rejects"))
        connection.unregister("refused")

    return refuse


def _noted(batches: Iterable[pa.RecordBatch], events: Events) -> Iterator[pa.RecordBatch]:
    """Pass on judged records; counts them, and notes which columns have values."""
    for batch in batches:
        events.records += len(batch)
        numbers = pc.shift_right(batch.column("place"), 40)
        for number in pc.unique(numbers).to_pylist():
            events.filled.setdefault(number, set())
        for name, column in FILLED_BY.items():
            for number in pc.unique(numbers.filter(batch.column(name).is_valid())).to_pylist():
                events.filled[number].add(column)
        yield batch


def _each_once(batches: Iterable[pa.RecordBatch], refuse: Callable[[pa.RecordBatch], None]) -> Iterator[pa.RecordBatch]:
    """Yield the accepted records, of several of one event the first by file and line; refuse the others."""
    last: pa.RecordBatch | None = None
    for batch in batches:
        is_accepted = batch.column("refusal").is_null()
        accepted = _kept(batch, is_accepted.to_numpy(zero_copy_only=False), refuse)
        if not len(accepted):
            continue
        is_first = _is_first(accepted)
        is_first[0] = last is None or _is_first(pa.concat_batches([last, accepted.slice(0, 1)]))[1]
        last = accepted.slice(len(accepted) - 1)
        yield _kept(accepted, is_first, refuse)


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
    """Yield rows of the table; counts them."""
    last_user: pa.Scalar | None = None
    for batch in batches:
        if not len(batch):
            continue
        users, times = batch.column("user_id"), batch.column("timestamp_s").to_numpy()
        events.accepted += len(batch)
        events.users += pc.sum(pc.not_equal(users[1:], users[:-1])).as_py() or 0
        events.users += users[0] != last_user
        last_user = users[-1]
        known = [time_s for time_s in (events.first_timestamp_s, events.last_timestamp_s) if time_s is not None]
        events.first_timestamp_s = min([int(times.min()), *known])
        events.last_timestamp_s = max([int(times.max()), *known])
        domains = pa.repeat(domain, len(batch))
        columns = [domains if name == "domain" else batch.column(name) for name in INTERACTIONS.names]
        yield pa.record_batch(columns, schema=INTERACTIONS)
