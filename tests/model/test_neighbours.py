from __future__ import annotations

import numpy as np
import pytest

from semacdr.model import neighbours
from semacdr.model.config import Expert
from semacdr.model.experts import Memory, expert_scores
from semacdr.model.histories import Events, Queries, queries_at, queries_of_targets
from semacdr.tables import Part
from tests.model.test_experts import DAY, TITLES, VOCABULARY, events_at, random_events, text
from tests.model.test_present import part, present_of


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few takers, and such short windows, that the small log goes beyond both."""
    monkeypatch.setattr(neighbours, "TAKERS", 3)
    monkeypatch.setattr(neighbours, "WINDOW", 2)


def scores(events: Events, queries: Queries, chosen: np.ndarray, domain: int, *, mixed: bool = True) -> np.ndarray:
    memory = Memory.of(events, VOCABULARY, TITLES, text(), mixed=mixed)
    return expert_scores(memory, [Expert.NEIGHBOURS], events, queries, chosen, domain)[0].numpy()


def looked_at(events: Events, queries: Queries, query: int, *, mixed: bool) -> list[tuple[int, float]]:
    """The items that are looked at, and what each counts."""
    history = range(events.offsets[queries.user[query]], queries.stop[query])
    own = [event for event in history if events.domain[event] == queries.domain[query]]
    newest = list(history if mixed else own or history)[::-1][: neighbours.RECENT]
    return [(events.item[event], neighbours.DECAY**after) for after, event in enumerate(newest)]


@pytest.mark.parametrize("mixed", [False, True])
def test_shares_equal_a_naive_loop(mixed: bool):
    events = random_events(num_users=20)
    queries = queries_of_targets(events, Part.TEST)
    chosen = np.flatnonzero(queries.domain == 0)
    found = scores(events, queries, chosen, 0, mixed=mixed)
    for row, query in enumerate(chosen[::3]):
        now, rate = queries.time_s[query], np.zeros(5)
        for item, decay in looked_at(events, queries, query, mixed=mixed):
            of_item = np.flatnonzero(events.item == item)
            takers = of_item[events.time_s[of_item] < now]
            rare = np.log((1 + (events.time_s < now).sum()) / (1 + len(takers)))
            newest = takers[np.argsort(events.time_s[takers], kind="stable")][-3:]
            for taker in newest:
                start, stop = (events.offsets[events.user[taker] + end] for end in (0, 1))
                for other in range(max(start, taker - 2), min(stop, taker + 3)):
                    both = max(events.time_s[taker], events.time_s[other])
                    if other != taker and both < now and events.item[other] <= 5:
                        fade = 0.5 ** ((now - both) / DAY / neighbours.HALF_LIFE_DAYS)
                        rate[events.item[other] - 1] += decay * rare**2 * fade
        share = rate / max(rate.sum(), 1e-300)
        assert found[row * 3] == pytest.approx(np.log(share + neighbours.FLOOR), rel=1e-4, abs=1e-5)


def test_of_equal_histories_the_item_that_more_neighbours_took_ranks_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(neighbours, "TAKERS", 9)
    taken = [[(1, "a", 0), (2, "b", 1)], [(1, "a", 0), (2, "b", 1)], [(1, "b", 2), (2, "a", 0)], [(3, "b", 4)]]
    events = events_at(*taken, [(4, "a", 0)])
    queries = queries_at(events, np.array([4]), np.array([1]), np.array([5 * DAY]))
    found = scores(events, queries, np.array([0]), 1)[0]
    assert found.argsort()[::-1][:2].tolist() == [1, 2]
    assert found[[0, 3, 4]] == pytest.approx(np.log(neighbours.FLOOR))


def test_a_shared_rare_item_says_more_than_a_shared_common_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(neighbours, "TAKERS", 9)
    common = [[(1, "a", 0), (2, "b", 1)]] * 3
    events = events_at(*common, [(1, "a", 1), (2, "b", 2)], [(3, "a", 1), (3, "a", 0)])
    queries = queries_at(events, np.array([4]), np.array([1]), np.array([4 * DAY]))
    found = scores(events, queries, np.array([0]), 1)[0]
    share = np.exp(found.astype(np.float64)) - neighbours.FLOOR
    assert share[[1, 2]].sum() == pytest.approx(1, rel=1e-4)
    # Three of five neighbours took the one, but by an item of four takers among eleven events and not of two.
    assert share[2] > share[1] / 3


@pytest.mark.parametrize("later_days", [0, 40])
def test_what_serving_keeps_says_what_the_kept_events_say(later_days: int, monkeypatch: pytest.MonkeyPatch):
    """The oracle keeps every event and filters at each query; how users are cut into parts does not matter."""
    events = random_events(num_users=20)
    users = np.arange(20)
    monkeypatch.setattr("semacdr.model.present._EVENTS", 5)
    present = present_of(part(events, 0, 7), part(events, 7, 20))
    queries = queries_at(events, users, np.full(20, 1), np.full(20, present.last_s + 1 + later_days * DAY))
    found = scores(events, queries, users, 1)
    for row, query in enumerate(users):
        profile = np.zeros(11)
        for item, decay in looked_at(events, queries, query, mixed=True):
            profile[item] += decay * present.rarity_R[item] ** 2
        rate = profile @ present.neighbours.toarray()[:, 6:]
        assert found[row] == pytest.approx(np.log(rate / rate.sum() + neighbours.FLOOR), rel=1e-4, abs=1e-5)


def test_of_takers_at_one_time_the_last_are_the_newest_however_users_are_cut():
    events = events_at(*[[(day, "a", 0), (day, "a", number)] for number, day in enumerate((2, 1, 1, 1, 1))])
    # The first item was taken twice by the first user; of those of day 1 one more is among the three.
    for parts in (
        [events],
        [part(events, 0, 2), part(events, 2, 5)],
        [part(events, user, user + 1) for user in range(5)],
    ):
        found = neighbours.newest(parts)
        assert found[events.item[found] == 1].tolist() == [0, 1, 8]
        assert found[events.item[found] > 1].tolist() == [3, 5, 7, 9]


def test_without_events_nobody_is_a_neighbour():
    events = random_events(num_users=2)
    none = events.kept(np.zeros(len(events.item), bool))
    queries = queries_at(events, np.arange(2), np.zeros(2, np.int64), np.full(2, 99 * DAY))
    memory = Memory.of(none, VOCABULARY, TITLES, text(), mixed=True)
    found = expert_scores(memory, [Expert.NEIGHBOURS], events, queries, np.arange(2), 0)
    assert found.numpy() == pytest.approx(np.log(neighbours.FLOOR))
