"""How many of the recommended items are cold, beside how many of the items that people take are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from semacdr.tables import Part, scan_files, table_files

_TOP = 10
_ITEM = ["domain", "item_id"]
_EVENTS = ["domains", "item_ids", "timestamps_s", "parts", "is_target"]
_USERS, _ROWS = 20_000, 200_000
"""Of ``sequences`` and of other tables, read at a time: a streaming query over all of them grew with the users."""


def cold_shares(domains: tuple[str, ...], items: Path, sequences: Path, recommendations: Path) -> dict[str, Any]:
    """Return, per domain and for ``all``, the share of cold items in the first ten ranks, targets and the catalogue.

    An item is cold that nobody has taken: until today, for what is recommended and for the catalogue, without which
    none can be recommended; strictly before it was taken, for a validation target. None where there is nothing to take
    a share of.
    """
    first = _first_times(sequences)
    shown = _slices(recommendations, "recommendations", [*_ITEM, "rank"], _ROWS)
    top = (frame.filter(pl.col("rank") <= _TOP) for frame in shown)
    targets = (frame.filter(pl.col("is_target") & (pl.col("parts") == Part.VALIDATION)) for frame in _events(sequences))
    never, then_first = pl.col("first_s").is_null(), pl.col("timestamps_s") == pl.col("first_s")
    found: dict[str, Any] = {domain: {} for domain in (*domains, "all")}
    for name, frames, is_cold in (
        ("top_10", top, never),
        ("validation_targets", targets, then_first),
        ("catalogue", _slices(items, "items", _ITEM, _ROWS), never),
    ):
        counted = [
            frame.join(first, on=_ITEM, how="left").group_by("domain").agg(cold=is_cold.sum(), total=pl.len())
            for frame in frames
        ]
        share = pl.concat(counted).group_by("domain").sum()
        counts = {domain: (cold, total) for domain, cold, total in share.rows()}
        counts["all"] = (share["cold"].sum(), share["total"].sum())
        for domain, values in found.items():
            cold, total = counts.get(domain, (0, 0))
            values[name] = round(cold / total, 4) if total else None
    return found


def _first_times(sequences: Path) -> pl.DataFrame:
    """When each item was taken first: domain, item_id, first_s."""
    first = pl.DataFrame(schema={"domain": pl.String, "item_id": pl.String, "first_s": pl.Int64})
    for events in _events(sequences):
        times = events.group_by(_ITEM).agg(first_s=pl.col("timestamps_s").min())
        first = pl.concat([first, times]).group_by(_ITEM).agg(pl.col("first_s").min())
    return first


def _events(sequences: Path) -> Iterator[pl.DataFrame]:
    for users in _slices(sequences, "sequences", _EVENTS, _USERS):
        yield users.explode(_EVENTS).rename({"domains": "domain", "item_ids": "item_id"})


def _slices(folder: Path, table: str, columns: Sequence[str], rows: int) -> Iterator[pl.DataFrame]:
    for file in table_files(folder, table):
        scan = scan_files(file).select(columns)
        for start in range(0, pq.read_metadata(file).num_rows, rows):
            yield scan.slice(start, rows).collect()
