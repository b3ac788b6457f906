"""Every definition of the protocols, on a log small enough to do by hand."""

import numpy as np
import polars as pl
import pytest

from semacdr.comparison.sources import alone, whose
from semacdr.dataset import Protocol
from semacdr.errors import DataError
from semacdr.evaluation.task import Setting, Task, draw_candidates
from semacdr.model.histories import Events, Queries, events_of, queries_of_targets
from semacdr.model.vocabulary import Vocabulary
from semacdr.tables import Candidates, FitOn, Part
from semacdr.testing.toy import sequences_of

VOCABULARY = Vocabulary.of_items(
    pl.DataFrame({"domain": ["a"] * 5 + ["b"] * 3, "item_id": ["a1", "a2", "a3", "a4", "a5", "b1", "b2", "b3"]})
)
LOG = [
    ("u", "a", "a1", 1), ("u", "b", "b1", 2), ("u", "a", "a2", 2), ("u", "a", "a3", 8), ("u", "b", "b2", 9),
    ("v", "b", "b1", 3), ("v", "a", "a1", 4), ("v", "a", "a4", 8), ("v", "a", "a2", 8), ("v", "b", "b3", 9),
    ("w", "a", "a5", 9),
]  # fmt: skip
INTERACTIONS = pl.DataFrame(LOG, schema=["user_id", "domain", "item_id", "timestamp_s"], orient="row")


def split(protocol: Protocol) -> Events:
    if protocol is Protocol.GTS:
        # 11 times in order: 1 2 2 3 4 8 8 8 9 9 9; places 5 and 8 are 8 and 9.
        return events_of(sequences_of(INTERACTIONS, 0.5, 0.8), VOCABULARY)
    events = INTERACTIONS.sort("user_id", "timestamp_s", "domain", "item_id")
    place = pl.int_range(pl.len()).reverse().over("user_id")
    part = (
        pl.when(place == 0).then(pl.lit("test")).when(place == 1).then(pl.lit("validation")).otherwise(pl.lit("train"))
    )
    rows = events.with_columns(part=part, is_target=place < 2).group_by("user_id", maintain_order=True)
    return events_of(
        rows.agg(domains="domain", item_ids="item_id", timestamps_s="timestamp_s", parts="part", is_target="is_target"),
        VOCABULARY,
    )


def task(protocol: Protocol, fit: FitOn = FitOn.TRAIN, part: Part = Part.TEST) -> Task:
    titles = VOCABULARY.table.select("domain", "item_id", title=pl.lit(None, pl.String))
    return Task(Setting(protocol, Candidates.FULL, fit), VOCABULARY, titles, split(protocol), part)


def names(events: Events, index: np.ndarray) -> list[str]:
    return VOCABULARY.table["item_id"].gather(events.item[index] - 1).to_list()


def asked(made: Task) -> dict[tuple[str, str], list[str]]:
    """(user, target) -> its history."""
    events, queries = made.events, made.queries
    return {
        (events.user_ids[int(user)], VOCABULARY.table["item_id"][int(item) - 1]): names(
            events, np.arange(events.offsets[user], stop)
        )
        for user, stop, item in zip(queries.user, queries.stop, queries.item, strict=True)
    }


def test_gts_targets_are_the_first_of_each_user_and_domain_and_see_strictly_earlier_events():
    assert asked(task(Protocol.GTS, part=Part.VALIDATION)) == {
        ("u", "a3"): ["a1", "a2", "b1"],
        # Both of v's events of time 8 are in domain a: the first by item is the target, and sees not the other.
        ("v", "a2"): ["b1", "a1"],
    }
    assert asked(task(Protocol.GTS)) == {
        ("u", "b2"): ["a1", "a2", "b1", "a3"],
        ("v", "b3"): ["b1", "a1", "a2", "a4"],
        ("w", "a5"): [],
    }


def test_loo_targets_are_the_last_two_events_and_see_all_before_them():
    assert asked(task(Protocol.LOO, part=Part.VALIDATION)) == {
        ("u", "a3"): ["a1", "a2", "b1"],
        # a2 and a4 share their time; the order by item puts a4 last of them, and it sees a2.
        ("v", "a4"): ["b1", "a1", "a2"],
    }
    assert asked(task(Protocol.LOO)) == {
        ("u", "b2"): ["a1", "a2", "b1", "a3"],
        ("v", "b3"): ["b1", "a1", "a2", "a4"],
        ("w", "a5"): [],
    }


@pytest.mark.parametrize("protocol", list(Protocol))
def test_fit_sees_training_events_and_with_refit_those_of_validation(protocol: Protocol):
    train, refit = task(protocol, FitOn.TRAIN).fit_events, task(protocol, FitOn.REFIT).fit_events
    seen = {Protocol.GTS: (5, 8), Protocol.LOO: (6, 8)}[protocol]
    assert (len(train.item), len(refit.item)) == seen
    assert set(refit.part) == {0, 1}


def test_selection_is_validation_without_any_test_event():
    made = task(Protocol.GTS, FitOn.REFIT).selection()
    assert made.part is Part.VALIDATION
    assert made.setting == Setting(Protocol.GTS, Candidates.FULL, FitOn.TRAIN)
    assert set(made.events.part) == {0, 1}
    assert asked(made) == asked(task(Protocol.GTS, part=Part.VALIDATION))


def test_candidates_drawn_are_all_that_is_left_when_as_many_are_asked_for():
    events = split(Protocol.GTS)
    queries = Queries(*(np.array([value]) for value in (1, 8, 0, 9, 2)))
    # v touches a1, a2 and a4 of a; a3 and a5 stay.
    drawn = draw_candidates(events, queries, VOCABULARY, size=2)
    assert sorted(drawn[0]) == [3, 5]
    with pytest.raises(DataError, match="too few items for 3 candidates"):
        draw_candidates(events, queries, VOCABULARY, size=3)


def test_candidates_are_drawn_uniformly_and_alike_each_time():
    events = split(Protocol.GTS)
    many = Queries(*(np.full(3_000, value) for value in (0, 5, 0, 9, 1)))
    # u touches a1, a2 and a3: a4 and a5 are drawn alike.
    drawn = draw_candidates(events, many, VOCABULARY, size=1)
    assert set(drawn[:, 0]) == {4, 5}
    assert (drawn == 4).mean() == pytest.approx(0.5, abs=0.05)
    assert np.array_equal(drawn, draw_candidates(events, many, VOCABULARY, size=1))
    assert not np.array_equal(drawn, draw_candidates(events, many, VOCABULARY, size=1, seed=1))


def test_a_part_without_targets_is_refused():
    made = task(Protocol.GTS)
    events = made.events.up_to(Part.VALIDATION)
    with pytest.raises(DataError, match="no test targets"):
        _ = Task(made.setting, VOCABULARY, made.titles, events).queries


def test_the_same_target_has_the_same_candidates_for_the_twin_of_one_user_in_each_domain():
    many = pl.DataFrame({"domain": ["a"] * 60 + ["b"] * 60, "item_id": [f"{d}{n}" for d in "ab" for n in range(60)]})
    rng, vocabulary = np.random.default_rng(0), Vocabulary.of_items(many)
    rows = [
        (f"u{user}", domain, f"{domain}{rng.integers(60)}", int(time_s))
        for user in range(9)
        for domain in "ab"
        for time_s in rng.integers(100, size=6)
    ]
    log = pl.DataFrame(rows, schema=INTERACTIONS.schema, orient="row").unique(["user_id", "domain", "item_id"])
    sequences = sequences_of(log, 0.5, 0.8)
    found = []
    for one in (sequences, alone(sequences)):
        events = events_of(one, vocabulary)
        queries = queries_of_targets(events, Part.TEST)
        drawn = draw_candidates(events, queries, vocabulary, size=10)
        user = whose(events.user_ids.gather(queries.user)).to_list()
        found.append(dict(zip(zip(user, queries.item.tolist(), strict=True), drawn.tolist(), strict=True)))
    assert len(found[0]) > 9
    assert found[0] == found[1]
