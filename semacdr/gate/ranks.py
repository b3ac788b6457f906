"""Two models beside each other: the targets that both have ranked."""

from __future__ import annotations

import polars as pl


def paired_ndcg(candidate: pl.DataFrame, production: pl.DataFrame, at: int = 10) -> pl.DataFrame:
    """Return user_id, domain, candidate, production: NDCG of each target that both have ranked.

    Args:
        candidate: user_id, domain, item_id, rank.
        production: the same.
        at: ranks that count.
    """
    keys = ["user_id", "domain", "item_id"]
    both = candidate.join(production, on=keys, how="inner", suffix="_production").sort(keys)

    def gain(rank: str) -> pl.Expr:
        return pl.when(pl.col(rank) <= at).then(1 / (1 + pl.col(rank)).log(2)).otherwise(0.0)

    return both.select("user_id", "domain", candidate=gain("rank"), production=gain("rank_production"))
