from pathlib import Path

import numpy as np
import torch

from semacdr.model.experts import Memory
from semacdr.model.gate import ScoreGate
from semacdr.model.histories import Events, read_events
from semacdr.model.scorer import Scoring
from semacdr.training.fit import Fit
from semacdr.training.sight import rolling
from semacdr.training.validation import Validation
from tests.training.test_fit import inputs_of


def test_rolling_scores_know_all_before_a_target_and_nothing_from_it_on(toy_artifacts: dict[str, Path]):
    inputs = inputs_of(toy_artifacts)
    validation = Validation(inputs, read_events(toy_artifacts["sequences"], inputs.vocabulary), seed=0)
    memory = Memory.of(inputs.events, inputs.vocabulary, inputs.titles, inputs.text)
    experts, events, queries = inputs.config.experts, validation.events, validation.queries
    gate = ScoreGate.of(experts, 2)
    torch.nn.init.normal_(gate.by_fact, std=0.3, generator=torch.Generator().manual_seed(0))
    torch.nn.init.normal_(gate.bias, generator=torch.Generator().manual_seed(1))
    scorer = validation.scorer(Fit(inputs, seed=0).model.eval(), Scoring.of(experts, memory, gate))
    at = int(np.argsort(queries.time_s)[len(queries) // 2])
    domain, now_s = int(queries.domain[at]), int(queries.time_s[at])

    def scored(changed: np.ndarray) -> torch.Tensor:
        """The same target, where others took other items of its domain in some events."""
        start, stop = inputs.vocabulary.bounds[domain]
        changed = changed & (events.domain == domain) & (events.user != queries.user[at])
        assert changed.any()
        item = np.where(changed, start + (events.item - start + 1) % (stop - start), events.item)
        other = Events(**{**vars(events), "item": item})
        return rolling(scorer, other)(np.array([at]), domain)

    same = rolling(scorer, events)(np.array([at]), domain)
    torch.testing.assert_close(scored(events.time_s >= now_s), same, rtol=0, atol=0)
    assert not torch.equal(scored((events.time_s < now_s) & (events.time_s > memory.last_s)), same)


def test_rolling_a_scorer_without_experts_is_that_scorer(toy_artifacts: dict[str, Path]):
    inputs = inputs_of(toy_artifacts)
    validation = Validation(inputs, read_events(toy_artifacts["sequences"], inputs.vocabulary), seed=0)
    scorer = validation.scorer(Fit(inputs, seed=0).model.eval())
    assert rolling(scorer, validation.events) is scorer
