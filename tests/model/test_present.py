from __future__ import annotations

import numpy as np
import pytest

from semacdr.model.asked import Asked
from semacdr.model.config import Expert
from semacdr.model.experts import Memory, expert_scores
from semacdr.model.histories import Events, queries_at
from semacdr.model.popularity import SMALLEST
from semacdr.model.present import Present
from tests.model.test_experts import DAY, TITLES, VOCABULARY, events_at, random_events, text


def part(events: Events, first: int, stop: int) -> Events:
    user = events.user
    return events.kept((user >= first) & (user < stop))


def present_of(*parts: Events, mixed: bool = False) -> Present:
    last_s = max(int(events.time_s.max(initial=0)) for events in parts)
    return Present.of(lambda: parts, last_s, VOCABULARY.bounds, mixed=mixed)


@pytest.mark.parametrize(("later_days", "mixed"), [(0, False), (40, False), (0, True)])
def test_sums_say_what_the_kept_events_say(later_days: int, mixed: bool):
    """The oracle keeps every event and filters at each query."""
    events = random_events()
    memory, present = Memory.of(events, VOCABULARY, TITLES, text(), mixed=mixed), present_of(events, mixed=mixed)
    users = np.arange(events.num_users)
    for domain, (start, stop) in enumerate(VOCABULARY.bounds):
        now = np.full_like(users, memory.last_s + 1 + later_days * DAY)
        queries = queries_at(events, users, np.full_like(users, domain), now)
        by_events = expert_scores(
            memory, [Expert.POPULARITY, Expert.TRANSITIONS], events, queries, users, domain
        ).numpy()
        for found_Q, expected_R in zip(by_events[:-1], present.popularity_HR, strict=True):
            np.testing.assert_allclose(found_Q[0], expected_R[start:stop], atol=1e-5)
        asked = Asked.of(events, queries, users, mixed=mixed)
        faded = 0.5 ** ((now[0] - present.last_s) / (360 * DAY))
        rate = np.zeros((len(users), stop - start))
        for row, item, weight in zip(asked.row, asked.item, asked.weight, strict=True):
            after = present.following[item, start:stop].toarray()[0] * faded
            rate[row] += weight * after / (after.sum() + 1)
        np.testing.assert_allclose(by_events[-1], np.log(rate + SMALLEST), atol=1e-4)


def test_how_users_are_cut_into_parts_does_not_matter():
    events = random_events(num_users=9)
    whole, parts = present_of(events), present_of(part(events, 0, 4), part(events, 4, 9))
    np.testing.assert_allclose(whole.popularity_HR, parts.popularity_HR, rtol=1e-6)
    np.testing.assert_allclose(whole.following.toarray(), parts.following.toarray(), rtol=1e-6)
    assert np.array_equal(whole.support_R, parts.support_R)
    assert whole.support_R.sum() == len(events.item)
    past = Memory.of(events, VOCABULARY, TITLES, text()).past
    for found in (whole.past, parts.past):
        assert found.last_s == past.last_s
        assert np.array_equal(found.of_item.key_K, past.of_item.key_K)
        assert np.array_equal(found.of_item.count_K, past.of_item.count_K)


def test_domain_without_events_has_the_floor_everywhere():
    present = present_of(events_at([(1, "a", 0), (2, "a", 1)]))
    start, stop = VOCABULARY.bounds[1]
    np.testing.assert_allclose(present.popularity_HR[:, start:stop], np.log(SMALLEST))
