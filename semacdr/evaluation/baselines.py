"""Popularity: what every trained model has to beat."""

# Shapes: Q queries, I items of one domain.

import numpy as np
import polars as pl
import torch
from torch import Tensor

from semacdr.model.histories import IntArray
from semacdr.model.ranking import Scorer
from semacdr.model.vocabulary import Vocabulary

RECENT_DAYS = 180
"""Half a year: long enough to rank a few thousand items by counts in logs of daily resolution, short enough to follow a
season and new items. Fixed beforehand, not tuned; the window ends at the test cut."""
SECONDS_PER_DAY = 86_400


def popularity(
    interactions: pl.DataFrame, vocabulary: Vocabulary, *, before_s: int, since_s: int | None = None
) -> IntArray:
    """Return the events of each item, by ``item_index``, with a time in ``[since_s, before_s)``."""
    chosen = interactions.filter(pl.col("timestamp_s") < before_s)
    if since_s is not None:
        chosen = chosen.filter(pl.col("timestamp_s") >= since_s)
    index = vocabulary.encode(chosen, "interactions")
    return np.bincount(index, minlength=vocabulary.num_items + 1).astype(np.int64)


def popularity_scorer(counts: IntArray, vocabulary: Vocabulary) -> Scorer:
    """Return a scorer that gives everyone the items' counts."""

    def scores(chosen: IntArray, domain: int) -> Tensor:
        start, stop = vocabulary.bounds[domain]
        return torch.from_numpy(counts[start:stop].astype(np.float32)).expand(len(chosen), -1)

    return scores
