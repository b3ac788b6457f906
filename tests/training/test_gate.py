import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from semacdr.model.experts import Memory
from semacdr.model.gate import NUM_FACTS, ScoreGate, query_facts
from semacdr.model.histories import PART_CODE, Queries, read_events
from semacdr.model.popularity import SMALLEST
from semacdr.model.ranking import rank_targets
from semacdr.model.scorer import Scoring
from semacdr.tables import Part
from semacdr.training import gate as gate_module
from semacdr.training.fit import Fit
from semacdr.training.gate import (
    PULL,
    GateExamples,
    Objective,
    Sight,
    cross_fitted_gate,
    fit_gate,
    gate_examples,
    half_of_user,
)
from semacdr.training.validation import Validation
from tests.training.test_fit import inputs_of


def examples_of(informative: int, num_queries: int = 300, num_candidates: int = 20) -> GateExamples:
    """The column ``informative`` knows the target; the others are noise."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(num_queries, num_candidates, 3, generator=generator)
    scores[:, 0, informative] += 3
    facts = torch.ones(num_queries, NUM_FACTS + 2)
    facts[:, 1:] = torch.randn(num_queries, NUM_FACTS + 1, generator=generator)
    bucket = torch.randint(0, 4, (num_queries, num_candidates), generator=generator)
    return GateExamples(scores, bucket, torch.zeros(num_queries, num_candidates), facts)


def cross_entropy(examples: GateExamples, gate: ScoreGate) -> torch.Tensor:
    score_XQC = examples.score_QCX.permute(2, 0, 1)
    score_QC = gate(score_XQC, examples.facts_QF, examples.bucket_QC, torch.tensor(0.0))
    return ((score_QC + examples.log_share_QC).logsumexp(dim=1) - score_QC[:, 0]).mean()


def test_fit_gate_finds_the_column_that_knows():
    gate = fit_gate(examples_of(2), ScoreGate(3, 2))
    weight = gate.by_fact[:, 0] + gate.by_support.mean(dim=1)
    assert weight[2] > 1
    assert weight[:2].abs().max() < 0.5


def test_fit_gate_learns_who_takes_cold_items():
    examples = examples_of(1)
    likes_cold_Q = examples.facts_QF[:, 2] > 0
    examples.bucket_QC[:, 0] = torch.where(likes_cold_Q, 0, 1 + torch.arange(len(likes_cold_Q)) % 3)
    gate = fit_gate(examples, ScoreGate(3, 2))
    assert gate.cold_by_fact[2] > 0.5
    assert gate.cold(examples.facts_QF)[likes_cold_Q].mean() > gate.cold(examples.facts_QF)[~likes_cold_Q].mean() + 1
    assert gate.cold_by_fact[3:].abs().max() < 0.5


def test_fit_gate_learns_a_trend_that_no_weight_of_a_column_tells():
    examples = examples_of(0)
    popularity = examples.score_QCX[..., 1:]
    # Taken is what both half-lives call popular, or neither.
    popularity[:, 0] = popularity[:, 0, :1].sign() * popularity[:, 0].abs()
    popularity += math.log(SMALLEST)
    line = fit_gate(examples, ScoreGate(3, 2))
    trend = fit_gate(examples, ScoreGate(3, 2, 2))
    assert trend.by_pair[1] > 0.5
    assert cross_entropy(examples, trend) < cross_entropy(examples, line) - 0.05


def test_fit_gate_is_the_same_in_any_order_of_targets_and_for_one_target_stays_nearly_shut():
    examples = examples_of(1)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    shuffled = GateExamples(
        examples.score_QCX[order], examples.bucket_QC[order], examples.log_share_QC[order], examples.facts_QF[order]
    )
    gate, again = fit_gate(examples, ScoreGate(3, 2)), fit_gate(shuffled, ScoreGate(3, 2))
    torch.testing.assert_close(gate.by_fact, again.by_fact, rtol=0, atol=5e-3)
    one = GateExamples(*(tensor[:1] for tensor in vars(examples).values()))
    assert fit_gate(one, ScoreGate(3, 2)).by_fact[1:].abs().max() < 0.5


@pytest.mark.parametrize("num_half_lives", [0, 2])
def test_objective_is_the_cross_entropy_with_its_derivatives(num_half_lives: int):
    examples = replace(examples_of(1, num_queries=40, num_candidates=7), log_share_QC=torch.randn(40, 7))
    examples.log_share_QC[3, 5:] = -torch.inf
    gate = ScoreGate(3, 2, num_half_lives)
    gate.standardise(examples.facts_QF)
    objective = Objective(examples, gate, pull=0.0)
    torch.manual_seed(0)
    weights = torch.randn(len(objective.at_first), dtype=torch.float64)
    vector_to_parameters(weights.float(), gate.parameters())
    loss = cross_entropy(examples, gate)
    slopes = torch.autograd.grad(loss, list(gate.parameters()))
    value, gradient, hessian = objective(weights.numpy())
    assert value == pytest.approx(loss.item(), rel=1e-5)
    assert gradient == pytest.approx(torch.cat([slope.flatten() for slope in slopes]).numpy(), rel=1e-4, abs=1e-5)
    step = 1e-5 * np.eye(len(weights))
    moved = np.stack([objective(weights.numpy() + one)[1] - objective(weights.numpy() - one)[1] for one in step])
    assert hessian == pytest.approx(moved / 2e-5, rel=1e-6, abs=1e-7)


def test_fit_gate_of_columns_that_are_much_alike_ends_at_the_least_loss():
    examples = examples_of(1)
    alike = examples.score_QCX + 0.0
    alike[:, :, 2] = 30 * alike[:, :, 1] + 0.03 * alike[:, :, 2]
    examples = replace(examples, score_QCX=alike)
    gate = fit_gate(examples, ScoreGate(3, 2))
    fresh = ScoreGate(3, 2)
    fresh.standardise(examples.facts_QF)
    objective = Objective(examples, fresh, PULL)
    found = parameters_to_vector(gate.parameters()).double().numpy()
    assert abs(objective(found)[1]).max() < 1e-3 * abs(objective(objective.at_first)[1]).max()


def drawn_from_a_table(
    toy_artifacts: dict[str, Path],
) -> tuple[Validation, torch.Tensor, Callable[..., GateExamples]]:
    """Two columns of random scores for the toy's targets, and what draws candidates by them: (seed, pilot)."""
    inputs = inputs_of(toy_artifacts)
    validation = Validation(inputs, read_events(toy_artifacts["sequences"], inputs.vocabulary), seed=0)
    events, queries = validation.events, validation.queries
    table = torch.randn(2, len(queries), 20, generator=torch.Generator().manual_seed(0))
    sight = Sight(
        scores=lambda chosen, _: table[:, torch.from_numpy(chosen)],
        facts=np.ones((len(queries), NUM_FACTS + 2), np.float32),
        support=lambda item, _: np.zeros(item.shape, np.int64),
    )

    def drawn(seed: int, pilot: ScoreGate | None = None) -> GateExamples:
        rng, asked = np.random.default_rng(seed), np.arange(len(queries))
        found = gate_examples(sight, events, queries, asked, inputs.vocabulary, rng, pilot)
        assert found is not None
        return found

    return validation, table, drawn


def test_gate_examples_estimate_the_cross_entropy_over_all_items(
    toy_artifacts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    validation, table, drawn = drawn_from_a_table(toy_artifacts)
    events, queries, vocabulary = validation.events, validation.queries, validation.inputs.vocabulary

    def loss(seed: int) -> float:
        return cross_entropy(drawn(seed), ScoreGate(2, 2)).item()

    ranked = rank_targets(lambda chosen, domain: table[domain, chosen], events, queries, vocabulary, seed=0)
    num_candidates = drawn(0).log_share_QC.isfinite().sum(dim=1)
    assert sorted(num_candidates.tolist()) == sorted(ranked.num_candidates)
    whole = loss(0)
    assert loss(1) == pytest.approx(whole, rel=1e-6)
    monkeypatch.setattr(gate_module, "TOP", 2)
    monkeypatch.setattr(gate_module, "SAMPLED", 3)
    sampled = [loss(seed) for seed in range(40)]
    assert np.std(sampled) > 0
    assert np.mean(sampled) == pytest.approx(whole, rel=0.03)


def test_the_best_by_a_pilot_is_a_candidate_for_certain(
    toy_artifacts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    _, _, drawn = drawn_from_a_table(toy_artifacts)
    pilot = ScoreGate(2, 2)
    pilot.by_fact.data[:, 0] = 1

    def best_certain(pilot: ScoreGate | None) -> torch.Tensor:
        found = drawn(0, pilot)
        return found.score_QCX.sum(dim=2).masked_fill(found.log_share_QC != 0, -torch.inf).amax(dim=1)

    best = best_certain(None)
    monkeypatch.setattr(gate_module, "TOP", 1)
    monkeypatch.setattr(gate_module, "SAMPLED", 1)
    assert torch.equal(best_certain(pilot), best)
    assert not torch.equal(best_certain(None), best)


def test_cross_fitted_gate_beats_the_untrained_model_alone(toy_artifacts: dict[str, Path]):
    inputs = inputs_of(toy_artifacts)
    validation = Validation(inputs, read_events(toy_artifacts["sequences"], inputs.vocabulary), seed=0)
    model = Fit(inputs, seed=0).model
    memory = Memory.of(inputs.events, inputs.vocabulary, inputs.titles, inputs.text)
    found = cross_fitted_gate(validation, model, memory, seed=0)
    assert found.score.ndcg_10 > validation.score(model).ndcg_10
    again = cross_fitted_gate(validation, model, memory, seed=0)
    assert torch.equal(found.gate.by_fact, again.gate.by_fact)
    assert inputs.events.up_to(Part.TRAIN).time_s.max() < validation.queries.time_s.min()


def test_halves_of_users_hold_both_domains_where_the_users_of_two_domains_alternate():
    user = np.arange(200)
    queries = Queries(user=user, stop=user, domain=user % 2, time_s=user, item=user)
    doubled = Queries(**{name: np.repeat(values, 2) for name, values in vars(queries).items()})
    half = half_of_user(doubled, np.random.default_rng(0))
    assert np.array_equal(half[::2], half[1::2])
    sizes = np.histogram2d(half[::2], queries.domain, bins=2)[0]
    assert sizes.min() > 30
    assert sizes.sum(axis=1) == pytest.approx(100)


def test_the_gate_is_fitted_with_memories_as_old_as_the_fit_and_as_new_as_the_target(toy_artifacts: dict[str, Path]):
    inputs = inputs_of(toy_artifacts)
    validation = Validation(inputs, read_events(toy_artifacts["sequences"], inputs.vocabulary), seed=0)
    memory = Memory.of(inputs.events, inputs.vocabulary, inputs.titles, inputs.text)
    scoring = Scoring.of(inputs.config.experts, memory, ScoreGate(7, 2))
    scorer = validation.scorer(Fit(inputs, seed=0).model, scoring)
    old, new = Sight.at_fit(scorer), Sight.up_to_date(scorer)
    assert (old.facts[:, 5] > 0).all()
    assert (new.facts[:, 5] == 0).all()
    events, queries = validation.events, validation.queries
    past = memory.with_events(events).past
    assert np.array_equal(new.facts, query_facts(events, queries, queries.time_s, past, 2))
    assert np.array_equal(old.facts, query_facts(events, queries, memory.last_s, memory.past, 2))
    of_item = events.item == queries.item[:, None]
    before = (of_item & (events.time_s < queries.time_s[:, None])).sum(axis=1)
    assert np.array_equal(new.support(queries.item, queries.time_s), before)
    in_fit = (of_item & (events.part == PART_CODE[Part.TRAIN])).sum(axis=1)
    assert np.array_equal(old.support(queries.item, queries.time_s), in_fit)
    last = np.array([len(queries) - 1])
    assert not torch.equal(old.scores(last, 0)[1], new.scores(last, 0)[1])
    gate = cross_fitted_gate(validation, Fit(inputs, seed=0).model, memory, seed=0).gate
    assert gate.low_F[5] == 0
    assert gate.high_F[5] == old.facts[:, 5].max()


def test_gate_is_fitted_where_one_half_of_the_users_has_no_target(toy_artifacts: dict[str, Path]):
    inputs = inputs_of(toy_artifacts)
    fit, events = Fit(inputs, seed=0), read_events(toy_artifacts["sequences"], inputs.vocabulary)
    validation = Validation(inputs, events, seed=0)
    validation.queries = Queries(*(column[:1] for column in vars(validation.queries).values()))
    memory = Memory.of(inputs.events, inputs.vocabulary, inputs.titles, inputs.text)
    assert cross_fitted_gate(validation, fit.model, memory, seed=0).score.ndcg_10 >= 0
