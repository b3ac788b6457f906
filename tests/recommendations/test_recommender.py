from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
import structlog

from semacdr.dataset import Recommendations
from semacdr.errors import ConfigError, DataError
from semacdr.recommendations import Recommender
from semacdr.recommendations.serving import open_serving
from tests.recommendations.conftest import NEW, rows


@pytest.fixture(scope="module")
def recommender(artifacts: dict[str, Path], batch: dict[str, Path]) -> Recommender:
    config = Recommendations(top_k=10)
    return Recommender(open_serving(config, artifacts), config, rows(batch)["as_of_s"][0])


def histories_of(artifacts: dict[str, Path]) -> dict[str, list[tuple[str, str, int]]]:
    table = pl.read_parquet(artifacts["sequences"] / "sequences.parquet")
    columns = ("domains", "item_ids", "timestamps_s")
    return {row["user_id"]: list(zip(*(row[name] for name in columns), strict=True)) for row in table.to_dicts()}


@pytest.mark.parametrize("domain", ["books", "films"])
@pytest.mark.parametrize("size", [1, 48])
def test_answer_is_the_batchs_for_the_same_history(
    recommender: Recommender, artifacts: dict[str, Path], batch: dict[str, Path], domain: str, size: int
):
    known = histories_of(artifacts)
    users = list(known)[:size]
    published = rows(batch).filter(domain=domain)
    for user, found in zip(users, recommender.recommend([known[user] for user in users], domain), strict=True):
        expected = published.filter(user_id=user)
        assert [line.item_id for line in found] == expected["item_id"].to_list()
        assert [line.score for line in found] == pytest.approx(expected["score"].to_list(), abs=2e-4)
        for name in ("rank", "reason", "decided_by", "history", "view"):
            assert [getattr(line, name) for line in found] == expected[name].to_list()
        assert [[near["item_id"] for near in line.nearest] for line in found] == [
            [near["item_id"] for near in nearest] for nearest in expected["nearest"].to_list()
        ]


def test_history_of_a_user_is_what_the_batch_knows(
    recommender: Recommender, artifacts: dict[str, Path], batch: dict[str, Path]
):
    known = histories_of(artifacts)
    user = list(known)[7]
    assert recommender.history(user) == known[user]
    (found,) = recommender.recommend([recommender.history(user)], "books")
    assert [line.item_id for line in found] == rows(batch).filter(domain="books", user_id=user)["item_id"].to_list()
    with pytest.raises(DataError, match="no user 'nobody'"):
        recommender.history("nobody")


def test_new_events_without_times_come_after_known_ones(recommender: Recommender, artifacts: dict[str, Path]):
    known = next(iter(histories_of(artifacts).values()))
    # Active until a month after the batch; events of one time are taken in the order of domain and item.
    latest_s = recommender.as_of_s + 30 * 86_400
    known.append(("books", "b000", latest_s))
    new = [("films", "f001"), ("films", "f002")]
    last, first = ([(*event, time_s) for event in new] for time_s in (latest_s, 1_000_000_000))
    untimed, last, first = recommender.recommend([[*known, *one] for one in (new, last, first)], "films", 5)
    assert untimed == last
    assert untimed != first


def test_threads_share_it(recommender: Recommender, artifacts: dict[str, Path]):
    histories = list(histories_of(artifacts).values())[:16]
    one_by_one = [recommender.recommend([history], "films", 5)[0] for history in histories]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda history: recommender.recommend([history], "films", 5)[0], histories))
    assert together == one_by_one


def test_events_without_times_count_in_the_order_given(recommender: Recommender, artifacts: dict[str, Path]):
    history = next(iter(histories_of(artifacts).values()))
    untimed = [event[:2] for event in history]
    count = len(history)
    timed = [(*event, recommender.as_of_s - count + place) for place, event in enumerate(untimed)]
    assert recommender.recommend([untimed], "films") == recommender.recommend([timed], "films")
    assert recommender.recommend([timed[::-1]], "films") == recommender.recommend([timed], "films")


def test_histories_of_a_call_do_not_move_each_others_time(recommender: Recommender, artifacts: dict[str, Path]):
    history = next(iter(histories_of(artifacts).values()))
    later = [(*event[:2], recommender.as_of_s + 3_000 * 86_400) for event in history]
    together = recommender.recommend([history, later, []], "films")
    assert together == [recommender.recommend([one], "films")[0] for one in (history, later, [])]
    assert together[0] != together[1]


def test_time_in_milliseconds_is_refused(recommender: Recommender, artifacts: dict[str, Path]):
    domain, item, time_s = next(iter(histories_of(artifacts).values()))[0]
    with pytest.raises(DataError, match="beyond 2100"):
        recommender.recommend([[(domain, item, time_s * 1000)]], "films")


def test_new_event_changes_the_list_and_a_new_item_can_be_in_a_history(recommender: Recommender):
    for item in NEW.values():
        domain = "books" if item == NEW["books"] else "films"
        (found,) = recommender.recommend([[(domain, item)]], domain)
        assert item not in [line.item_id for line in found]
        assert found[0].nearest[0]["item_id"] == item


def test_empty_history_gets_what_a_new_user_gets(recommender: Recommender):
    (found,) = recommender.recommend([[]], "books", 5)
    assert [line.rank for line in found] == [1, 2, 3, 4, 5]
    assert all(line.history is None and line.nearest == [] for line in found)
    assert recommender.recommend([], "books") == []


def test_unknown_items_are_counted_or_refused(recommender: Recommender):
    history = [("books", "b001"), ("books", "nothing"), ("cars", "b001")]
    with structlog.testing.capture_logs() as logs:
        (found,) = recommender.recommend([history], "books", 5)
    assert [(log["events"], log["items"]) for log in logs] == [(2, "books:nothing, cars:b001")]
    assert found == recommender.recommend([[(*history[0], recommender.as_of_s - 3)]], "books", 5)[0]
    assert recommender.unknown(history) == history[1:]
    with pytest.raises(DataError, match=r"2 events with items that are not known\n.*books:nothing"):
        recommender.recommend([history], "books", 5, strict=True)


def test_more_ranks_than_items_give_as_many_as_there_are(recommender: Recommender):
    (found,) = recommender.recommend([[("books", "b001")]], "books", 10_000)
    assert len(found) == 40
    with pytest.raises(ConfigError, match="at least 1"):
        recommender.recommend([[]], "books", 0)


def test_among_is_the_availability_of_the_day(recommender: Recommender):
    listed = [("books", "b002"), ("books", "b003"), ("films", "f001"), ("books", "unheard-of")]
    (found,) = recommender.recommend([[("books", "b002")]], "books", among=listed)
    assert [line.item_id for line in found] == ["b003"]
    for nothing in ([], [("films", "f001")]):
        with pytest.raises(DataError, match="the availability list leaves nothing to recommend"):
            recommender.recommend([[]], "books", among=nothing)


def test_unknown_domain_names_the_near_one(recommender: Recommender):
    with pytest.raises(DataError, match="did you mean 'films'"):
        recommender.recommend([[]], "film")
