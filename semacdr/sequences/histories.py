"""The sequences stage: every user's events in order, with the split's parts and targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import structlog

from semacdr.database import read_sql, work_database, write_parquet
from semacdr.dataset import Protocol, Split
from semacdr.errors import DataError
from semacdr.manifest import Facts
from semacdr.settings import DuckDbSettings
from semacdr.tables import Part, table_files

log = structlog.get_logger()

EVENTS_PER_BATCH = 200_000
USERS_PER_GROUP = 20_000
LISTS = {
    "domain": "domains",
    "item_id": "item_ids",
    "timestamp_s": "timestamps_s",
    "part": "parts",
    "is_target": "is_target",
}
"""Column of an event -> column of the user's lists."""
SEQUENCES = pa.schema(
    [
        ("user_id", pa.string()),
        ("domains", pa.list_(pa.string())),
        ("item_ids", pa.list_(pa.string())),
        ("timestamps_s", pa.list_(pa.int64())),
        ("parts", pa.list_(pa.string())),
        ("is_target", pa.list_(pa.bool_())),
    ]
)


def build(split: Split, interactions: Path, output: Path, limits: DuckDbSettings) -> Facts:
    """Write ``sequences.parquet``: the full history of every user, whatever ``split.max_length`` is.

    Args:
        split: the protocol, and for ``gts`` the quantiles of the two cuts.
        interactions: folder of the ``interactions`` artifact.
        output: the new artifact's folder.
        limits: of DuckDB; its working files lie in ``output`` and are removed.

    Returns:
        Events read, the two cuts (``gts`` alone), targets per part and domain, and users by number of domains.

    Raises:
        ConfigError: the memory limit is wrong or too small.
        DataError: the split leaves no training events, or no targets for validation or test.
    """
    with work_database(limits, output) as connection:
        files = [str(file) for file in table_files(interactions, "interactions")]
        connection.read_parquet(files, hive_partitioning=False).create_view("interactions")
        cuts = _mark(connection, split)
        counts = connection.execute(read_sql("sequences/part_counts")).fetchall()
        _demand_parts(split, counts)
        overlap = connection.execute(read_sql("sequences/overlap")).fetchall()
        events = connection.sql(read_sql("sequences/sequences")).to_arrow_reader(EVENTS_PER_BATCH)
        write_parquet(output / "sequences.parquet", SEQUENCES, _folded(events), USERS_PER_GROUP)
    domains = sorted({row[1] for row in counts})
    if len(domains) > 1 and max(num_domains for num_domains, _ in overlap) == 1:
        log.warning("no user is in two domains: are user ids written alike in all?", domains=domains)
    num_events = sum(row[2] for row in counts)
    details: dict[str, Any] = {
        "protocol": split.protocol.value,
        **cuts,
        "num_users": sum(users for _, users in overlap),
        "num_events": num_events,
        "events": _per_part(counts, 2),
        "targets": {part: found for part, found in _per_part(counts, 3).items() if part != Part.TRAIN},
        "users_per_num_domains": {str(domains): users for domains, users in overlap},
    }
    log.info("sequences", rows_in=num_events, rows_out=details["num_users"], **cuts)
    return Facts(rows_in=num_events, details=details)


def _mark(connection: duckdb.DuckDBPyConnection, split: Split) -> dict[str, int]:
    """Make the table ``marked_events``; return the two cuts, none under ``loo``."""
    if split.protocol is Protocol.LOO:
        connection.execute(read_sql("sequences/marked_events_loo"))
        return {}
    quantiles = {"validation_quantile": split.validation_quantile, "test_quantile": split.test_quantile}
    t_validation_s, t_test_s = connection.execute(read_sql("sequences/cuts"), quantiles).fetchall()[0]
    cuts = {"t_validation_s": t_validation_s, "t_test_s": t_test_s}
    connection.execute(read_sql("sequences/marked_events"), cuts)
    return cuts


def _per_part(counts: list[tuple[Any, ...]], column: int) -> dict[str, dict[str, int]]:
    """Return part -> domain -> count; a domain without events in a part has 0."""
    domains = sorted({row[1] for row in counts})
    known = {(row[0], row[1]): row[column] for row in counts}
    return {part.value: {domain: known.get((part.value, domain), 0) for domain in domains} for part in Part}


def _demand_parts(split: Split, counts: list[tuple[Any, ...]]) -> None:
    events = {part: sum(found.values()) for part, found in _per_part(counts, 2).items()}
    empty = [part for part, count in events.items() if count == 0]
    if not empty:
        return
    if split.protocol is Protocol.LOO:
        raise DataError(
            f"sequences: leave-one-out leaves no events for {', '.join(empty)}",
            found=", ".join(f"{count} events for {part}" for part, count in events.items()),
            expected="users with at least three events",
            do="give the data set more data, or set split.protocol to gts",
        )
    advice = {
        Part.TRAIN: f"raise split.validation_quantile (now {split.validation_quantile})",
        Part.VALIDATION: "set split.validation_quantile and split.test_quantile further apart "
        f"(now {split.validation_quantile} and {split.test_quantile})",
        Part.TEST: f"lower split.test_quantile (now {split.test_quantile})",
    }
    raise DataError(
        f"sequences: the split leaves no events for {', '.join(empty)}",
        found=", ".join(f"{count} events for {part}" for part, count in events.items()),
        expected="events in all three parts; many events at one time cannot be cut apart",
        do="; ".join(advice[Part(part)] for part in empty)
        + "; if all events share a few times, none of it helps: set split.protocol to loo",
    )


def _folded(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield one row per user; a user's events may lie in several batches, but stand together."""
    waiting: pa.Table | None = None
    for batch in batches:
        table = pa.table(batch)
        events = table if waiting is None else pa.concat_tables([waiting, table]).combine_chunks()
        starts = _starts(events)
        yield _fold(events.slice(0, starts[-1]), starts[:-1])
        waiting = events.slice(starts[-1])
    if waiting is not None:
        yield _fold(waiting, np.zeros(1, np.int64))


def _starts(events: pa.Table) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return where each user's events begin."""
    users = events.column("user_id")
    changes = pc.not_equal(users.slice(1), users.slice(0, len(users) - 1)).to_numpy()
    return np.concatenate([[0], np.flatnonzero(changes) + 1])


def _fold(events: pa.Table, starts: np.ndarray[Any, np.dtype[np.int64]]) -> pa.Table:
    events = events.combine_chunks()
    offsets = pa.array(np.append(starts, len(events)), pa.int32())
    columns = {"user_id": events.column("user_id").take(pa.array(starts))}
    for name, plural in LISTS.items():
        values = events.column(name)
        chunk = values.chunk(0) if values.num_chunks else pa.array([], values.type)
        columns[plural] = pa.ListArray.from_arrays(offsets, chunk)
    return pa.table(columns).cast(SEQUENCES)
