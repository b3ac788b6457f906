"""Which items stand against the targets of a step: drawn for each domain, shared by all of its positions."""

# Shapes: V items with support, Q queries, K negatives.

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from semacdr.model.config import ModelConfig

POPULARITY_POWER = 0.75
"""Mikolov et al. 2013 (word2vec), section 2.2."""


class Drawn(NamedTuple):
    """The negatives of one domain."""

    item_K: Int[Tensor, " negatives"]
    """Visible items, from 0."""
    stands_for: float | Float[Tensor, " negatives"]
    """Items that each of them stands for: one over the chance that it was drawn."""


class Negatives:
    """Draws the negatives of a fit, as its config says.

    Args:
        config: ``loss``, ``negatives``, ``negatives_from`` and ``log_q``.
        bounds: of each domain among the visible items.
        support_V: events of each visible item.
        rng: alike in all processes.
    """

    def __init__(
        self,
        config: ModelConfig,
        bounds: list[tuple[int, int]],
        support_V: Int[Tensor, " items"],
        rng: np.random.Generator,
    ) -> None:
        self.config = config
        self.bounds = bounds
        self.rng = rng
        power = POPULARITY_POWER if config.negatives_from == "popularity" else 1.0
        weights = [support_V[start:stop].double() ** power for start, stop in bounds]
        self._share = [weight / weight.sum() for weight in weights]
        self._tries = [_tries(share, config.negatives) for share in self._share]

    def draw(self, target_Q: Int[Tensor, " queries"]) -> Iterator[Drawn]:
        """Yield each domain's negatives.

        Args:
            target_Q: visible items, from 0; negatives from the batch are those among them.
        """
        config = self.config
        for (start, stop), share, tries in zip(self.bounds, self._share, self._tries, strict=True):
            size, count = stop - start, config.negatives
            if config.negatives_from == "batch":
                own = target_Q[(target_Q >= start) & (target_Q < stop)]
                item = own.unique()
                yield Drawn(item, self._stands_for(share[item - start], float(len(own))))
            elif config.loss == "softmax" or size <= count:
                yield Drawn(torch.arange(start, stop), 1.0)
            elif config.negatives_from == "popularity":
                place = torch.from_numpy(self.rng.choice(size, count, replace=False, p=share.numpy())).long()
                yield Drawn(place + start, self._stands_for(share[place], tries))
            else:
                place = torch.from_numpy(self.rng.choice(size, count, replace=False)).long()
                yield Drawn(place + start, size / count if config.log_q else 1.0)

    def _stands_for(self, share_K: Tensor, tries: float) -> float | Tensor:
        return (1 / _chance(share_K, tries)).float() if self.config.log_q else 1.0


def _chance(share_V: Tensor, tries: float) -> Tensor:
    """Return the chance that one of so many tries draws an item, for each."""
    return -torch.expm1(tries * torch.log1p(-share_V))


def _tries(share_V: Tensor, count: int) -> float:
    """Return after how many tries so many different items have been drawn, near enough."""
    if count >= len(share_V):
        return math.inf
    low, high = float(count), 2.0 * count
    while _chance(share_V, high).sum() < count:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) / 2
        low, high = (middle, high) if _chance(share_V, middle).sum() < count else (low, middle)
    return high
