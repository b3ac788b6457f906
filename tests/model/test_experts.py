import numpy as np
import polars as pl
import pytest
import torch

from semacdr.model import asked, experts
from semacdr.model.asked import Asked
from semacdr.model.config import Expert
from semacdr.model.experts import Memory, column_names, expert_scores, memory_of, memory_tensors
from semacdr.model.histories import Events, Queries, events_of, queries_at, queries_of_targets
from semacdr.model.popularity import SMALLEST
from semacdr.model.text_vectors import TextVectors
from semacdr.model.titles import LEAST_SIMILAR
from semacdr.model.vocabulary import Vocabulary
from semacdr.tables import Part, View

DAY = 86_400
ALL = tuple(Expert)
NAMES = [(domain, f"i{number}") for domain in "ab" for number in range(5)]
VOCABULARY = Vocabulary.of_items(pl.DataFrame(NAMES, schema=["domain", "item_id"], orient="row"))
TITLES = pl.DataFrame(
    [(domain, item, f"{'green' if int(item[1]) % 2 else 'black'} tea {item}") for domain, item in NAMES],
    schema=["domain", "item_id", "title"],
    orient="row",
)


def text() -> dict[View, TextVectors]:
    generator = torch.Generator().manual_seed(0)
    present = torch.arange(11) > 0
    present[3] = False
    vectors = torch.randn(11, 6, generator=generator) * present[:, None]
    return {view: TextVectors(vectors, present, vectors) for view in View}


def events_at(*histories: list[tuple[int, str, int]]) -> Events:
    """Each history is a list of (day, domain, item)."""
    return events_of(
        pl.DataFrame(
            {
                "user_id": [f"u{number}" for number in range(len(histories))],
                "domains": [[domain for _, domain, _ in history] for history in histories],
                "item_ids": [[f"i{item}" for *_, item in history] for history in histories],
                "timestamps_s": [[day * DAY for day, *_ in history] for history in histories],
                "parts": [["test"] * len(history) for history in histories],
                "is_target": [[True] * len(history) for history in histories],
            }
        ),
        VOCABULARY,
    )


def random_events(seed: int = 0, num_users: int = 12) -> Events:
    rng = np.random.default_rng(seed)
    histories = [
        [(int(day), "ab"[rng.integers(2)], int(rng.integers(5))) for day in np.sort(rng.integers(0, 30, 8))]
        for _ in range(num_users)
    ]
    return events_at(*histories)


def all_scores(memory: Memory, events: Events, queries: Queries, domain: int) -> torch.Tensor:
    return expert_scores(memory, ALL, events, queries, np.flatnonzero(queries.domain == domain), domain)


def test_column_names_follow_the_switches():
    assert column_names([Expert.SEMANTICS, Expert.TITLE, Expert.TRANSITIONS]) == (
        "transitions",
        "title",
        *(str(view) for view in View),
    )
    assert column_names([]) == ()


def test_scores_at_a_training_position_do_not_know_their_own_event_nor_any_later_or_equal_one():
    """Whatever else the events at or after a query's time were, of whomever, its scores are the same to the bit."""
    events = random_events()
    queries = queries_of_targets(events, Part.TEST)
    memory = Memory.of(events, VOCABULARY, TITLES, text())
    for query in range(0, len(queries), 7):
        domain, time = int(queries.domain[query]), queries.time_s[query]
        hidden = events.time_s >= time
        other = np.where(hidden, 1 + (events.item + 3) % 10, events.item)
        changed = Memory.of(
            Events(
                events.user_ids, events.offsets, other, VOCABULARY.domain_of_item[other], events.time_s, events.part,
                events.is_target,
            ),
            VOCABULARY, TITLES, text(),
        )  # fmt: skip
        chosen = np.array([query])
        before = expert_scores(memory, ALL, events, queries, chosen, domain)
        after = expert_scores(changed, ALL, events, queries, chosen, domain)
        assert torch.equal(before, after)


def test_popularity_equals_a_naive_loop():
    events = random_events()
    queries = queries_of_targets(events, Part.TEST)
    memory = Memory.of(events, VOCABULARY, TITLES, text())
    chosen = np.flatnonzero(queries.domain == 1)
    found = expert_scores(memory, [Expert.POPULARITY], events, queries, chosen, 1)
    for column, half_life in enumerate(experts.HALF_LIVES_DAYS):
        for row, query in enumerate(chosen):
            count = np.zeros(5)
            for item, time in zip(events.item, events.time_s, strict=True):
                if item > 5 and time < queries.time_s[query]:
                    count[item - 6] += 0.5 ** ((queries.time_s[query] - time) / DAY / half_life)
            expected = np.log(count / max(count.sum(), 1e-300) + SMALLEST)
            assert found[column, row].numpy() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def naive_pairs(events: Events, *, mixed: bool) -> list[tuple[int, int, int, int]]:
    """The item, the one taken after it, when, and the how manieth it was; unless mixed, within a domain past others."""
    pairs = []
    for start, stop in zip(events.offsets, events.offsets[1:], strict=False):
        for one in range(start, stop):
            for other in range(start, stop):
                first, last = sorted((one, other))
                if one == other or (one > other and events.time_s[one] != events.time_s[other]):
                    continue
                between = events.domain[first + 1 : last + 1]
                same = not mixed and events.domain[one] == events.domain[other]
                distance = int((between == events.domain[one]).sum()) if same else len(between)
                if distance <= experts.WINDOW:
                    pairs.append((events.item[one], events.item[other], events.time_s[last], distance))
    return pairs


@pytest.mark.parametrize("mixed", [False, True])
def test_transitions_equal_a_naive_loop(mixed: bool):
    events = random_events()
    queries = queries_of_targets(events, Part.TEST)
    memory = Memory.of(events, VOCABULARY, TITLES, text(), mixed=mixed)
    chosen = np.flatnonzero(queries.domain == 0)
    found = expert_scores(memory, [Expert.TRANSITIONS], events, queries, chosen, 0)[0]
    pairs = naive_pairs(events, mixed=mixed)
    for row, query in enumerate(chosen[:20]):
        now, score = queries.time_s[query], np.zeros(5)
        for position, decay in recent(events, queries, query, mixed=mixed):
            known = [
                (taken, 0.5 ** ((now - time) / DAY / experts.TRANSITION_HALF_LIFE_DAYS) / distance)
                for item, taken, time, distance in pairs
                if item == events.item[position] and time < now and taken <= 5
            ]
            for taken, weight in known:
                score[taken - 1] += decay * weight / (1 + sum(weight for _, weight in known))
        assert found[row].numpy() == pytest.approx(np.log(score + SMALLEST), rel=1e-4)


@pytest.mark.parametrize("mixed", [False, True])
def test_similar_are_the_like_of_what_followed(mixed: bool):
    events = random_events()
    queries = queries_of_targets(events, Part.TEST)
    memory = Memory.of(events, VOCABULARY, TITLES, text(), mixed=mixed)
    chosen = np.flatnonzero(queries.domain == 0)
    followed, similar = expert_scores(memory, [Expert.TRANSITIONS, Expert.SIMILAR], events, queries, chosen, 0)
    (alone,) = expert_scores(memory, [Expert.SIMILAR], events, queries, chosen, 0)
    assert torch.equal(alone, similar)
    cosine = (memory.titles.tfidf_RV[1:6] @ memory.titles.tfidf_RV[1:6].T).toarray()
    np.fill_diagonal(cosine, 0)
    cosine[cosine < LEAST_SIMILAR] = 0
    assert 5 < (cosine > 0).sum() < 20
    rate = np.exp(followed.numpy().astype(np.float64)) - SMALLEST
    assert similar.numpy() == pytest.approx(np.log(rate @ cosine + SMALLEST), rel=1e-4)


def test_without_titles_nothing_is_similar():
    events = random_events()
    queries = queries_of_targets(events, Part.TEST)
    memory = Memory.of(events, VOCABULARY, TITLES.with_columns(title=pl.lit(None, pl.String)), text())
    chosen = np.flatnonzero(queries.domain == 0)
    found = expert_scores(memory, [Expert.SIMILAR], events, queries, chosen, 0)
    assert found.numpy() == pytest.approx(np.log(SMALLEST))


def recent(events: Events, queries: Queries, query: int, *, mixed: bool) -> list[tuple[int, float]]:
    """The events that are looked at, and what each counts."""
    history = range(events.offsets[queries.user[query]], queries.stop[query])
    own = [position for position in history if events.domain[position] == queries.domain[query]]
    newest = list(history if mixed else own or history)[::-1][: asked.RECENT]
    return [(position, asked.RECENT_DECAY**after) for after, position in enumerate(newest)]


def test_a_history_is_looked_at_where_it_is_of_the_domain_and_else_where_it_is():
    events = events_at([(0, "b", 1), *[(day, "a", day % 5) for day in range(1, 13)]], [(0, "b", 1)])
    times = np.array([20, 20, 20, 0]) * DAY
    queries = queries_at(events, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 0]), times)
    found = Asked.of(events, queries, np.array([3, 2, 0, 1]), mixed=False)
    assert found.row.tolist() == [1, *[2] * 10, 3]
    assert found.item.tolist() == [7, *[1 + day % 5 for day in range(3, 13)], 7]
    assert found.weight.tolist() == pytest.approx([1, *[0.8**after for after in range(9, -1, -1)], 1])


def test_a_mixed_history_is_looked_at_whatever_the_domains():
    events = events_at([(1, "a", 1), (2, "b", 1), (3, "b", 2)])
    queries = queries_at(events, np.array([0]), np.array([0]), np.array([4 * DAY]))
    found = Asked.of(events, queries, np.array([0]), mixed=True)
    assert found.item.tolist() == [2, 7, 8]


def test_text_ranks_the_like_of_the_last_item_first_and_a_cold_item_like_any_other():
    events = events_at([(1, "a", 1), (2, "a", 3)])
    memory = Memory.of(events, VOCABULARY, TITLES, text())
    queries = queries_at(events, np.array([0]), np.array([1]), np.array([3 * DAY]))
    title = expert_scores(memory, [Expert.TITLE], events, queries, np.array([0]), 1)[0, 0]
    assert title.argsort(descending=True)[:2].sort().values.tolist() == [1, 3]


def test_query_without_history_gets_popularity_and_no_opinion_of_the_others():
    events = events_at([(1, "a", 1), (2, "a", 1)], [(1, "a", 2)])
    memory = Memory.of(events, VOCABULARY, TITLES, text())
    queries = queries_at(events, np.array([0]), np.array([0]), np.array([3 * DAY]))
    queries.stop[:] = events.offsets[0]
    found = all_scores(memory, events, queries, 0)[:, 0]
    assert found[0].argmax() == 1
    assert (found[len(experts.HALF_LIVES_DAYS) :].std(dim=1) == 0).all()


def test_repeats_equal_a_naive_loop():
    events = random_events()
    queries = queries_of_targets(events, Part.TEST)
    memory = Memory.of(events, VOCABULARY, TITLES, text())
    for domain in range(2):
        chosen = np.flatnonzero(queries.domain == domain)
        found = expert_scores(memory, [Expert.REPEATS], events, queries, chosen, domain)[0]
        expected = torch.zeros(len(chosen), 5)
        for row, query in enumerate(chosen):
            history = range(events.offsets[queries.user[query]], queries.stop[query])
            own = [events.item[position] for position in history if events.domain[position] == domain]
            for from_last, item in enumerate(reversed(own), 1):
                expected[row, item - 1 - 5 * domain] += 1 / from_last
        assert (expected > 1).any()
        assert torch.allclose(found, expected)


def test_titles_without_a_word_give_zeros():
    events = random_events()
    memory = Memory.of(events, VOCABULARY, TITLES.with_columns(title=pl.lit(None, pl.String)), text())
    queries = queries_of_targets(events, Part.TEST)
    assert (expert_scores(memory, [Expert.TITLE], events, queries, np.arange(3), 0)[0] == 0).all()


def test_memory_round_trip_scores_alike():
    events = random_events()
    memory = Memory.of(events, VOCABULARY, TITLES, text(), mixed=True)
    again = memory_of(memory_tensors(memory), VOCABULARY)
    assert again.mixed
    assert (
        again.titles.words == memory.titles.words == ("black", "green", *(f"i{number}" for number in range(5)), "tea")
    )
    assert all((again.text_mean[view] == memory.text_mean[view]).all() for view in View)
    queries = queries_of_targets(events, Part.TEST)
    assert torch.equal(all_scores(memory, events, queries, 0), all_scores(again, events, queries, 0))
