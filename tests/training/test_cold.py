from pathlib import Path

import numpy as np
import pytest
import torch

from semacdr.model.gate import NUM_FACTS, ScoreGate
from semacdr.model.histories import read_events
from semacdr.model.ranking import left_out
from semacdr.training.cold import cold_boosts
from semacdr.training.sight import Sight
from semacdr.training.validation import Validation
from tests.training.test_fit import inputs_of


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_boosts_show_as_many_cold_items_as_are_asked_for(toy_artifacts: dict[str, Path], share: float):
    inputs = inputs_of(toy_artifacts)
    validation = Validation(inputs, read_events(toy_artifacts["sequences"], inputs.vocabulary), seed=0)
    events, queries, bounds = validation.events, validation.queries, inputs.vocabulary.bounds
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(1, len(queries), max(stop - start for start, stop in bounds), generator=generator)
    # A third of the items is cold and scores much less than the others; no target of the second domain is cold.
    support_R = np.where(np.arange(inputs.vocabulary.num_items + 1) % 3 == 0, 0, 9)
    support_R[queries.item[queries.domain == 1]] = 9

    def scores(chosen: np.ndarray, domain: int) -> torch.Tensor:
        start, stop = bounds[domain]
        is_cold = torch.from_numpy(support_R[start:stop] == 0)
        return table[:, torch.from_numpy(chosen), : stop - start] - 3 * is_cold

    facts = np.ones((len(queries), NUM_FACTS + 2), np.float32)
    sight = Sight(scores, facts, lambda item, _: support_R[item])
    boost_N = cold_boosts(ScoreGate(1, 2), validation, sight, np.arange(len(queries)), share)
    assert boost_N[1] == 0
    chosen = np.flatnonzero(queries.domain == 0)
    (start, stop), is_cold = bounds[0], support_R == 0
    final_QI = scores(chosen, 0)[0] + boost_N[0] * torch.from_numpy(is_cold[start:stop])
    row, item = left_out(events, queries, chosen, 0)
    final_QI[torch.from_numpy(row), torch.from_numpy(item - start)] = -torch.inf
    shown = is_cold[final_QI.topk(10).indices.numpy() + start].mean()
    wanted = is_cold[queries.item[chosen]].mean()
    assert 0.2 < wanted < 0.5
    assert shown == pytest.approx(share * wanted, abs=0.02)
    assert (boost_N[0] > 1) == (share > 0)


@pytest.mark.parametrize("num_cold", [1, 2])
def test_too_few_cold_items_are_all_shown_and_no_score_is_beyond_numbers(toy_artifacts: dict[str, Path], num_cold: int):
    inputs = inputs_of(toy_artifacts)
    validation = Validation(inputs, read_events(toy_artifacts["sequences"], inputs.vocabulary), seed=0)
    queries, bounds = validation.queries, inputs.vocabulary.bounds
    target, count = np.unique(queries.item[queries.domain == 0], return_counts=True)
    support_R = np.full(inputs.vocabulary.num_items + 1, 9)
    support_R[target[np.argsort(-count)[:num_cold]]] = 0
    facts = np.ones((len(queries), NUM_FACTS + 2), np.float32)
    scores = torch.randn(1, len(queries), bounds[-1][1], generator=torch.Generator().manual_seed(0))
    sight = Sight(
        lambda chosen, domain: scores[:, torch.from_numpy(chosen), slice(*bounds[domain])],
        facts,
        lambda item, _: support_R[item],
    )
    boost_N = cold_boosts(ScoreGate(1, 2), validation, sight, np.arange(len(queries)), share=50.0)
    assert 0 < boost_N[0] < 20
