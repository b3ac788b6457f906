import numpy as np
import polars as pl
import pytest

from semacdr.evaluation.metrics import coverage_values, groups_of, metric_values
from semacdr.model.histories import Events, events_of, queries_of_targets
from semacdr.model.vocabulary import Vocabulary
from semacdr.tables import Candidates, Part

VOCABULARY = Vocabulary.of_items(
    pl.DataFrame({"domain": ["a", "a", "a", "b", "b"], "item_id": ["p", "q", "r", "x", "y"]})
)
SEQUENCES = pl.DataFrame(
    {
        "user_id": ["u", "v", "w"],
        "domains": [["a", "a", "a", "b"], ["b", "a"], ["a", "a", "a", "a"]],
        "item_ids": [["p", "q", "p", "x"], ["x", "r"], ["p", "q", "q", "q"]],
        "timestamps_s": [[1, 2, 9, 9], [3, 9], [1, 2, 3, 9]],
        "parts": [["train", "train", "test", "test"], ["train", "test"], ["train", "train", "train", "test"]],
        "is_target": [[False, False, True, True], [False, True], [False, False, False, True]],
    }
)


@pytest.fixture
def events():
    return events_of(SEQUENCES, VOCABULARY)


def test_groups_by_hand(events: Events):
    queries = queries_of_targets(events, Part.TEST)
    groups = groups_of(events, queries, events.up_to(Part.VALIDATION).support(5)[queries.item])
    # u takes p (2 before in a, p among them) and x (none before in b, p at the same time not counted), v takes r,
    # w takes q once more.
    assert {name: mask.tolist() for name, mask in groups.items()} == {
        "all": [True, True, True, True],
        "warm": [True, True, False, True],
        "cold": [False, False, True, False],
        "own-0": [False, True, True, False],
        "own-1-2": [True, False, False, False],
        "own-3-5": [False, False, False, True],
        "own-6+": [False, False, False, False],
        "source-only": [False, True, True, False],
        "overlapping": [False, False, False, False],
        "single-domain": [True, True, True, True],
        "new": [False, True, True, False],
        "repeat": [True, False, False, True],
    }


def test_metric_values_by_hand():
    rank, domain = np.array([1, 3, 7, 200]), np.array([0, 0, 1, 1])
    groups = {"all": np.ones(4, bool), "some": np.array([True, False, False, False])}
    values = {
        (one.domain, one.group, one.metric): (one.value, one.num_targets)
        for one in metric_values(rank, domain, groups, ("a", "b"))
    }
    assert values["a", "all", "hr_5"] == (1.0, 2)
    assert values["b", "all", "hr_5"] == (0.0, 2)
    assert values["b", "all", "hr_10"] == (0.5, 2)
    assert values["macro", "all", "hr_10"] == (0.75, 4)
    assert values["a", "all", "ndcg_10"] == (pytest.approx(0.75), 2)
    assert values["b", "all", "ndcg_10"][0] == pytest.approx(1 / 3 / 2)
    # The reciprocal rank of place 200 is cut.
    assert values["b", "all", "mrr"][0] == pytest.approx(1 / 7 / 2)
    # A group without targets in b: no row for b, and a macro mean over a alone.
    assert ("b", "some", "mrr") not in values
    assert values["macro", "some", "mrr"] == (1.0, 1)


def test_coverage_values_by_hand():
    top = np.array([[1, 2], [2, 0], [4, 5]])
    values = list(coverage_values(top, np.array([0, 0, 1]), VOCABULARY.bounds, VOCABULARY.domains))
    assert [(one.domain, one.value, one.num_targets) for one in values] == [
        ("a", pytest.approx(2 / 3), 2),
        ("b", 1.0, 1),
        ("macro", pytest.approx(5 / 6), 3),
    ]


def test_groups_of_users_by_the_domains_of_their_history():
    rows = pl.DataFrame(
        {
            "user_id": ["both", "nobody"],
            "domains": [["a", "b", "a"], ["a"]],
            "item_ids": [["p", "x", "q"], ["r"]],
            "timestamps_s": [[1, 2, 9], [9]],
            "parts": [["train", "train", "test"], ["test"]],
            "is_target": [[False, False, True], [True]],
        }
    )
    events = events_of(rows, VOCABULARY)
    queries = queries_of_targets(events, Part.TEST)
    groups = groups_of(events, queries, events.support(5)[queries.item])
    assert groups["overlapping"].tolist() == [True, False]
    assert groups["single-domain"].tolist() == groups["source-only"].tolist() == [False, False]
    assert groups["own-0"].tolist() == [False, True]
    assert "repeat" not in groups


def test_reciprocal_ranks_among_drawn_candidates_are_not_cut():
    rank, domain, groups = np.array([200]), np.array([0]), {"all": np.ones(1, bool)}
    values = {one.metric: one.value for one in metric_values(rank, domain, groups, ("a",), Candidates.SAMPLED_999)}
    assert values["mrr"] == pytest.approx(1 / 200)
