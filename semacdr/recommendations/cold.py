"""How many of the recommended items are cold, beside how many of the items that people take are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from semacdr.model.checkpoint import LoadedModel
from semacdr.tables import Part, table_files

_TOP = 10


def cold_shares(model: LoadedModel, sequences: Path, recommendations: Path) -> dict[str, Any]:
    """Return, per domain and for ``all``, the share of cold items in the first ten ranks and in validation targets.

    An item is cold that has no training event: of the fit behind the checkpoint, for what it recommends; of part train,
    for validation targets, which that fit has seen. None where there is nothing to take a share of.
    """
    support = pl.Series("support", model.model.items.support_I1[1:].numpy())
    known = model.vocabulary.table.select("domain", "item_id", cold=support == 0).lazy()
    shown = pl.scan_parquet(table_files(recommendations, "recommendations"), hive_partitioning=False)
    top = shown.filter(pl.col("rank") <= _TOP).select("domain", "item_id").join(known, on=["domain", "item_id"])
    columns = ("domains", "item_ids", "parts", "is_target")
    events = pl.scan_parquet(table_files(sequences, "sequences"), hive_partitioning=False).select(columns)
    events = events.explode(columns).rename({"domains": "domain", "item_ids": "item_id"})
    trained = events.filter(pl.col("parts") == Part.TRAIN).select("domain", "item_id").unique()
    targets = events.filter(pl.col("is_target") & (pl.col("parts") == Part.VALIDATION))
    targets = targets.join(trained.with_columns(cold=False), on=["domain", "item_id"], how="left")
    targets = targets.with_columns(pl.col("cold").fill_null(value=True))
    found: dict[str, Any] = {domain: {} for domain in (*model.vocabulary.domains, "all")}
    for name, frame in (("top_10", top), ("validation_targets", targets)):
        share = frame.group_by("domain").agg(pl.col("cold").sum(), total=pl.len()).collect(engine="streaming")
        counts = {domain: (cold, total) for domain, cold, total in share.rows()}
        counts["all"] = (share["cold"].sum(), share["total"].sum())
        for domain, values in found.items():
            cold, total = counts.get(domain, (0, 0))
            values[name] = round(cold / total, 4) if total else None
    return found
