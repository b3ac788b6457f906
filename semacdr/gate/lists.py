"""Figures of a set of recommendations: coverage, full lists, and how alike two sets are."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

TOP = 10


def coverage(recommendations: pl.LazyFrame, items: pl.LazyFrame) -> dict[str, float]:
    """Return, per domain, the share of its items that stand in anyone's first ten."""
    shown = recommendations.filter(pl.col("rank") <= TOP).group_by("domain").agg(pl.col("item_id").n_unique())
    counts = items.group_by("domain").agg(total=pl.len())
    joined = counts.join(shown, on="domain", how="left").select("domain", pl.col("item_id").fill_null(0) / "total")
    return _by_domain(joined)


def full_lists(
    recommendations: pl.LazyFrame, user_vectors: pl.LazyFrame, items: pl.LazyFrame, top_k: int
) -> dict[str, float]:
    """Return, per domain, the share of users with ``top_k`` ranks, or half of a small domain's items."""
    wanted = items.group_by("domain").agg(wanted=pl.min_horizontal(pl.len() // 2, top_k).cast(pl.Int64))
    ranked = recommendations.join(wanted, on="domain")
    full = ranked.filter(pl.col("rank") == pl.col("wanted")).group_by("domain").agg(full=pl.len())
    users = user_vectors.group_by("domain").agg(total=pl.len())
    joined = users.join(full, on="domain", how="left").select("domain", pl.col("full").fill_null(0) / "total")
    return _by_domain(joined)


def overlap(recommendations: pl.LazyFrame, before: pl.LazyFrame) -> dict[str, float]:
    """Return, per domain, the mean share of a user's first ten that stood there before; users of both sets."""
    keys = ["user_id", "domain"]
    now, then = (frame.filter(pl.col("rank") <= TOP).select(*keys, "item_id") for frame in (recommendations, before))
    sizes = [frame.group_by(keys).agg(size=pl.len()) for frame in (now, then)]
    users = sizes[0].join(sizes[1], on=keys, suffix="_before")
    same = now.join(then, on=[*keys, "item_id"], how="semi").group_by(keys).agg(same=pl.len())
    shares = users.join(same, on=keys, how="left").with_columns(
        pl.col("same").fill_null(0) / pl.max_horizontal("size", "size_before")
    )
    return _by_domain(shares.group_by("domain").agg(pl.col("same").mean()))


def _by_domain(frame: pl.LazyFrame) -> dict[str, float]:
    rows: Iterable[tuple[str, float]] = frame.sort("domain").collect(engine="streaming").rows()
    return dict(rows)
