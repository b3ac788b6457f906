import numpy as np
import polars as pl
import pytest

from semacdr.dataset import Protocol
from semacdr.errors import ConfigError
from semacdr.evaluation.ease import ease_scorer
from semacdr.evaluation.floors import FLOORS, choose, following, recent_counts
from semacdr.evaluation.task import Setting, Task
from semacdr.model.histories import Events
from semacdr.tables import Candidates, FitOn
from tests.evaluation.test_task import VOCABULARY, split

A, B = 0, 1


@pytest.fixture
def task() -> Task:
    titles = VOCABULARY.table.select("domain", "item_id").with_columns(
        title=pl.Series(["green tea", "black tea", "coffee", "green tea bags", None, "tea pot", "pan", "iron pan"])
    )
    return Task(Setting(Protocol.GTS, Candidates.FULL, FitOn.REFIT), VOCABULARY, titles, split(Protocol.GTS))


def all_of(events: Events, domain: int) -> np.ndarray:
    return np.flatnonzero(events.domain == domain)


def test_popularity_counts_the_fits_events_and_no_others(task: Task):
    scores = FLOORS["popularity"].scorer(task, {}, 0)
    # a1 twice, a2 twice (time 2 and 8), a3 and a4 once (time 8); a5 is a test event.
    assert scores(np.array([0]), A).tolist() == [[2, 2, 1, 1, 0]]
    assert scores(np.array([0]), B).tolist() == [[2, 0, 0]]


def test_recent_popularity_counts_the_days_up_to_the_last_event_of_the_fit():
    events = split(Protocol.GTS)
    day = 86_400
    spread = Events(**{**vars(events), "time_s": events.time_s * day})
    # The last event is of day 9; of the last two days are those after day 7.
    assert recent_counts(spread, 8, 2).tolist() == [0, 0, 1, 1, 1, 1, 0, 1, 1]
    assert recent_counts(spread, 8, 1).tolist() == [0, 0, 0, 0, 0, 1, 0, 1, 1]


def test_popularity_rolling_counts_what_came_before_each_target():
    day = 86_400
    events = split(Protocol.GTS)
    spread = Events(**{**vars(events), "time_s": events.time_s * day})
    rolling = Task(Setting(Protocol.GTS, Candidates.FULL, FitOn.ROLLING), VOCABULARY, no_titles(), spread)
    # All three targets are of day 9: b1 twice on days 2 and 3; of a, day 8 is within two days of day 9, day 4 is not.
    assert FLOORS["popularity"].scorer(rolling, {}, 0)(np.array([0, 1]), B).tolist() == [[2, 0, 0]] * 2
    assert FLOORS["recent-popularity"].scorer(rolling, {"days": 2}, 0)(np.array([0]), A).tolist() == [[0, 1, 1, 1, 0]]
    assert rolling.support_Q.tolist() == [0, 0, 0]
    # Validation targets are of day 8: what their choices are made on ends before it.
    selection = rolling.selection()
    assert FLOORS["popularity"].scorer(selection, {}, 0)(np.array([0, 1]), A).tolist() == [[2, 1, 0, 0, 0]] * 2
    assert selection.fit_events.time_s.max() == 4 * day
    assert selection.support_Q.tolist() == [0, 1]


def test_support_rolling_counts_test_events_before_the_target():
    events, (b2, b3) = split(Protocol.GTS), (7, 8)
    # u takes b3 in place of b2, a moment before v does.
    item, time_s = np.where(events.item == b2, b3, events.item), 10 * events.time_s - (events.item == b2)
    early = Events(**{**vars(events), "item": item, "time_s": time_s})
    tasks = [
        Task(Setting(Protocol.GTS, Candidates.FULL, fit), VOCABULARY, no_titles(), early)
        for fit in (FitOn.REFIT, FitOn.ROLLING)
    ]
    assert [one.support_Q[one.queries.item == b3].tolist() for one in tasks] == [[0, 0], [0, 1]]


@pytest.mark.parametrize("name", ["transitions", "hybrid", "ease"])
def test_floors_that_are_fitted_once_do_not_roll(name: str):
    rolling = Task(Setting(Protocol.GTS, Candidates.FULL, FitOn.ROLLING), VOCABULARY, no_titles(), split(Protocol.GTS))
    with pytest.raises(ConfigError, match=f"model {name} is fitted once"):
        choose(name, rolling, 0)


def no_titles() -> pl.DataFrame:
    return VOCABULARY.table.select("domain", "item_id", title=pl.lit(None, pl.String))


def test_transitions_count_what_follows_within_the_window(task: Task):
    followers = following(task.fit_events, 8, window=2, gap_decay=0.5, half_life=None).toarray()
    # u: a1 a2 b1 a3; v: b1 a1 a2 a4.
    expected = np.zeros((9, 9))
    for source, taken, weight in [
        (1, 2, 1), (2, 6, 1), (6, 3, 1), (1, 6, 0.5), (2, 3, 0.5),
        (6, 1, 1), (1, 2, 1), (2, 4, 1), (6, 2, 0.5), (1, 4, 0.5),
    ]:  # fmt: skip
        expected[source, taken] += weight
    assert np.allclose(followers, expected)


def test_transitions_weigh_the_last_items_most_and_fade(task: Task):
    choice = {"window": 1, "gap_decay": 0.5, "half_life": None, "recent": 2}
    scores = FLOORS["transitions"].scorer(task, choice, 0)(np.array([0, 1, 2]), A).numpy()
    # u's last two: a3 (nothing followed it), b1 before it with weight 1/2: a3 and a1 followed once each.
    assert scores[0] == pytest.approx([0.5, 0, 0.5, 0, 0], abs=2e-6)
    # v's last two: a4, and a2, which b1 and a4 followed.
    assert scores[1] == pytest.approx([0, 0, 0, 0.5, 0], abs=2e-6)
    # w has no history: popularity alone orders what it is shown.
    assert scores[2].argsort()[::-1][:2].tolist() in ([0, 1], [1, 0])
    faded = following(task.fit_events, 8, window=1, gap_decay=1.0, half_life=1 / 86_400).toarray()
    # The fit's last event is at 8 s; u took b1 after a2 at 2 s: six half-lives before.
    assert faded[2, 6] == pytest.approx(0.5**6)


def test_title_is_the_nearest_of_the_last_items_of_the_domain(task: Task):
    scores = FLOORS["title"].scorer(task, {"recent": 1, "age_decay": 1.0}, 0)(np.array([0, 1]), B).numpy()
    # u's and v's only item of b before their targets is b1, the tea pot: no word in common with pans.
    assert scores == pytest.approx(np.array([[1, 0, 0], [1, 0, 0]]), abs=2e-6)
    of_a = FLOORS["title"].scorer(task, {"recent": 3, "age_decay": 1.0}, 0)(np.array([1]), A).numpy()[0]
    # v had green tea, black tea and green tea bags: coffee shares nothing, an item without a title neither.
    assert of_a[[0, 1, 3]] == pytest.approx([1, 1, 1], abs=2e-6)
    assert of_a[[2, 4]] == pytest.approx([0, 0], abs=2e-6)


def test_hybrid_is_the_weighted_sum_of_its_parts(task: Task):
    parts = {
        "transitions": {"window": 5, "gap_decay": 0.5, "half_life": None, "recent": 5},
        "title": {"recent": 5, "age_decay": 0.8},
    }
    chosen = np.array([0, 1, 2])
    mixed = FLOORS["hybrid"].scorer(task, {**parts, "title_weight": 0.3}, 0)(chosen, A)
    alone = {name: FLOORS[name].scorer(task, choice, 0)(chosen, A) for name, choice in parts.items()}
    assert mixed.numpy() == pytest.approx((alone["transitions"] + 0.3 * alone["title"]).numpy())


@pytest.mark.parametrize("ridge", [0.5, 20.0])
def test_ease_equals_its_closed_form(task: Task, ridge: float):
    fit = task.fit_events
    x = np.zeros((fit.num_users, 9))
    x[fit.user, fit.item] = 1
    inverse = np.linalg.inv(x.T @ x + ridge * np.eye(9))
    weights = np.eye(9) - inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    history = np.zeros((3, 9))
    for query, stop in enumerate(task.queries.stop):
        user = task.queries.user[query]
        history[query, task.events.item[task.events.offsets[user] : stop]] = 1
    scores = ease_scorer(fit, task.events, task.queries, VOCABULARY, ridge)
    assert scores(np.arange(3), A).numpy() == pytest.approx((history @ weights)[:, 1:6], abs=1e-5)
    assert scores(np.arange(3), B).numpy() == pytest.approx((history @ weights)[:, 6:9], abs=1e-5)


def test_random_differs_between_targets_and_seeds_but_not_between_calls(task: Task):
    first, again = (FLOORS["random"].scorer(task, {}, 0) for _ in range(2))
    assert first(np.array([0, 1]), A).tolist() == [again(np.array([at]), A)[0].tolist() for at in (0, 1)]
    assert first(np.array([0]), A).tolist() != first(np.array([1]), A).tolist()
    assert first(np.array([0]), A).tolist() != FLOORS["random"].scorer(task, {}, 1)(np.array([0]), A).tolist()


@pytest.mark.parametrize("name", list(FLOORS))
def test_choices_do_not_change_with_test_events(task: Task, name: str):
    events = task.events
    shuffled = events.item.copy()
    is_test = events.part == 2
    shuffled[is_test] = np.where(events.domain[is_test] == A, 1, 8)
    other = Task(task.setting, VOCABULARY, task.titles, Events(**{**vars(events), "item": shuffled}))
    chosen = choose(name, task, seed=0)
    assert chosen == choose(name, other, seed=0)
    assert len(chosen.tried) <= 24
