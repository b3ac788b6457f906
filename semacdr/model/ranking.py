"""The rank that a target is given among every item of its domain less the user's own history, or among drawn ones.

Ties are broken by a seeded permutation of the items, never by item order.
"""

# Shapes: Q queries, I items of one domain, K ranks kept, C drawn candidates.

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from semacdr.errors import DataError
from semacdr.model.histories import Events, IntArray, Queries, ragged
from semacdr.model.vocabulary import Vocabulary

CHUNK_SCORES = 2_000_000
"""Scores held at a time."""

Scorer = Callable[[IntArray, int], Tensor]
"""From positions of queries and their domain to scores of the domain's items: [Q, I]."""


@dataclass(frozen=True)
class Ranks:
    """How each query's target was ranked."""

    rank: IntArray
    """From 1."""
    num_candidates: IntArray
    top: IntArray | None
    """``item_index`` of the first candidates of each query, 0 where there are fewer; None when not asked for."""


def rank_targets(
    scorer: Scorer,
    events: Events,
    queries: Queries,
    vocabulary: Vocabulary,
    *,
    seed: int,
    keep: int = 0,
    among_QC: IntArray | None = None,
) -> Ranks:
    """Rank every query's target among all items of its domain that the user has not had before.

    A target that the user had before stays a candidate. At most ``CHUNK_SCORES`` scores are held at a time.

    Args:
        scorer: scores of a domain's items for some queries.
        events: the users' events; the history that is left out is whole, not cut to a model's length.
        queries: with the targets.
        vocabulary: of the items.
        seed: of the permutation that breaks ties.
        keep: first candidates to return.
        among_QC: ``item_index`` of other candidates than all, the target not among them; None: all.

    Raises:
        DataError: a score is not finite.
    """
    rank, num_candidates = np.zeros(len(queries), np.int64), np.zeros(len(queries), np.int64)
    top = np.zeros((len(queries), keep), np.int64) if keep else None
    for domain, (start, stop) in enumerate(vocabulary.bounds):
        permutation = np.random.default_rng([seed, domain]).permutation(stop - start)
        for chosen in chunks(np.flatnonzero(queries.domain == domain), CHUNK_SCORES // (stop - start)):
            score_QI = scorer(chosen, domain)
            if not torch.isfinite(score_QI).all():
                raise DataError(
                    f"scores of domain {vocabulary.domains[domain]} are not finite",
                    do="train again with a lower learning_rate",
                )
            own_Q1 = torch.from_numpy(queries.item[chosen] - start)[:, None]
            target_Q1 = score_QI.gather(1, own_Q1)
            if among_QC is None:
                row, column = histories_of(events, queries, chosen, domain)
                score_QI = score_QI.index_put((torch.from_numpy(row), torch.from_numpy(column - start)), _LOWEST)
            else:
                drawn_QC = torch.from_numpy(among_QC[chosen] - start)
                score_QI = torch.full_like(score_QI, -torch.inf).scatter(1, drawn_QC, score_QI.gather(1, drawn_QC))
            score_QI.scatter_(1, own_Q1, target_Q1)
            # From here on items stand in permuted order, so that what comes first wins a tie.
            place_I = torch.from_numpy(np.argsort(permutation))
            permuted_QI = score_QI[:, torch.from_numpy(permutation)]
            rank[chosen] = _rank(permuted_QI, target_Q1, place_I[own_Q1]).numpy()
            num_candidates[chosen] = torch.isfinite(score_QI).sum(dim=1).numpy()
            if top is not None:
                first = _top(permuted_QI, min(keep, stop - start)).numpy()
                top[chosen, : first.shape[1]] = np.where(first < 0, 0, permutation[first] + start)
    return Ranks(rank, num_candidates, top)


_LOWEST = torch.tensor(-torch.inf)


def chunks(chosen: IntArray, size: int) -> Iterator[IntArray]:
    """Yield positions a few at a time, at least one."""
    for start in range(0, len(chosen), max(1, size)):
        yield chosen[start : start + max(1, size)]


def histories_of(events: Events, queries: Queries, chosen: IntArray, domain: int) -> tuple[IntArray, IntArray]:
    """Return rows and items of what the users had in the domain before their queries."""
    first, stop = events.offsets[queries.user[chosen]], queries.stop[chosen]
    row, index = ragged(first, stop)
    same = events.domain[index] == domain
    return row[same], events.item[index][same]


def _rank(
    score_QI: Float[Tensor, "queries items"], target_Q1: Float[Tensor, "queries 1"], place_Q1: Int[Tensor, "queries 1"]
) -> Int[Tensor, " queries"]:
    before_QI = torch.arange(score_QI.shape[1]) < place_Q1
    return 1 + ((score_QI > target_Q1) | ((score_QI == target_Q1) & before_QI)).sum(dim=1)


def _top(score_QI: Float[Tensor, "queries items"], keep: int) -> Int[Tensor, "queries kept"]:
    """Columns of the highest scores, best first; of equal ones the leftmost; -1 for what is no candidate."""
    least_Q1 = score_QI.topk(keep, dim=1).values[:, -1:]
    above_QI, equal_QI = score_QI > least_Q1, score_QI == least_Q1
    room_Q1 = keep - above_QI.sum(dim=1, keepdim=True)
    kept_QI = above_QI | (equal_QI & (equal_QI.cumsum(dim=1) <= room_Q1))
    column_QK = kept_QI.nonzero()[:, 1].view(-1, keep)
    value_QK = score_QI.gather(1, column_QK)
    order_QK = value_QK.argsort(dim=1, descending=True, stable=True)
    column_QK = column_QK.gather(1, order_QK)
    return column_QK.where(torch.isfinite(value_QK.gather(1, order_QK)), -1)


def hit(rank: IntArray, at: int) -> npt.NDArray[np.float64]:
    """Return 1 for targets among the first ``at``."""
    return (rank <= at).astype(np.float64)


def ndcg(rank: IntArray, at: int) -> npt.NDArray[np.float64]:
    """Return 1 / log2(1 + rank) for targets among the first ``at``, else 0; one target makes the ideal 1."""
    return np.where(rank <= at, 1 / np.log2(1.0 + rank), 0.0)


def reciprocal(rank: IntArray, at: int) -> npt.NDArray[np.float64]:
    """Return 1 / rank for targets among the first ``at``, else 0."""
    return np.where(rank <= at, 1.0 / rank, 0.0)


def macro(value: npt.NDArray[np.float64], domain: IntArray) -> float:
    """Return the mean over domains of the mean over their targets; domains without targets do not count."""
    return float(np.mean([value[domain == one].mean() for one in np.unique(domain)]))
