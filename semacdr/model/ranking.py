"""The rank that a target is given among every item of its domain less the user's own history, or among drawn ones.

A target that the user had before is ranked among all items of its domain: as the only one of the history that is left
it would give itself away.

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
    """Rank every query's target among the candidates of its domain, ``CHUNK_SCORES`` scores at most at a time.

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
        place_I = np.argsort(permutation).astype(np.int32)
        for chosen in chunks(np.flatnonzero(queries.domain == domain), CHUNK_SCORES // (stop - start)):
            score_QI = scorer(chosen, domain)
            # One score that is not finite makes the sum so, at a thirtieth of the time of a look at each.
            if not torch.isfinite(score_QI.sum()):
                raise DataError(
                    f"scores of domain {vocabulary.domains[domain]} are not finite",
                    do="train again with a lower learning_rate",
                )
            own_Q = queries.item[chosen] - start
            if among_QC is not None:
                index_QC = np.concatenate([own_Q[:, None], among_QC[chosen] - start], axis=1)
                score_QC = score_QI.gather(1, torch.from_numpy(index_QC)).numpy()
                # By score, then by place: what comes first wins a tie.
                order_QC = np.lexsort((place_I[index_QC], -score_QC))
                rank[chosen] = 1 + (order_QC == 0).argmax(axis=1)
                num_candidates[chosen] = index_QC.shape[1]
                if top is not None:
                    first = np.take_along_axis(index_QC, order_QC[:, :keep], axis=1)
                    top[chosen, : first.shape[1]] = first + start
                continue
            row, column = left_out(events, queries, chosen, domain)
            column -= start
            rank[chosen] = _ranks(score_QI.numpy(), own_Q, (row, column), place_I)
            num_candidates[chosen] = stop - start - np.bincount(row, minlength=len(chosen))
            if top is not None:
                left_QI = score_QI.index_put((torch.from_numpy(row), torch.from_numpy(column)), _LOWEST)
                first = _top(left_QI[:, torch.from_numpy(permutation)], min(keep, stop - start)).numpy()
                top[chosen, : first.shape[1]] = np.where(first < 0, 0, permutation[first] + start)
    return Ranks(rank, num_candidates, top)


_LOWEST = torch.tensor(-torch.inf)


def chunks(chosen: IntArray, size: int) -> Iterator[IntArray]:
    """Yield positions a few at a time, at least one."""
    for start in range(0, len(chosen), max(1, size)):
        yield chosen[start : start + max(1, size)]


def is_repeat(events: Events, queries: Queries) -> npt.NDArray[np.bool_]:
    """Return which targets their user had before."""
    size = events.item.max(initial=0) + 1
    pair, first = np.unique(events.user * size + events.item, return_index=True)
    repeat_Q: npt.NDArray[np.bool_] = first[np.searchsorted(pair, queries.user * size + queries.item)] < queries.stop
    return repeat_Q


def left_out(events: Events, queries: Queries, chosen: IntArray, domain: int) -> tuple[IntArray, IntArray]:
    """Return rows and items, each pair once: histories of some queries of a domain, but for those with the target."""
    row, index = ragged(events.offsets[queries.user[chosen]], queries.stop[chosen])
    item = events.item[index]
    repeat_row = row[item == queries.item[chosen][row]]
    kept = (events.domain[index] == domain) & ~np.isin(row, repeat_row)
    size = item.max(initial=0) + 1
    return np.divmod(np.unique(row[kept] * size + item[kept]), size)


def _ranks(
    score_QI: npt.NDArray[np.float32],
    own_Q: IntArray,
    left_out: tuple[IntArray, IntArray],
    place_I: npt.NDArray[np.int32],
) -> IntArray:
    """Return the rank of one item of each row among all but some, the places of items breaking ties."""
    rows, (row, column) = np.arange(len(own_Q)), left_out
    own_score_Q = score_QI[rows, own_Q]
    # Row by row in the processor's cache: eight times as fast as all at once.
    above_Q = np.array([np.count_nonzero(score_QI[at] > own_score_Q[at]) for at in rows], np.int64)
    at_least_Q = np.array([np.count_nonzero(score_QI[at] >= own_score_Q[at]) for at in rows], np.int64)
    with_ties = np.flatnonzero(at_least_Q - above_Q > 1)
    above_Q -= np.bincount(row[score_QI[row, column] > own_score_Q[row]], minlength=len(rows))
    for at in with_ties:
        first_I = (score_QI[at] == own_score_Q[at]) & (place_I < place_I[own_Q[at]])
        first_I[column[row == at]] = False
        above_Q[at] += np.count_nonzero(first_I)
    return 1 + above_Q


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
