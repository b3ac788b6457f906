"""How many of the recommended items are cold, beside how many of the items that people take are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from semacdr.tables import Part, table_files

_TOP = 10
_ITEM = ["domain", "item_id"]


def cold_shares(domains: tuple[str, ...], items: Path, sequences: Path, recommendations: Path) -> dict[str, Any]:
    """Return, per domain and for ``all``, the share of cold items in the first ten ranks, targets and the catalogue.

    An item is cold that nobody has taken: until today, for what is recommended and for the catalogue, without which
    none can be recommended; strictly before it was taken, for a validation target. None where there is nothing to take
    a share of.
    """
    columns = ("domains", "item_ids", "timestamps_s", "parts", "is_target")
    events = pl.scan_parquet(table_files(sequences, "sequences"), hive_partitioning=False).select(columns)
    events = events.explode(columns).rename({"domains": "domain", "item_ids": "item_id"})
    first = events.group_by(_ITEM).agg(first_s=pl.col("timestamps_s").min())
    shown = pl.scan_parquet(table_files(recommendations, "recommendations"), hive_partitioning=False)
    top = shown.filter(pl.col("rank") <= _TOP).join(first, on=_ITEM, how="left")
    targets = events.filter(pl.col("is_target") & (pl.col("parts") == Part.VALIDATION)).join(first, on=_ITEM)
    catalogue = pl.scan_parquet(table_files(items, "items"), hive_partitioning=False)
    catalogue = catalogue.select(_ITEM).join(first, on=_ITEM, how="left")
    found: dict[str, Any] = {domain: {} for domain in (*domains, "all")}
    for name, frame in (
        ("top_10", top.select("domain", cold=pl.col("first_s").is_null())),
        ("validation_targets", targets.select("domain", cold=pl.col("timestamps_s") == pl.col("first_s"))),
        ("catalogue", catalogue.select("domain", cold=pl.col("first_s").is_null())),
    ):
        share = frame.group_by("domain").agg(pl.col("cold").sum(), total=pl.len()).collect(engine="streaming")
        counts = {domain: (cold, total) for domain, cold, total in share.rows()}
        counts["all"] = (share["cold"].sum(), share["total"].sum())
        for domain, values in found.items():
            cold, total = counts.get(domain, (0, 0))
            values[name] = round(cold / total, 4) if total else None
    return found
