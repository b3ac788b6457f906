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
    recommendations: pl.LazyFrame,
    user_vectors: pl.LazyFrame,
    sequences: pl.LazyFrame,
    items: pl.LazyFrame,
    top_k: int,
) -> dict[str, float]:
    """Return, per domain, the share of users with ``top_k`` ranks, or half as many as items that they have not had.

    Args:
        recommendations: the lists.
        user_vectors: of all users who were to get some.
        sequences: what they have had.
        items: that may be recommended.
        top_k: how many were asked for.
    """
    keys = ["user_id", "domain"]
    counts = items.group_by("domain").agg(num_items=pl.len().cast(pl.Int64))
    wanted = pl.min_horizontal(pl.col("num_items") // 2, top_k)
    full = recommendations.join(counts, on="domain").filter(pl.col("rank") == wanted).select(keys)
    short = user_vectors.select(keys).join(full, on=keys, how="anti")
    histories = sequences.select("user_id", "domains", "item_ids").join(short, on="user_id", how="semi")
    events = histories.explode("domains", "item_ids").rename({"domains": "domain", "item_ids": "item_id"})
    of_these = events.join(items, on=["domain", "item_id"], how="semi")
    had = of_these.group_by(keys).agg(had=pl.col("item_id").n_unique())
    ranks = recommendations.join(short, on=keys, how="semi").group_by(keys).agg(ranks=pl.len())
    known = short.join(had, on=keys, how="left").join(ranks, on=keys, how="left").join(counts, on="domain")
    left = pl.col("num_items") - pl.col("had").fill_null(0)
    lacking = known.filter(pl.col("ranks").fill_null(0) < pl.min_horizontal(left // 2, top_k))
    users = user_vectors.group_by("domain").agg(total=pl.len())
    missed = lacking.group_by("domain").agg(missed=pl.len())
    joined = users.join(missed, on="domain", how="left")
    return _by_domain(joined.select("domain", 1 - pl.col("missed").fill_null(0) / pl.col("total")))


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
