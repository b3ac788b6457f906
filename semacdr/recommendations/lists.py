"""The one way from histories to ranked items: the batch stage and ``Recommender`` both take it.

Scores are compared to four decimals, and equal ones stand in the order of a hash of the item's id: neither the size of
a block nor the alphabet decides who comes first.
"""

# Shapes: Q queries of a block, I items of one domain, X score columns, K ranks, L events, N domains, D width, R rows.

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from semacdr.model.checkpoint import LoadedModel
from semacdr.model.histories import Events, IntArray, Queries
from semacdr.model.ranking import chunks
from semacdr.model.scorer import FinalScorer
from semacdr.recommendations.rules import BoolArray, seen_items

_BLOCK_SCORES = 24_000_000
"""Scores of all columns that are held at a time: some 100 MB."""
_DECIMALS = 4
_SPARE = 32
"""Items beyond the last rank that are looked at for ties."""


@dataclass(frozen=True)
class Ranked:
    """The lists of some queries, padded with item 0 where a domain has fewer items."""

    query_Q: IntArray
    item_QK: Tensor
    score_QK: Tensor
    trained_QK: Tensor
    column_QK: Tensor
    """The score column that lifts the item most above the domain's mean item of like support."""
    nearest_QKN: Tensor
    """Of each domain, the event of the history whose item is nearest: a position in the packed events; -1: none."""
    similarity_QKN: Tensor
    """Cosine of the two fused vectors."""


@dataclass(frozen=True)
class Lister:
    """Ranks a model's items for histories."""

    model: LoadedModel
    available: BoolArray
    """By ``item_index``."""
    repeat_after_days: float | None = None

    def rank(self, events: Events, queries: Queries, scorer: FinalScorer, top_k: int) -> Iterator[Ranked]:
        """Yield the ``top_k`` best items of each query, the queries of one domain together, a block at a time."""
        for domain, (start, stop) in enumerate(self.model.vocabulary.bounds):
            size = _BLOCK_SCORES // ((stop - start) * len(scorer.columns))
            for chosen in chunks(np.flatnonzero(queries.domain == domain), size):
                yield self._block(events, queries, scorer, chosen, domain, min(top_k, stop - start))

    def _block(
        self, events: Events, queries: Queries, scorer: FinalScorer, chosen: IntArray, domain: int, top_k: int
    ) -> Ranked:
        start, stop = self.model.vocabulary.bounds[domain]
        score_XQI = scorer.scores(chosen, domain)
        final_QI = scorer.final(score_XQI, chosen, domain)
        if final_QI.data_ptr() == score_XQI.data_ptr():
            final_QI = final_QI.clone()
        final_QI[:, torch.from_numpy(~self.available[start:stop])] = -torch.inf
        row, item = seen_items(events, queries, chosen, domain, self.repeat_after_days)
        final_QI[row, item - start] = -torch.inf
        value_QK, index_QK = best(final_QI, top_k, self._tie_order[start:stop] - start)
        lift_XQK = scorer.lifts(score_XQI, chosen, domain, index_QK)
        item_QK = (index_QK + start).masked_fill(~value_QK.isfinite(), 0)
        nearest_QKN, similarity_QKN = self._nearest(events, queries, chosen, item_QK)
        return Ranked(
            query_Q=chosen,
            item_QK=item_QK,
            score_QK=value_QK,
            trained_QK=score_XQI[0].gather(1, index_QK),
            column_QK=lift_XQK.argmax(dim=0),
            nearest_QKN=nearest_QKN,
            similarity_QKN=similarity_QKN,
        )

    @cached_property
    def _tie_order(self) -> Tensor:
        """The items of each domain in the order in which they win a tie."""
        table = self.model.vocabulary.table
        hashes = np.array([0, *(zlib.crc32(item.encode()) for item in table["item_id"])])
        index = np.arange(len(hashes))
        return torch.from_numpy(np.lexsort((index, hashes, self.model.vocabulary.domain_of_item, index > 0)))

    @cached_property
    def _unit(self) -> Tensor:
        return torch.nn.functional.normalize(self.model.items.vector_RD, dim=1)

    def _nearest(self, events: Events, queries: Queries, chosen: IntArray, item_QK: Tensor) -> tuple[Tensor, Tensor]:
        num_domains = len(self.model.vocabulary.domains)
        stop_Q = queries.stop[chosen]
        first_Q = np.maximum(events.offsets[queries.user[chosen]], stop_Q - self.model.max_length)
        length = int((stop_Q - first_Q).max(initial=0))
        shape = (*item_QK.shape, num_domains)
        nearest_QKN, similarity_QKN = torch.full(shape, -1), torch.full(shape, -torch.inf)
        if not length:
            return nearest_QKN, similarity_QKN
        index_QL = first_Q[:, None] + np.arange(length)
        is_event_QL = index_QL < stop_Q[:, None]
        index_QL = np.where(is_event_QL, index_QL, 0)
        past_QLD = self._unit[torch.from_numpy(events.item[index_QL])]
        cosine_QKL = self._unit[item_QK] @ past_QLD.transpose(1, 2)
        domain_QL = torch.from_numpy(np.where(is_event_QL, events.domain[index_QL], -1))
        for domain in range(num_domains):
            of_domain_QL = domain_QL == domain
            if of_domain_QL.any():
                cosine, place_QK = cosine_QKL.masked_fill(~of_domain_QL[:, None, :], -torch.inf).max(dim=2)
                similarity_QKN[:, :, domain] = cosine
                event_QK = torch.from_numpy(index_QL).gather(1, place_QK)
                nearest_QKN[:, :, domain] = event_QK.masked_fill(~cosine.isfinite(), -1)
        return nearest_QKN, similarity_QKN


def best(score_QI: Tensor, top_k: int, order_I: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ``top_k`` highest scores, rounded, and their columns; of equal ones those first in ``order_I``."""
    place_I = torch.empty_like(order_I)
    place_I[order_I] = torch.arange(len(order_I))
    width = min(top_k + _SPARE, score_QI.shape[1])
    value_QW, index_QW = score_QI.topk(width, dim=1)
    value_QW, index_QW = _in_order(value_QW.round(decimals=_DECIMALS), index_QW, place_I)
    tied_Q = (value_QW[:, -1] == value_QW[:, top_k - 1]) & value_QW[:, -1].isfinite()
    if width < score_QI.shape[1] and tied_Q.any():
        all_QI = torch.arange(score_QI.shape[1]).expand(int(tied_Q.sum()), -1)
        value, index = _in_order(score_QI[tied_Q].round(decimals=_DECIMALS), all_QI, place_I)
        value_QW[tied_Q], index_QW[tied_Q] = value[:, :width], index[:, :width]
    return value_QW[:, :top_k], index_QW[:, :top_k]


def _in_order(value_QW: Tensor, index_QW: Tensor, place_I: Tensor) -> tuple[Tensor, Tensor]:
    by_place_QW = place_I[index_QW].argsort(dim=1)
    value_QW, index_QW = value_QW.gather(1, by_place_QW), index_QW.gather(1, by_place_QW)
    value_QW, by_value_QW = value_QW.sort(dim=1, descending=True, stable=True)
    return value_QW, index_QW.gather(1, by_value_QW)
