"""Which items stand against the targets of a step: drawn for each domain, shared by all of its positions."""

# Shapes: V items with support, Q queries of a step, T those of one domain, K negatives, N neighbours of an item.

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
NEIGHBOUR_SHARE = 0.15
"""Of the negatives, where they come from neighbours (research 5.8: 10 to 20 %)."""


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
        self.neighbours: list[Tensor] = []
        """Of each domain's items, counted from its first (``neighbours.py``); set before an epoch that needs them."""

    def draw(self, target_Q: Int[Tensor, " queries"]) -> Iterator[Drawn]:
        """Yield each domain's negatives.

        Args:
            target_Q: visible items, from 0, of all processes; negatives from the batch are those among them.
        """
        config = self.config
        for domain, (start, stop) in enumerate(self.bounds):
            share, tries = self._share[domain], self._tries[domain]
            size, count = stop - start, config.negatives
            if config.negatives_from == "batch":
                own = target_Q[(target_Q >= start) & (target_Q < stop)]
                own = own[torch.from_numpy(self.rng.permutation(len(own))[:count])]
                item = own.unique()
                yield Drawn(item, self._stands_for(share[item - start], float(len(own))))
            elif config.loss == "softmax" or size <= count:
                yield Drawn(torch.arange(start, stop), 1.0)
            elif config.negatives_from == "popularity":
                place = torch.from_numpy(self.rng.choice(size, count, replace=False, p=share.numpy())).long()
                yield Drawn(place + start, self._stands_for(share[place], tries))
            elif config.negatives_from == "neighbours":
                own = target_Q[(target_Q >= start) & (target_Q < stop)]
                place, chance = self._near(own - start, self.neighbours[domain])
                yield Drawn(place + start, (1 / chance).float() if config.log_q else 1.0)
            else:
                place = torch.from_numpy(self.rng.choice(size, count, replace=False)).long()
                yield Drawn(place + start, size / count if config.log_q else 1.0)

    def _near(
        self, target_T: Int[Tensor, " targets"], near_VN: Int[Tensor, "items neighbours"]
    ) -> tuple[Int[Tensor, " negatives"], Float[Tensor, " negatives"]]:
        """Draw from one domain, some from its targets' neighbours and the rest alike; return each one's chance, too.

        A neighbour is drawn by drawing a target and then one of its own; a target without any gives none.
        """
        size = len(near_VN)
        num_near = round(NEIGHBOUR_SHARE * self.config.negatives) if len(target_T) else 0
        num_uniform = self.config.negatives - num_near
        place_K = torch.from_numpy(self.rng.choice(size, num_uniform, replace=False))
        if not num_near:
            return place_K, torch.full((num_uniform,), num_uniform / size)
        # As many random numbers whatever the table holds: processes stay in step.
        which = torch.from_numpy(self.rng.integers(0, len(target_T), num_near))
        rank = torch.from_numpy(self.rng.random(num_near))
        near_TN = near_VN[target_T]
        count_T = (near_TN >= 0).sum(dim=1)
        which, rank = which[count_T[which] > 0], rank[count_T[which] > 0]
        drawn = near_TN[which, (rank * count_T[which]).long()].long()
        target, column = torch.nonzero(near_TN >= 0, as_tuple=True)
        share_V = torch.zeros(size, dtype=torch.float64)
        share_V.index_add_(0, near_TN[target, column].long(), 1 / (count_T[target].double() * len(target_T)))
        place_K = torch.cat([place_K, drawn]).unique()
        missed_K = (1 - num_uniform / size) * (1 - _chance(share_V[place_K], float(num_near)))
        return place_K, 1 - missed_K

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
