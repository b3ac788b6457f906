"""The one way from histories to ranked items: the batch stage and ``Recommender`` both take it.

Scores are compared to four decimals, and equal ones stand in the order of a hash of the item's id: neither the size of
a block nor the alphabet decides who comes first.
"""

# Shapes: Q queries of a block, I items of one domain, K ranks, W ranks and spare ones, G groups of items, L events,
# N domains, D width, R rows.

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from semacdr.model.checkpoint import LoadedModel
from semacdr.model.histories import Events, IntArray, Queries
from semacdr.model.present_scorer import Block, PresentScorer, rows_at
from semacdr.model.ranking import chunks
from semacdr.recommendations.rules import BoolArray, seen_items

_BLOCK_SCORES = 2_000_000
"""Scores that are held at a time: 8 MB, which stay near the core."""
_DECIMALS = 4
_SPARE = 6
"""Items beyond the last rank that are looked at for ties."""
_MARGIN = 1e-3
"""More than scores are rounded by."""
_LOWEST = torch.finfo(torch.float32).min
_GROUP = 16
"""Items whose best is looked at first: the best W items lie in the W groups of the best bests."""


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

    @classmethod
    def joined(cls, blocks: Iterable[Ranked]) -> Ranked:
        """Put the lists of blocks under each other, in the order of their queries, padded to the most ranks."""
        parts = [vars(block) for block in blocks]
        query_Q = np.concatenate([part["query_Q"] for part in parts])
        order = torch.from_numpy(np.argsort(query_Q))
        most = max(part["item_QK"].shape[1] for part in parts)

        def together(name: str) -> Tensor:
            pads = [(0, 0) * (part[name].dim() - 2) + (0, most - part[name].shape[1]) for part in parts]
            padded = [torch.nn.functional.pad(part[name], pad) for part, pad in zip(parts, pads, strict=True)]
            return torch.cat(padded)[order]

        return cls(query_Q=np.sort(query_Q), **{name: together(name) for name in parts[0] if name != "query_Q"})


@dataclass(frozen=True)
class Lister:
    """Ranks a model's items for histories."""

    scorer: PresentScorer
    available: BoolArray
    """By ``item_index``."""
    repeat_after_days: float | None = None

    @property
    def model(self) -> LoadedModel:
        """The model that scores."""
        return self.scorer.model

    def rank(self, events: Events, queries: Queries, vector_QD: Tensor, top_k: int) -> Iterator[Ranked]:
        """Yield the ``top_k`` best items of each query, the queries of one domain together, a block at a time.

        Args:
            events: in which histories lie.
            queries: none of them before the last event that the scorer remembers.
            vector_QD: the users' vectors at the queries.
            top_k: items.
        """
        facts_QF = self.scorer.facts(events, queries)
        length_Q = queries.stop - events.offsets[queries.user]
        for domain, (start, stop) in enumerate(self.model.vocabulary.bounds):
            of_domain = np.flatnonzero(queries.domain == domain)
            # Histories of like length stand together, so that few pads are compared.
            of_domain = of_domain[np.argsort(length_Q[of_domain], kind="stable")]
            for chosen in chunks(of_domain, _BLOCK_SCORES // (stop - start)):
                block = self.scorer.block(vector_QD, facts_QF, events, queries, chosen, domain)
                item_I, bound_QI = torch.from_numpy(block.catalogue.item_I), block.bound_QI
                query, item = seen_items(events, queries, chosen, domain, self.repeat_after_days)
                bound_QI[query, torch.from_numpy(block.catalogue.place_R)[item]] = -torch.inf
                barred = np.flatnonzero(~self.available[block.catalogue.item_I])
                bound_QI.index_fill_(1, torch.from_numpy(barred), -torch.inf)
                row_U, score_QU = self._candidates(block, top_k)
                tie_U = torch.from_numpy(self.model.vocabulary.tie_rank)[item_I[row_U]]
                value_QK, place_QK = best(score_QU, min(top_k, stop - start), tie_U)
                row_QK = row_U[place_QK]
                trained_QK, column_QK = self.scorer.lifts(block, row_QK)
                item_QK = item_I[row_QK].masked_fill(~value_QK.isfinite(), 0)
                nearest_QKN, similarity_QKN = self._nearest(events, queries, chosen, item_QK)
                yield Ranked(
                    query_Q=chosen,
                    item_QK=item_QK,
                    score_QK=value_QK,
                    trained_QK=trained_QK,
                    column_QK=column_QK,
                    nearest_QKN=nearest_QKN,
                    similarity_QKN=similarity_QKN,
                )

    def _candidates(self, block: Block, top_k: int) -> tuple[Tensor, Tensor]:
        """Return rows of the items that can be in some query's list, ascending, and all queries' scores of them."""
        num_items = block.bound_QI.shape[1]
        if not block.leading:
            return torch.arange(num_items), block.bound_QI
        width = min(top_k + _SPARE, num_items)
        first_U = _highest(block.bound_QI, width)[1].unique()
        # So many items have at least this score; what has no higher bound comes after them.
        least_Q1 = self.scorer.exact(block, first_U).topk(width, dim=1).values[:, -1:].clamp(min=_LOWEST)
        above_U = ((block.bound_QI - least_Q1).amax(dim=0) >= -_MARGIN).nonzero()[:, 0]
        row_U = torch.cat([first_U, above_U]).unique()
        return row_U, self.scorer.exact(block, row_U)

    @cached_property
    def _unit_RD(self) -> Tensor:  # noqa: N802 (the shape)
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
        past_QLD = rows_at(self._unit_RD, torch.from_numpy(events.item[index_QL]))
        cosine_QKL = rows_at(self._unit_RD, item_QK) @ past_QLD.transpose(1, 2)
        domain_QL = torch.from_numpy(np.where(is_event_QL, events.domain[index_QL], -1))
        for domain in range(num_domains):
            of_domain_QL = domain_QL == domain
            if of_domain_QL.any():
                cosine, place_QK = cosine_QKL.masked_fill(~of_domain_QL[:, None, :], -torch.inf).max(dim=2)
                similarity_QKN[:, :, domain] = cosine
                event_QK = torch.from_numpy(index_QL).gather(1, place_QK)
                nearest_QKN[:, :, domain] = event_QK.masked_fill(~cosine.isfinite(), -1)
        return nearest_QKN, similarity_QKN


def best(score_QI: Tensor, top_k: int, tie_I: Tensor) -> tuple[Tensor, Tensor]:
    """Return each query's ``top_k`` highest scores, rounded, and their rows; of equal ones the lowest in ``tie_I``."""
    num_items = score_QI.shape[1]
    width = min(top_k + _SPARE, num_items)
    value_QW, row_QW = _highest(score_QI, width)
    value_QW, row_QW = _in_order(value_QW.round(decimals=_DECIMALS), row_QW, tie_I)
    tied_Q = (value_QW[:, -1] == value_QW[:, top_k - 1]) & value_QW[:, -1].isfinite()
    if width < num_items and tied_Q.any():
        all_QI = torch.arange(num_items).expand(int(tied_Q.sum()), -1)
        value, row = _in_order(score_QI[tied_Q].round(decimals=_DECIMALS), all_QI, tie_I)
        value_QW[tied_Q], row_QW[tied_Q] = value[:, :width], row[:, :width]
    return value_QW[:, :top_k], row_QW[:, :top_k]


def _highest(score_QI: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The ``width`` highest scores of each query and their rows, in no stated order."""
    num_queries, num_items = score_QI.shape
    num_groups = num_items // _GROUP
    if num_groups <= width:
        row_QW = _places(score_QI, width)
        return score_QI.gather(1, row_QW), row_QW
    grouped = num_groups * _GROUP
    # A group is every num_groups-th item.
    group_QW = _places(score_QI[:, :grouped].unflatten(1, (_GROUP, num_groups)).amax(dim=1), width)
    row_QM = (group_QW[:, None, :] + num_groups * torch.arange(_GROUP)[:, None]).flatten(1)
    row_QM = torch.cat([row_QM, torch.arange(grouped, num_items).expand(num_queries, -1)], dim=1)
    score_QM = score_QI.gather(1, row_QM)
    place_QW = _places(score_QM, width)
    return score_QM.gather(1, place_QW), row_QM.gather(1, place_QW)


def _places(score_QI: Tensor, width: int) -> Tensor:
    """The places of the ``width`` highest scores. NumPy's choice takes a third of the time of torch's ``topk``."""
    return torch.from_numpy(np.argpartition(score_QI.numpy(), -width, axis=1)[:, -width:])


def _in_order(value_QW: Tensor, row_QW: Tensor, tie_I: Tensor) -> tuple[Tensor, Tensor]:
    by_tie_QW = tie_I[row_QW].argsort(dim=1)
    value_QW, row_QW = value_QW.gather(1, by_tie_QW), row_QW.gather(1, by_tie_QW)
    value_QW, by_value_QW = value_QW.sort(dim=1, descending=True, stable=True)
    return value_QW, row_QW.gather(1, by_value_QW)
