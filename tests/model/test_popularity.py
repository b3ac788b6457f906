import math

import numpy as np
import pytest

from semacdr.model.histories import SECONDS_PER_DAY
from semacdr.model.popularity import SMALLEST, DayCounter, PastPopularity
from tests.model.test_experts import events_at

BOUNDS = ((1, 3), (3, 5))


def test_daily_counts_hold_whole_days_before_a_time_and_none_of_its_own():
    counter = DayCounter()
    day = SECONDS_PER_DAY
    counter.add(np.array([1, 1, 2, 1]), np.array([0, day - 1, day, 3 * day]))
    counts = counter.counts()
    assert len(counts.key_K) == 3
    one = np.array([1])
    assert [counts.before(one, np.array([at * day + 5]), 2).item() for at in range(7)] == [0, 2, 2, 0, 1, 1, 0]
    assert counts.before(np.array([0, 2, 3]), np.full(3, 2 * day), 9).tolist() == [0, 1, 0]


def test_daily_counts_of_many_small_parts_are_those_of_one():
    rng = np.random.default_rng(0)
    thing, time_s = rng.integers(0, 50, 2_000), rng.integers(-400, 400, 2_000) * SECONDS_PER_DAY // 3
    whole, parts = DayCounter(), DayCounter()
    whole.add(thing, time_s)
    for chosen in np.array_split(np.arange(2_000), 37):
        parts.add(thing[chosen], time_s[chosen])
    assert parts.counts().key_K.tolist() == whole.counts().key_K.tolist()
    assert parts.counts().count_K.tolist() == whole.counts().count_K.tolist()
    asked, at = rng.integers(0, 50, 300), rng.integers(-500, 500, 300) * SECONDS_PER_DAY
    day = time_s // SECONDS_PER_DAY
    expected = [
        int(((thing == one) & (day < when // SECONDS_PER_DAY) & (day >= when // SECONDS_PER_DAY - 7)).sum())
        for one, when in zip(asked, at, strict=True)
    ]
    assert whole.counts().before(asked, at, 7).tolist() == expected


def test_popularity_when_taken_is_the_share_of_the_week_before_in_the_items_domain():
    day = SECONDS_PER_DAY
    counter = DayCounter()
    # Of domain a on days 1 and 2: item 1 three times, item 2 once; of domain b: item 3 twice.
    counter.add(np.array([1, 1, 1, 2, 3, 3]), np.array([1, 1, 2, 2, 1, 2]) * day)
    past = PastPopularity.of(counter.counts(), 2 * day, BOUNDS)
    events = events_at([(2, "a", 1), (9, "b", 3), (9, "a", 1)], [(3, "a", 0)])
    item = np.array([1, 3, 1, 2])
    events = type(events)(**{**vars(events), "item": item, "time_s": np.array([2, 9, 9, 3]) * day})
    score, is_known = past.when_taken(events)
    # Before day 2 two of two events; in the week before day 9 one of one, and one of two; before day 3 one of four.
    shares = [1, 1, 0.5, 0.25]
    assert score.tolist() == pytest.approx([math.log(1 + share / SMALLEST) for share in shares], rel=1e-5)
    assert is_known.tolist() == [True, False, False, False]


def test_popularity_of_what_nobody_took_is_nothing():
    past = PastPopularity.of(DayCounter().counts(), 0, BOUNDS)
    score, _ = past.when_taken(events_at([(1, "a", 1)]))
    assert score.tolist() == [0]
