"""Two models beside each other: the targets that both have ranked."""

from __future__ import annotations

import numpy as np
import polars as pl

from semacdr.statistics import bootstrap_means


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


def worse_share(pairs: pl.DataFrame, margin: float, *, resamples: int, seed: int) -> float:
    """Return the share of resamples of users in which the candidate's mean lies more than ``margin`` below.

    Args:
        pairs: what ``paired_ndcg`` returns, of one domain.
        margin: of NDCG.
        resamples: of the paired bootstrap.
        seed: of the resamples.
    """
    gain = (pairs["candidate"] - pairs["production"]).to_numpy()
    if not gain.any():  # a checkpoint beside itself
        return 0.0
    gain_S = bootstrap_means(
        gain,
        pairs["user_id"].rank("dense").to_numpy().astype(np.int64),
        np.zeros(pairs.height, np.int64),
        samples=resamples,
        seed=seed,
    )
    return float((gain_S < -margin).mean())
