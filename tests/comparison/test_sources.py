import numpy as np
import pytest

from semacdr.comparison.rows import Source
from semacdr.comparison.sources import alone, whose, with_source
from semacdr.dataset import Protocol
from semacdr.model.histories import Events, Queries, events_of, queries_of_targets
from semacdr.tables import Part
from semacdr.testing.toy import sequences_of
from tests.evaluation.test_task import INTERACTIONS, VOCABULARY, split

EVENTS = split(Protocol.GTS)
QUERIES = queries_of_targets(EVENTS, Part.TEST)


def items(events: Events, query: int, queries: Queries) -> list[str]:
    index = np.arange(events.offsets[queries.user[query]], queries.stop[query])
    return VOCABULARY.table["item_id"].gather(events.item[index] - 1).to_list()


def test_alone_makes_one_user_of_each_domain_and_keeps_targets():
    rows = alone(sequences_of(INTERACTIONS, 0.5, 0.8))
    events = events_of(rows, VOCABULARY)
    assert events.num_users == 5
    assert whose(rows["user_id"]).to_list() == ["u", "u", "v", "v", "w"]
    for user in range(5):
        assert len(set(events.domain[events.offsets[user] : events.offsets[user + 1]])) == 1
    for part in (Part.VALIDATION, Part.TEST):
        targets = queries_of_targets(events, part)
        assert sorted(targets.item) == sorted(queries_of_targets(EVENTS, part).item)
    histories = [items(events, at, queries_of_targets(events, Part.TEST)) for at in range(3)]
    assert sorted(histories) == [[], ["b1"], ["b1"]]


def test_with_source_off_leaves_the_own_domain_alone():
    events, queries = with_source(EVENTS, QUERIES, Source.OFF, seed=0)
    assert [items(events, at, queries) for at in range(3)] == [["b1"], ["b1"], []]
    assert queries.item.tolist() == QUERIES.item.tolist()


def test_with_source_shuffled_gives_another_users_earlier_events_of_other_domains():
    for seed in range(5):
        events, queries = with_source(EVENTS, QUERIES, Source.SHUFFLED, seed)
        of_u = items(events, 0, queries)
        # u asks for b at 9: v has a1 at 4, a2 and a4 at 8; w's a5 is of 9 itself.
        assert of_u in (["b1", "a1", "a2", "a4"], ["b1"])
        assert items(events, 2, queries) in (["b1"], [], ["b1"])
        assert (np.diff(events.time_s[: queries.stop[0]]) >= 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_with_source_unrelated_is_of_a_user_who_shares_no_item(seed: int):
    # u and v share a1, a2 and b1; only w shares nothing with either, and has no earlier events.
    events, queries = with_source(EVENTS, QUERIES, Source.UNRELATED, seed)
    assert items(events, 0, queries) == ["b1"]
    assert items(events, 1, queries) == ["b1"]


def test_the_only_user_is_their_own_stranger():
    of_one = events_of(sequences_of(INTERACTIONS.filter(user_id="u"), 0.5, 0.8), VOCABULARY)
    queries = queries_of_targets(of_one, Part.TEST)
    made, asked = with_source(of_one, queries, Source.UNRELATED, seed=0)
    for at in range(len(queries)):
        assert sorted(items(made, at, asked)) == sorted(items(of_one, at, queries))
