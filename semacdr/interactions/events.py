"""The accepted events of one domain, in order, each once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semacdr.database import read_sql, write_parquet

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


@dataclass
class Events:
    """What one domain's log holds."""

    events: int = 0
    users: int = 0
    first_timestamp_s: int | None = None
    last_timestamp_s: int | None = None


def write_events(connection: duckdb.DuckDBPyConnection, domain: str, path: Path) -> Events:
    """Write the file of the domain's accepted events; those that had come before go to ``duplicate_events``."""
    found = Events()
    records = connection.sql(read_sql("ingest/interactions")).to_arrow_reader(ROWS_PER_GROUP)
    # A query of this connection would end the one above.
    with connection.cursor() as other:
        events = _counted(_each_once(records, lambda repeated: _keep(other, repeated)), domain, found)
        write_parquet(path, INTERACTIONS, events, ROWS_PER_GROUP, delta=["timestamp_s"])
    return found


def _keep(connection: duckdb.DuckDBPyConnection, repeated: pa.RecordBatch) -> None:
    connection.register("repeated", repeated)
    connection.execute("insert into duplicate_events by name select * exclude rating from repeated")
    connection.unregister("repeated")


def _each_once(batches: Iterable[pa.RecordBatch], keep: Callable[[pa.RecordBatch], None]) -> Iterator[pa.RecordBatch]:
    """Yield the first record of each event by file and line; ``keep`` is given the others."""
    waiting: pa.RecordBatch | None = None
    for batch in batches:
        records = batch if waiting is None else pa.concat_batches([waiting, batch])
        starts = _starts(records)
        # More records of the last event may follow.
        yield _first_of_each(records.slice(0, starts[-1]), starts[:-1], keep)
        waiting = records.slice(starts[-1])
    if waiting is not None:
        yield _first_of_each(waiting, np.zeros(1, np.int64), keep)


def _starts(records: pa.RecordBatch) -> np.ndarray:
    """Return the rows with another user, time or item than the row before."""
    times = records.column("timestamp_s").to_numpy()
    is_start = np.append(True, times[1:] != times[:-1])
    rows = np.flatnonzero(~is_start)
    for name in ("user_id", "item_id"):
        column = records.column(name)
        is_start[rows] |= pc.not_equal(column.take(rows), column.take(rows - 1)).to_numpy(zero_copy_only=False)
    return np.flatnonzero(is_start)


def _first_of_each(
    records: pa.RecordBatch, starts: np.ndarray, keep: Callable[[pa.RecordBatch], None]
) -> pa.RecordBatch:
    if len(starts) == len(records):
        return records
    is_start = np.isin(np.arange(len(records)), starts)
    lines, numbers = (records.column(name).to_numpy() for name in ("line", "file_number"))
    records = records.take(np.lexsort((lines, numbers, np.cumsum(is_start))))
    keep(records.filter(pa.array(~is_start)))
    return records.filter(pa.array(is_start))


def _counted(batches: Iterable[pa.RecordBatch], domain: str, found: Events) -> Iterator[pa.RecordBatch]:
    """Yield rows of the table; counts them."""
    last_user: pa.Scalar | None = None
    for batch in batches:
        if not len(batch):
            continue
        users, times = batch.column("user_id"), pc.min_max(batch.column("timestamp_s")).as_py()
        found.events += len(batch)
        found.users += pc.sum(pc.not_equal(users[1:], users[:-1])).as_py() or 0
        found.users += users[0] != last_user
        last_user = users[-1]
        found.first_timestamp_s = min(times["min"], found.first_timestamp_s or times["min"])
        found.last_timestamp_s = max(times["max"], found.last_timestamp_s or times["max"])
        domains = pa.repeat(domain, len(batch))
        columns = [domains if name == "domain" else batch.column(name) for name in INTERACTIONS.names]
        yield pa.record_batch(columns, schema=INTERACTIONS)
