import math

import numpy as np
import pytest
import torch

from semacdr.model.config import Expert
from semacdr.model.experts import Memory
from semacdr.model.gate import NUM_FACTS, ScoreGate, query_facts, support_bucket
from semacdr.model.histories import queries_at, queries_of_targets
from semacdr.model.popularity import SMALLEST
from semacdr.tables import Part
from tests.model.test_experts import DAY, TITLES, VOCABULARY, events_at, text


def test_fresh_gate_passes_the_trained_score_on():
    scores, facts = torch.randn(4, 3, 7), torch.randn(3, NUM_FACTS + 2)
    facts[:, 0] = 1
    gate = ScoreGate(4, 2)
    gate.standardise(facts)
    assert torch.equal(gate(scores, facts, torch.zeros(7, dtype=torch.int64), torch.tensor(0.0)), scores[0])


def test_gate_weighs_columns_by_the_users_facts_and_the_items_support_and_lifts_cold_items():
    torch.manual_seed(0)
    gate = ScoreGate(4, 2)
    for parameter in gate.parameters():
        torch.nn.init.normal_(parameter)
    scores, facts, bucket = torch.randn(4, 3, 7), torch.randn(3, NUM_FACTS + 2), torch.tensor([0, 1, 2, 3, 0, 1, 2])
    final = gate(scores, facts, bucket, torch.tensor(5.0))
    weights = gate.by_fact @ facts[1] + gate.by_support[:, 3]
    torch.testing.assert_close(final[1, 3], weights @ scores[:, 1, 3] + gate.bias[3])
    weights = gate.by_fact @ facts[2] + gate.by_support[:, 0]
    torch.testing.assert_close(final[2, 4], weights @ scores[:, 2, 4] + gate.bias[0] + gate.cold_by_fact @ facts[2] + 5)
    # An item's support may be another for each query.
    of_each = bucket.repeat(3, 1)
    of_each[1, 3] = 0
    other = gate(scores, facts, of_each, torch.tensor(5.0))
    assert (other != final).nonzero().tolist() == [[1, 3]]


def test_the_trend_is_the_weighed_products_of_what_popularity_lies_above_none():
    gate, scores, facts = ScoreGate(4, 2, num_half_lives=2), torch.randn(4, 3, 7), torch.ones(3, NUM_FACTS + 2)
    gate.by_pair.data = torch.tensor([0.5, 2.0, -1.0])
    first, second = scores[1:3] - math.log(SMALLEST)
    expected = scores[0] + 0.5 * first**2 + 2 * first * second - second**2
    torch.testing.assert_close(gate(scores, facts, torch.zeros(7, dtype=torch.int64), torch.tensor(0.0)), expected)
    none = torch.full((2, 5), math.log(SMALLEST))
    torch.testing.assert_close(gate.trend(none), torch.zeros(5))


def test_a_gate_of_experts_has_a_column_for_each_of_their_scores_and_a_trend_where_there_is_popularity():
    gate = ScoreGate.of([Expert.POPULARITY, Expert.TITLE], 2)
    assert gate.by_fact.shape[0] == 7
    assert gate.popularity == slice(1, 6)
    assert len(gate.by_pair) == 15
    assert len(ScoreGate.of([Expert.TITLE], 2).by_pair) == 0


def test_support_bucket_edges():
    assert support_bucket(np.array([0, 1, 5, 6, 20, 21, 999])).tolist() == [0, 1, 1, 2, 2, 3, 3]


def test_query_facts_by_hand():
    events = events_at([(1, "a", 1), (2, "b", 2), (4, "b", 3), (9, "a", 4)], [(5, "b", 0)])
    past = Memory.of(events.kept(events.time_s <= 5 * DAY), VOCABULARY, TITLES, text()).past
    facts = query_facts(events, queries_of_targets(events, Part.TEST), 5 * DAY, past, num_domains=2)
    assert facts.shape == (5, NUM_FACTS + 2)
    log = math.log1p
    # The last of the first user: one event of a 8 days ago, two of b 5 days ago, 4 days after the fit's end.
    # Nobody had taken these items before.
    assert facts[3].tolist() == pytest.approx([1, log(1), log(2), log(8), log(5), log(4), 0, 0, 1, 0])
    # The third: one event of each before it.
    assert facts[2].tolist() == pytest.approx([1, log(1), log(1), log(2), log(3), 0, 0, 0, 0, 1])
    # The second user has nothing before the query.
    assert facts[4].tolist() == pytest.approx([1, 0, 0, 0, 0, 0, 0, 0, 0, 1])


def test_query_facts_say_how_popular_what_a_user_took_was_then():
    # The first three users make items popular, the fourth takes some of them later, and one after the last known event.
    crowd = [[(1, "a", 0), (1, "b", 2)], [(2, "a", 0), (2, "a", 1)], [(2, "b", 2)]]
    events = events_at(*crowd, [(3, "a", 0), (3, "b", 3), (4, "a", 1), (7, "a", 0), (9, "a", 1), (9, "b", 3)])
    past = Memory.of(events.kept(events.time_s <= 5 * DAY), VOCABULARY, TITLES, text()).past
    queries = queries_at(events, np.array([3, 3]), np.array([0, 1]), np.array([9, 9]) * DAY)
    facts = query_facts(events, queries, 5 * DAY, past, num_domains=2)
    # Of a: two of three events when it was taken, and one of four; of b: none of two. One more event counts as none.
    own, other = (math.log(1 + 2 / 3 * 1e4) + math.log(1 + 1 / 4 * 1e4)) / 3, 0.0
    assert facts[:, 6:8].tolist() == [pytest.approx([own, other], rel=1e-5), pytest.approx([other, own], rel=1e-5)]


def test_the_boost_raises_cold_items_alone():
    gate, facts = ScoreGate(2, 2), torch.ones(3, NUM_FACTS + 2)
    scores, bucket = torch.randn(2, 3, 7), torch.tensor([0, 1, 2, 3, 0, 1, 2])
    raised = gate(scores, facts, bucket, torch.tensor(0.5)) - gate(scores, facts, bucket, torch.tensor(0.0))
    torch.testing.assert_close(raised, 0.5 * (bucket == 0).float().expand(3, -1))


def test_facts_beyond_those_of_the_fit_count_as_the_farthest_of_them():
    torch.manual_seed(0)
    facts = torch.rand(20, NUM_FACTS + 2)
    facts[:, 0] = 1
    gate = ScoreGate(3, 2)
    torch.nn.init.normal_(gate.by_fact)
    gate.standardise(facts)
    far = facts.amax(dim=0, keepdim=True)
    torch.testing.assert_close(gate.weights(far + 50 * (torch.arange(NUM_FACTS + 2) > 0)), gate.weights(far))
    low = facts.amin(dim=0, keepdim=True)
    torch.testing.assert_close(gate.weights(low - 50 * (torch.arange(NUM_FACTS + 2) > 0)), gate.weights(low))
    assert not torch.allclose(gate.weights(far), gate.weights(low))
