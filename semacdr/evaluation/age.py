"""How long an evaluation tells of its checkpoint: as long as the targets and items of the day are much the same."""

from collections.abc import Mapping

import polars as pl

from semacdr.tables import Part

MAX_CHANGED = 0.1
"""Share of the targets, or of the items, that may be others. The gate, which compares two models on the targets that
both have ranked, has nine of ten of them, then."""


def much_the_same(then: Mapping[str, pl.LazyFrame], now: Mapping[str, pl.LazyFrame]) -> bool:
    """Tell whether the test targets and the items of two days are the same but for ``MAX_CHANGED``.

    Args:
        then: the tables ``sequences`` and ``items``.
        now: the same of another day.
    """
    targets = _shared(_targets(then["sequences"]), _targets(now["sequences"]))
    items = _shared(*(day["items"].select("domain", "item_id") for day in (then, now)))
    return min(targets, items) >= 1 - MAX_CHANGED


def _targets(sequences: pl.LazyFrame) -> pl.LazyFrame:
    columns = ("domains", "item_ids", "parts", "is_target")
    events = sequences.select("user_id", *columns).explode(columns)
    return events.filter("is_target", pl.col("parts") == Part.TEST).select("user_id", "domains", "item_ids")


def _shared(then: pl.LazyFrame, now: pl.LazyFrame) -> float:
    """The share of the rows of the larger frame that both have."""
    both = now.join(then, on=now.collect_schema().names(), how="semi")
    sizes = pl.collect_all([frame.select(pl.len()) for frame in (both, then, now)])
    shared, *totals = (int(size.item()) for size in sizes)
    return shared / max(1, *totals)
