from pathlib import Path

import numpy as np
import polars as pl
import pytest

from semacdr.errors import DataError
from semacdr.model.histories import Visibility, events_of, queries_at, queries_of_targets, query_batches, read_events
from semacdr.model.vocabulary import Vocabulary
from semacdr.tables import Part

VOCABULARY = Vocabulary.of_items(pl.DataFrame({"domain": ["a", "a", "b", "b"], "item_id": ["p", "q", "x", "y"]}))
SEQUENCES = pl.DataFrame(
    {
        "user_id": ["v", "u"],
        "domains": [["a", "b", "a", "b"], ["b"]],
        "item_ids": [["p", "x", "q", "y"], ["y"]],
        "timestamps_s": [[1, 5, 5, 9], [3]],
        "parts": [["train", "validation", "validation", "test"], ["validation"]],
        "is_target": [[False, True, True, True], [True]],
    }
)


def test_events_are_sorted_by_user_and_cut_by_part():
    events = events_of(SEQUENCES, VOCABULARY)
    assert events.user_ids.to_list() == ["u", "v"]
    assert events.item.tolist() == [4, 1, 3, 2, 4]
    assert events.domain.tolist() == [1, 0, 1, 0, 1]
    train = events.up_to(Part.TRAIN)
    assert (train.num_users, train.offsets.tolist(), train.item.tolist()) == (2, [0, 0, 1], [1])
    assert events.up_to(Part.VALIDATION).support(4).tolist() == [0, 1, 1, 1, 1]


def test_queries_of_targets_end_before_events_of_equal_time():
    queries = queries_of_targets(events_of(SEQUENCES, VOCABULARY), Part.VALIDATION)
    assert queries.user.tolist() == [0, 1, 1]
    assert queries.stop.tolist() == [0, 2, 2]
    assert queries.item.tolist() == [4, 3, 2]


def test_queries_of_targets_under_leave_one_out_end_at_the_event_itself():
    events = events_of(SEQUENCES, VOCABULARY)
    queries = queries_of_targets(events, Part.VALIDATION, Visibility.EARLIER_IN_ORDER)
    assert queries.stop.tolist() == [0, 2, 3]


def test_queries_at_a_time_see_strictly_earlier_events():
    events = events_of(SEQUENCES, VOCABULARY)
    times = np.array([0, 3, 4, 5, 6, 10])
    user = np.array([0, 0, 0, 1, 1, 1])
    assert queries_at(events, user, np.zeros(6, np.int64), times).stop.tolist() == [0, 0, 1, 2, 4, 5]


def test_query_batches_hold_the_last_events_and_every_query_once():
    events = events_of(SEQUENCES, VOCABULARY)
    user = np.array([1, 0, 1])
    queries = queries_at(events, user, np.zeros(3, np.int64), np.array([100, 0, 6]))
    seen = {}
    for chosen, batch in query_batches(events, queries, max_length=2, batch_events=3):
        assert batch.item_BL.numel() <= 3
        for at, query in enumerate(chosen.tolist()):
            row = batch.item_BL[batch.row_Q[at]]
            seen[query] = row[: int(batch.position_Q[at]) + 1].tolist()
    assert seen == {0: [2, 4], 1: [], 2: [3, 2]}


def test_events_out_of_order_are_refused():
    with pytest.raises(DataError, match="user v"):
        events_of(SEQUENCES.with_columns(timestamps_s=pl.Series([[9, 5, 5, 1], [3]])), VOCABULARY)


def test_events_of_an_unknown_item_are_refused():
    small = Vocabulary.of_items(pl.DataFrame({"domain": ["a", "a", "b", "b"], "item_id": ["p", "q", "x", "z"]}))
    with pytest.raises(DataError, match="b/y"):
        events_of(SEQUENCES, small)


def test_read_events_without_files_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="no user has a sequence"):
        read_events(tmp_path, VOCABULARY)
