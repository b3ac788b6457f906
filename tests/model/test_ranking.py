import numpy as np
import polars as pl
import pytest
import torch

from semacdr.errors import DataError
from semacdr.model import ranking
from semacdr.model.histories import events_of, queries_of_targets
from semacdr.model.ranking import hit, macro, ndcg, rank_targets, reciprocal
from semacdr.model.vocabulary import Vocabulary
from semacdr.tables import Part

VOCABULARY = Vocabulary.of_items(
    pl.DataFrame({"domain": ["a"] * 5 + ["b"] * 2, "item_id": ["p", "q", "r", "s", "t", "x", "y"]})
)
EVENTS = events_of(
    pl.DataFrame(
        {
            "user_id": ["u", "v"],
            "domains": [["a", "b", "a"], ["a", "a", "a", "b"]],
            "item_ids": [["p", "x", "r"], ["p", "q", "q", "y"]],
            "timestamps_s": [[1, 2, 3], [0, 1, 2, 3]],
            "parts": [["train", "train", "test"], ["train", "train", "test", "test"]],
            "is_target": [[False, False, True], [False, False, True, True]],
        }
    ),
    VOCABULARY,
)
QUERIES = queries_of_targets(EVENTS, Part.TEST)
SCORES = torch.tensor([9.0, 8.0, 7.0, 8.5, 1.0])


def scorer(chosen: np.ndarray, domain: int) -> torch.Tensor:
    row = SCORES if domain == 0 else torch.tensor([2.0, 1.0])
    return row.expand(len(chosen), -1)


def test_rank_targets_by_hand():
    ranks = rank_targets(scorer, EVENTS, QUERIES, VOCABULARY, seed=0, keep=5)
    # u: p is history, so s, q, r; v had p and q before and takes q again, among all items: p, s, q; v in b: x, y.
    assert ranks.rank.tolist() == [3, 3, 2]
    assert ranks.num_candidates.tolist() == [4, 5, 2]
    assert ranks.top.tolist() == [[4, 2, 3, 5, 0], [1, 4, 2, 3, 5], [6, 7, 0, 0, 0]]


def test_rank_targets_does_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch):
    whole = rank_targets(scorer, EVENTS, QUERIES, VOCABULARY, seed=0)
    monkeypatch.setattr(ranking, "CHUNK_SCORES", 1)
    assert rank_targets(scorer, EVENTS, QUERIES, VOCABULARY, seed=0).rank.tolist() == whole.rank.tolist()


def test_rank_targets_ties_follow_the_seed_and_not_the_order_of_items():
    def equal(chosen: np.ndarray, domain: int) -> torch.Tensor:
        return torch.zeros(len(chosen), 5 if domain == 0 else 2)

    runs = [rank_targets(equal, EVENTS, QUERIES, VOCABULARY, seed=seed, keep=2) for seed in range(200)]
    ranks = np.array([run.rank for run in runs])
    assert sorted(np.unique(ranks[:, 0]).tolist()) == [1, 2, 3, 4]
    assert abs(ranks[:, 0].mean() - 2.5) < 0.25
    # A target is among the first two exactly when its rank says so.
    tops = np.array([run.top for run in runs])
    assert ((tops[:, 0] == QUERIES.item[0]).any(axis=1) == (ranks[:, 0] <= 2)).all()
    again = rank_targets(equal, EVENTS, QUERIES, VOCABULARY, seed=7)
    assert again.rank.tolist() == ranks[7].tolist()


def test_rank_targets_scores_that_are_not_finite_are_refused():
    with pytest.raises(DataError, match="domain a are not finite"):
        rank_targets(lambda chosen, _: torch.full((len(chosen), 5), torch.nan), EVENTS, QUERIES, VOCABULARY, seed=0)


def test_metrics_by_hand():
    rank = np.array([1, 3, 11])
    assert hit(rank, 10).tolist() == [1, 1, 0]
    assert ndcg(rank, 10).tolist() == pytest.approx([1, 0.5, 0])
    assert reciprocal(rank, 10).tolist() == pytest.approx([1, 1 / 3, 0])
    assert macro(np.array([1.0, 0.0, 1.0]), np.array([0, 0, 2])) == pytest.approx(0.75)


def test_rank_targets_among_drawn_candidates_sees_no_others():
    # Targets r and q of a, y of b. The drawn candidates, one for each: s beats r; q beats t; x beats y.
    among = np.array([[4], [5], [6]])
    ranks = rank_targets(scorer, EVENTS, QUERIES, VOCABULARY, seed=0, keep=2, among_QC=among)
    assert ranks.rank.tolist() == [2, 1, 2]
    assert ranks.num_candidates.tolist() == [2, 2, 2]
    assert ranks.top is not None
    assert ranks.top.tolist() == [[4, 3], [2, 5], [6, 7]]
