from itertools import chain

import numpy as np
import polars as pl
import pytest

from semacdr.model.histories import Visibility, events_of
from semacdr.model.vocabulary import Vocabulary
from semacdr.training.batches import Share, epoch_batches, position_weights, training_windows

VOCABULARY = Vocabulary.of_items(pl.DataFrame({"domain": ["a"] * 12, "item_id": [f"i{n:02d}" for n in range(12)]}))


def events(*histories: list[int]):
    """Each history is a list of days."""
    return events_of(
        pl.DataFrame(
            {
                "user_id": [f"u{number}" for number in range(len(histories))],
                "domains": [["a"] * len(days) for days in histories],
                "item_ids": [[f"i{n % 12:02d}" for n in range(len(days))] for days in histories],
                "timestamps_s": [[day * 86_400 for day in days] for days in histories],
                "parts": [["train"] * len(days) for days in histories],
                "is_target": [[False] * len(days) for days in histories],
            }
        ),
        VOCABULARY,
    )


def test_training_windows_read_strictly_earlier_events():
    windows = training_windows(events([1, 1, 2, 2, 3]), max_length=10)
    assert windows.seen.tolist() == [-1, -1, 1, 1, 3]


def test_training_windows_under_leave_one_out_read_everything_before_in_order():
    windows = training_windows(events([1, 1, 2, 2, 3]), 10, Visibility.EARLIER_IN_ORDER)
    assert windows.seen.tolist() == [-1, 0, 1, 2, 3]


@pytest.mark.parametrize("length", [1, 2, 5, 8])
def test_training_windows_predict_every_event_once_within_the_length(length: int):
    made = events(list(range(11)), [5], list(range(8)))
    windows = training_windows(made, max_length=length)
    assert (windows.stop - windows.first).max() <= length
    # An event alone in its window has nothing to read; all others are there once, and only once.
    expected = list(range(20)) if length > 1 else [0, 11, 12]
    assert sorted(windows.event.tolist()) == expected
    start = np.repeat(windows.first, np.diff(windows.position_offsets))
    for event, seen, first in zip(windows.event, windows.seen, start, strict=True):
        assert first + seen == event - 1 or (seen == -1 and event in (0, 11, 12))


def test_epoch_batches_are_the_same_for_one_seed_and_hold_every_position_once():
    made = events(*[list(range(1 + number % 7)) for number in range(40)])
    windows = training_windows(made, max_length=5)

    def run(seed: int) -> list[list[int]]:
        return [batch.event.tolist() for batch in epoch_batches(made, windows, 8, np.random.default_rng(seed))]

    assert run(1) == run(1)
    assert run(1) != run(2)
    assert sorted(chain.from_iterable(run(1))) == sorted(windows.event.tolist())


def test_position_weights_halve_with_each_share_of_newer_events_and_have_mean_one():
    made = events([0, 10, 20, 20])
    # 3, 2, 0 and 0 of 4 events are newer; events of one time count alike.
    raw = np.array([0.5**1.5, 0.5, 1, 1])
    assert position_weights(made, half_life=0.5).tolist() == pytest.approx((raw / raw.mean()).tolist())
    assert position_weights(made, half_life=None).tolist() == [1, 1, 1, 1]


def test_epoch_batches_shares_of_two_processes_make_up_the_whole():
    made = events(*[list(range(1 + number % 7)) for number in range(40)])
    windows = training_windows(made, max_length=5)

    def run(share: Share) -> list[tuple[list[int], int]]:
        batches = epoch_batches(made, windows, 8, np.random.default_rng(0), share)
        return [(batch.event.tolist(), batch.num_queries) for batch in batches]

    whole, first, second = run(Share(0, 1)), run(Share(0, 2)), run(Share(1, 2))
    for (events_of_all, total), (one, same), (other, again) in zip(whole, first, second, strict=True):
        assert sorted(one + other) == sorted(events_of_all)
        assert total == same == again == len(events_of_all)
