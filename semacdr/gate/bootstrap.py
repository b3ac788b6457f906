"""Is a new model worse? Both ranked the same targets; users are drawn again and again (paired bootstrap)."""

# Shapes: T targets, S resamples.

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

FloatArray = npt.NDArray[np.float64]
_BLOCK = 8_000_000
"""Draws that are held at a time."""


def paired_ndcg(candidate: pl.DataFrame, production: pl.DataFrame, at: int = 10) -> pl.DataFrame:
    """Return domain, candidate, production: NDCG of each target that both have ranked.

    Args:
        candidate: user_id, domain, item_id, rank.
        production: the same.
        at: ranks that count.
    """
    keys = ["user_id", "domain", "item_id"]
    both = candidate.join(production, on=keys, how="inner", suffix="_production").sort(keys)

    def gain(rank: str) -> pl.Expr:
        return pl.when(pl.col(rank) <= at).then(1 / (1 + pl.col(rank)).log(2)).otherwise(0.0)

    return both.select("domain", candidate=gain("rank"), production=gain("rank_production"))


def worse_share(difference_T: FloatArray, margin: float, *, resamples: int, seed: int) -> float:
    """Return the share of resamples in which the mean difference lies below ``-margin``: how sure the drop is."""
    rng = np.random.default_rng(seed)
    mean_S = np.concatenate(
        [
            difference_T[rng.integers(len(difference_T), size=(size, len(difference_T)))].mean(axis=1)
            for size in _sizes(resamples, max(1, _BLOCK // len(difference_T)))
        ]
    )
    return float((mean_S < -margin).mean())


def _sizes(total: int, most: int) -> list[int]:
    return [min(most, total - start) for start in range(0, total, most)]
