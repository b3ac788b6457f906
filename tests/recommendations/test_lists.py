from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from semacdr.dataset import Recommendations
from semacdr.model import present_scorer
from semacdr.model.config import Expert
from semacdr.model.gate import AT_FIT, UP_TO_DATE, ScoreGate
from semacdr.model.histories import Events, Queries, queries_at, read_events
from semacdr.model.present import read_present
from semacdr.model.present_scorer import PresentScorer
from semacdr.model.scorer import Scoring
from semacdr.recommendations import lists
from semacdr.recommendations.lists import Lister, Ranked, best
from semacdr.recommendations.serving import open_serving


@pytest.mark.parametrize("num_items", [5, 40, 600, 1_003])
@pytest.mark.parametrize("spread", [0.0, 1e-3, 1.0])
def test_best_are_those_of_a_whole_sort(num_items: int, spread: float):
    """By Python's sort; of a spread of 0.001 many scores are alike in four decimals, of 0 all are."""
    rng = np.random.default_rng([num_items, int(1e3 * spread)])
    score_QI = spread * rng.normal(size=(9, num_items)).astype(np.float32)
    score_QI[rng.random(score_QI.shape) < 0.3] = -np.inf
    score_QI[0, 3:] = -np.inf
    tie_I = rng.permutation(num_items)
    top_k = min(10, num_items)
    value_QK, row_QK = best(torch.from_numpy(score_QI), top_k, torch.from_numpy(tie_I))
    rounded_QI = torch.from_numpy(score_QI).round(decimals=4).numpy()
    for value_K, row_K, score_I in zip(value_QK.numpy(), row_QK.tolist(), rounded_QI, strict=True):
        expected = sorted(range(num_items), key=lambda row: (-score_I[row], tie_I[row]))[:top_k]
        np.testing.assert_array_equal(value_K, score_I[expected])
        # In what order those stand that nobody may get does not matter: they are left out.
        num_ranks = np.isfinite(value_K).sum()
        assert row_K[:num_ranks] == expected[:num_ranks]


def asked(artifacts: dict[str, Path], lister: Lister) -> tuple[Events, Queries]:
    """Twelve users, in both domains, after the last event."""
    events = read_events(artifacts["sequences"], lister.model.vocabulary)
    user, domain = np.divmod(np.arange(2 * 12), 2)
    return events, queries_at(events, user, domain, np.full_like(user, events.time_s.max() + 1))


@pytest.mark.parametrize("among", [None, 12])
def test_lists_do_not_depend_on_how_tight_the_bounds_are(
    artifacts: dict[str, Path], monkeypatch: pytest.MonkeyPatch, among: int | None
):
    """With every direction of a text in the bound, and with two; also where there are few items to choose from."""
    # One user a block, whose first items by bound are no more than the list: the others have to be found.
    monkeypatch.setattr(lists, "_BLOCK_SCORES", 1)
    monkeypatch.setattr(lists, "_SPARE", 1)
    ranked, candidates = [], []
    for leading in (10_000, 2):
        monkeypatch.setattr(present_scorer, "_LEADING", leading)
        lister = open_serving(Recommendations(), artifacts).lister
        if among is not None:
            some = np.zeros_like(lister.available)
            some[1 :: len(some) // among] = True
            lister = replace(lister, available=some)
        events, queries = asked(artifacts, lister)
        with torch.inference_mode():
            vector_QD = lister.model.user_states(events, queries).vector_QD
            facts, chosen = lister.scorer.facts(events, queries), np.flatnonzero(queries.domain == 1)
            block = lister.scorer.block(vector_QD, facts, events, queries, chosen, 1)
            row_U = torch.arange(block.bound_QI.shape[1])
            assert (block.bound_QI >= lister.scorer.exact(block, row_U) - 1e-4).all()
            ranked.append(Ranked.joined(lister.rank(events, queries, vector_QD, 3)))
            alone = lister.scorer.block(vector_QD, facts, events, queries, chosen[:1], 1)
            candidates.append(len(lister._candidates(alone, 1)[0]))
    assert torch.equal(ranked[0].item_QK, ranked[1].item_QK)
    torch.testing.assert_close(ranked[0].score_QK, ranked[1].score_QK, atol=2e-4, rtol=0)
    assert candidates[0] <= candidates[1] < len(row_U)


@pytest.mark.parametrize(
    ("mixed", "experts"), [(False, tuple(Expert)), (True, tuple(Expert)), (True, (Expert.TRANSITIONS, Expert.TITLE))]
)
def test_served_scores_are_those_of_kept_events_whichever_histories_are_looked_at(
    artifacts: dict[str, Path], mixed: bool, experts: tuple[Expert, ...]
):
    lister = open_serving(Recommendations(), artifacts).lister
    events, queries = asked(artifacts, lister)
    scoring = lister.model.scoring
    assert scoring is not None
    memory = replace(scoring.memory.with_events(events), mixed=mixed)
    gate = ScoreGate.of(experts, 2) if experts != scoring.experts else deepcopy(scoring.gate)
    # Items that nobody has taken have the boost of an old memory in the one, of a new one in the other.
    gate.cold_boost_SN[AT_FIT] = gate.cold_boost_SN[UP_TO_DATE]
    torch.nn.init.normal_(gate.cold_by_fact, generator=torch.Generator().manual_seed(0))
    torch.nn.init.normal_(gate.by_pair, std=0.1, generator=torch.Generator().manual_seed(1))
    torch.nn.init.normal_(gate.by_support, generator=torch.Generator().manual_seed(2))
    model = replace(lister.model, scoring=Scoring.of(experts, memory, gate))
    scorer = PresentScorer(model, read_present(artifacts["sequences"], model.vocabulary, mixed=mixed))
    chosen = np.flatnonzero(queries.domain == 1)
    with torch.inference_mode():
        facts, vector_QD = scorer.facts(events, queries), model.user_states(events, queries).vector_QD
        block = scorer.block(vector_QD, facts, events, queries, chosen, 1)
        served_QI = scorer.exact(block, torch.arange(block.bound_QI.shape[1]))
        kept_QI = model.scorer(events, queries)(chosen, 1)
        ranked = Ranked.joined(
            Lister(scorer, np.ones(model.vocabulary.num_items + 1, bool)).rank(events, queries, vector_QD, 3)
        )
    assert ranked.column_QK.max() < len(scorer.columns)
    assert (block.catalogue.bucket_I == 0).any()
    place_I = torch.from_numpy(block.catalogue.item_I - model.vocabulary.bounds[1][0])
    torch.testing.assert_close(served_QI, kept_QI[:, place_I], atol=1e-3, rtol=0)
