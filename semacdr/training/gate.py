"""Fitting the score gate on targets that neither the trained weights nor the experts have seen."""

# Shapes: Q queries, I items of one domain, X columns (the trained score first), F facts, C candidates, B buckets,
# A columns and whether an item is cold, V those and a one, U columns and a one, W = B * V, G pairs of half-lives,
# O = U * B + G.

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import one_hot, pad
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from semacdr.model.experts import Memory
from semacdr.model.gate import NUM_BUCKETS, ScoreGate, above_none, support_bucket
from semacdr.model.histories import Events, IntArray, Queries
from semacdr.model.popularity import FloatArray64
from semacdr.model.ranking import CHUNK_SCORES, chunks, left_out
from semacdr.model.scorer import Scoring
from semacdr.model.semacdr import SemaCdrModel
from semacdr.model.vocabulary import Vocabulary
from semacdr.training.cold import cold_boosts
from semacdr.training.loop import Score
from semacdr.training.sight import Sight, scoring_of
from semacdr.training.validation import Validation

TOP, SAMPLED = 40, 200
"""Candidates of a query: the best of each column, and so many more at random, which stand for all the others."""
MAX_QUERIES, PILOT = 4_000, 1_000
"""Targets that a gate is fitted on at most, and those of the one that tells what competes with them."""
PULL = 10.0
"""Strength of the pull towards the trained score alone, in targets: with few of them the gate stays shut."""
STEPS, GRADIENT = 60, 1e-5
"""Of the optimiser at most, and where it may stop: a dozen are enough."""
QUERIES_AT_ONCE = 16
"""So that what is computed of them stays in the processor's cache; with 100 the time is more than twice as long."""


@dataclass(frozen=True)
class GateExamples:
    """Targets with their candidates; the target stands first."""

    score_QCX: Float[Tensor, "queries candidates columns"]
    bucket_QC: Int[Tensor, "queries candidates"]
    log_share_QC: Float[Tensor, "queries candidates"]
    """log of how many items a candidate stands for; -inf: no candidate."""
    facts_QF: Float[Tensor, "queries facts"]

    @classmethod
    def joined(cls, parts: list["GateExamples"]) -> "GateExamples":
        """Put examples under each other, padded to the most candidates."""
        width = max(part.score_QCX.shape[1] for part in parts)

        def missing(part: GateExamples) -> int:
            return width - part.score_QCX.shape[1]

        return cls(
            score_QCX=torch.cat([pad(part.score_QCX, (0, 0, 0, missing(part))) for part in parts]),
            bucket_QC=torch.cat([pad(part.bucket_QC, (0, missing(part))) for part in parts]),
            log_share_QC=torch.cat([pad(part.log_share_QC, (0, missing(part)), value=-torch.inf) for part in parts]),
            facts_QF=torch.cat([part.facts_QF for part in parts]),
        )


def gate_examples(
    sight: Sight,
    events: Events,
    queries: Queries,
    asked: IntArray,
    vocabulary: Vocabulary,
    rng: np.random.Generator,
    pilot: ScoreGate | None = None,
) -> GateExamples | None:
    """Draw the candidates of the asked targets; None: there is no target.

    Strata: the best ``TOP`` items of every column, and by the pilot, are all there, of the rest a uniform sample, each
    item of which counts for as many as it stands for. Candidates are those of evaluation.
    """
    parts = []
    for domain, (start, stop) in enumerate(vocabulary.bounds):
        of_domain = asked[queries.domain[asked] == domain]
        for chosen in chunks(of_domain, CHUNK_SCORES // (stop - start)):
            score_XQI = sight.scores(chosen, domain)
            compared_XQI = score_XQI
            if pilot is not None:
                final_QI, _ = sight.final(pilot, score_XQI, queries, chosen, (start, stop))
                compared_XQI = torch.cat([score_XQI, final_QI[None]])
            index_QC, log_share_QC = _candidates(compared_XQI, events, queries, chosen, domain, start, rng)
            score_QCX = score_XQI.gather(2, index_QC.expand(len(score_XQI), -1, -1)).permute(1, 2, 0)
            support_QC = sight.support(index_QC.numpy() + start, queries.time_s[chosen, None])
            bucket_QC, facts_QF = torch.from_numpy(support_bucket(support_QC)), torch.from_numpy(sight.facts[chosen])
            parts.append(GateExamples(score_QCX, bucket_QC, log_share_QC, facts_QF))
    return GateExamples.joined(parts) if parts else None


def _candidates(
    score_XQI: Tensor,
    events: Events,
    queries: Queries,
    chosen: IntArray,
    domain: int,
    start: int,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Columns of the candidates, the target's first, and the log of how many items each stands for."""
    num_columns, num_queries, num_items = score_XQI.shape
    target_Q1 = torch.from_numpy(queries.item[chosen] - start)[:, None]
    row, item = left_out(events, queries, chosen, domain)
    had_QI = torch.zeros(num_queries, num_items, dtype=torch.bool)
    had_QI[torch.from_numpy(row), torch.from_numpy(item - start)] = True
    certain_QI = torch.zeros_like(had_QI)
    for score_QI in score_XQI:
        best_QK = score_QI.masked_fill(had_QI, -torch.inf).topk(min(TOP, num_items), dim=1).indices
        certain_QI.scatter_(1, best_QK, value=True)
    certain_QI &= ~had_QI
    certain_QI.scatter_(1, target_Q1, value=True)
    key_QI = torch.from_numpy(rng.random((num_queries, num_items), dtype=np.float32))
    key_QI = key_QI + certain_QI.float() - 2 * had_QI.float()
    key_QI.scatter_(1, target_Q1, 3.0)
    size = min(num_items, TOP * num_columns + 1 + SAMPLED)
    index_QC = key_QI.topk(size, dim=1).indices
    num_certain_Q1 = certain_QI.sum(dim=1, keepdim=True)
    num_others_Q1 = num_items - had_QI.sum(dim=1, keepdim=True) - num_certain_Q1
    num_drawn_Q1 = (~certain_QI.gather(1, index_QC) & ~had_QI.gather(1, index_QC)).sum(dim=1, keepdim=True)
    stands_for_QC = torch.where(certain_QI.gather(1, index_QC), 1.0, num_others_Q1 / num_drawn_Q1.clamp(min=1))
    return index_QC, stands_for_QC.masked_fill(had_QI.gather(1, index_QC), 0.0).log()


def piloted_examples(
    sights: Sequence[Sight],
    fresh: ScoreGate,
    events: Events,
    queries: Queries,
    asked: IntArray,
    vocabulary: Vocabulary,
    rng: np.random.Generator,
) -> GateExamples | None:
    """Draw the candidates of at most ``MAX_QUERIES / 2`` targets in every sight, by a pilot that is fitted on fewer.

    Without it, what is best by several columns together is there by chance alone, and counts for hundreds of items.
    """
    pilot, joined = None, None
    for most in (PILOT // 2, MAX_QUERIES // 2):
        some = asked if len(asked) <= most else np.sort(rng.choice(asked, most, replace=False))
        drawn = [gate_examples(sight, events, queries, some, vocabulary, rng, pilot) for sight in sights]
        joined = GateExamples.joined(found) if (found := [one for one in drawn if one]) else None
        if pilot is None and joined is not None:
            pilot = fit_gate(joined, fresh)
    return joined


def fit_gate(examples: GateExamples, fresh: ScoreGate, pull: float = PULL, near: ScoreGate | None = None) -> ScoreGate:
    """Return the gate of least cross-entropy, pulled towards a fresh one: the trained score alone.

    There is one, wherever the search begins; beginning near it saves steps.
    """
    gate = deepcopy(fresh).requires_grad_(requires_grad=False)
    gate.standardise(examples.facts_QF)
    objective = Objective(examples, gate, pull)
    # Columns are much alike: methods that know no Hessian are far from the solution after hundreds of steps.
    found = minimize(
        lambda weights: objective(weights)[:2],
        objective.at_first if near is None else parameters_to_vector(near.parameters()).detach().double().numpy(),
        jac=True,
        hess=lambda weights: objective(weights)[2],
        method="trust-exact",
        options={"gtol": GRADIENT, "maxiter": STEPS},
    )
    vector_to_parameters(torch.from_numpy(found.x).float(), gate.parameters())
    return gate


class Objective:
    """What ``fit_gate`` minimises, as a function of all of the gate's weights in one vector.

    It is the mean softmax cross-entropy, the items left out estimated by those drawn, and the pull.
    """

    def __init__(self, examples: GateExamples, gate: ScoreGate, pull: float) -> None:
        self._examples = examples
        self._popularity = gate.popularity
        self._first_G, self._second_G = torch.triu_indices(*[gate.popularity.stop - gate.popularity.start] * 2)
        self._fact_QF = gate.measured(examples.facts_QF).double()
        self._num_by_fact = gate.by_fact.numel() + gate.cold_by_fact.numel()
        self.at_first = parameters_to_vector(gate.parameters()).detach().double().numpy()
        is_candidate_QC = examples.log_share_QC.isfinite()
        spread_X = examples.score_QCX[is_candidate_QC].std(dim=0).clamp(min=1e-3)
        spread_of_cold = (examples.bucket_QC[is_candidate_QC] == 0).float().std().clamp(min=1e-3)
        spreads = (
            spread_X[:, None].expand_as(gate.by_fact),
            spread_of_cold.expand_as(gate.cold_by_fact),
            spread_X[:, None].expand_as(gate.by_support),
            torch.ones_like(gate.bias),
            self._spread_of_pairs(is_candidate_QC),
        )
        spread = torch.cat([part.flatten() for part in spreads])
        self._pull = (pull / len(examples.facts_QF) * spread**2).detach().double().numpy()
        self._num_columns = examples.score_QCX.shape[2]
        self._of_bucket_U = [*range(self._num_columns), self._num_columns + 1]
        self._of_targets = self._summed_targets()
        self._last: tuple[bytes, tuple[float, FloatArray64, FloatArray64]] | None = None

    def __call__(self, weights: FloatArray64) -> tuple[float, FloatArray64, FloatArray64]:
        """Return the value, its gradient and its Hessian."""
        # The optimiser asks for the Hessian where it has asked for the value.
        if self._last is None or self._last[0] != weights.tobytes():
            self._last = weights.tobytes(), self._computed(weights)
        return self._last[1]

    def _spread_of_pairs(self, is_candidate_QC: Tensor) -> Tensor:
        above = above_none(self._examples.score_QCX[is_candidate_QC][:, self._popularity])
        pairs = zip(self._first_G, self._second_G, strict=True)
        spreads = [(above[:, first] * above[:, second]).std().clamp(min=1e-3) for first, second in pairs]
        return torch.stack(spreads) if spreads else torch.empty(0)

    def _numbers(self, score_QCX: Tensor, bucket_QC: Tensor) -> tuple[Tensor, Tensor]:
        """Return what facts or buckets weigh of candidates, and what has one weight for all: [Q, C, V], [Q, C, G]."""
        score_QCX = score_QCX.double()
        number_QCV = pad(torch.cat([score_QCX, (bucket_QC == 0)[..., None]], dim=-1), (0, 1), value=1.0)
        above = above_none(score_QCX[..., self._popularity])
        return number_QCV, above[..., self._first_G] * above[..., self._second_G]

    def _summed_targets(self) -> Tensor:
        """Return the sum of the targets' scores as a function of the weights: it is linear."""
        bucket_Q = self._examples.bucket_QC[:, 0]
        number_QV, pair_QG = self._numbers(self._examples.score_QCX[:, 0], bucket_Q)
        of_bucket_QB = one_hot(bucket_Q, NUM_BUCKETS).double()
        by_fact_AF = number_QV[:, :-1].T @ self._fact_QF
        by_bucket_UB = number_QV[:, self._of_bucket_U].T @ of_bucket_QB
        return torch.cat([by_fact_AF.flatten(), by_bucket_UB.flatten(), pair_QG.sum(dim=0)])

    def _computed(self, weights: FloatArray64) -> tuple[float, FloatArray64, FloatArray64]:
        """Sum up over the queries.

        A candidate's score is linear in its columns and whether it is cold, which the query's facts weigh, and in its
        columns and a one, which its bucket weighs, and in the products of two popularities. So the Hessian of a query
        is the covariance of those numbers under the softmax. A candidate is in one bucket: what two buckets have in
        common is nothing, and the moments are taken bucket by bucket.
        """
        examples, num_queries = self._examples, len(self._fact_QF)
        num_columns, of_bucket_U = self._num_columns, self._of_bucket_U
        by_fact_AF = torch.from_numpy(weights[: self._num_by_fact]).view(num_columns + 1, -1)
        other_O = torch.from_numpy(weights[self._num_by_fact :])
        num_facts, num_others, num_pairs = by_fact_AF.shape[1], len(other_O), len(self._first_G)
        by_bucket_VB = other_O.new_zeros(num_columns + 2, NUM_BUCKETS)
        by_bucket_VB[of_bucket_U] = other_O[: num_others - num_pairs].view(num_columns + 1, -1)
        value, gradient_AF, gradient_O = 0.0, torch.zeros_like(by_fact_AF), torch.zeros_like(other_O)
        hessian_AAFF = other_O.new_zeros((num_columns + 1) ** 2, num_facts**2)
        hessian_AOF = other_O.new_zeros((num_columns + 1) * num_others, num_facts)
        hessian_OO = other_O.new_zeros(num_others, num_others)
        for at in range(0, num_queries, QUERIES_AT_ONCE):
            here = slice(at, at + QUERIES_AT_ONCE)
            number_QCV, pair_QCG = self._numbers(examples.score_QCX[here], examples.bucket_QC[here])
            fact_QF, bucket_QC1 = self._fact_QF[here], examples.bucket_QC[here, :, None]
            weight_QVB = by_bucket_VB + pad(fact_QF @ by_fact_AF.T, (0, 1))[..., None]
            by_pair_QC = pair_QCG @ other_O[num_others - num_pairs :]
            score_QC = (number_QCV @ weight_QVB).gather(2, bucket_QC1)[..., 0] + by_pair_QC
            logit_QC = score_QC + examples.log_share_QC[here]
            value += float(logit_QC.logsumexp(dim=1).sum())
            share_QC1 = logit_QC.softmax(dim=1)[..., None]
            share_QCB = share_QC1.new_zeros(*score_QC.shape, NUM_BUCKETS).scatter_(2, bucket_QC1, share_QC1)
            shared_QCW = (share_QCB[..., None] * number_QCV[:, :, None]).flatten(2)
            moment_QNW = torch.cat([number_QCV, pair_QCG], dim=2).transpose(1, 2) @ shared_QCW
            moment_QNBV = moment_QNW.unflatten(2, (NUM_BUCKETS, -1))
            moment_QVBV, moment_QGBV = moment_QNBV.split([num_columns + 2, num_pairs], dim=1)
            mean_QVB, mean_QG = moment_QVBV[:, -1].transpose(1, 2), moment_QGBV[..., -1].sum(dim=2)
            mean_QA = mean_QVB[:, :-1].sum(dim=2)
            mean_QO = torch.cat([mean_QVB[:, of_bucket_U].flatten(1), mean_QG], dim=1)
            gradient_AF += mean_QA.T @ fact_QF
            gradient_O += mean_QO.sum(dim=0)
            covariance_QAA = moment_QVBV[:, :-1, :, :-1].sum(dim=2) - mean_QA[:, :, None] * mean_QA[:, None]
            moment_QAUB = moment_QVBV[:, :-1, :, of_bucket_U].transpose(2, 3)
            moment_QAG = moment_QGBV[..., :-1].sum(dim=2).transpose(1, 2)
            moment_QAO = torch.cat([moment_QAUB.flatten(2), moment_QAG], dim=2)
            covariance_QAO = moment_QAO - mean_QA[:, :, None] * mean_QO[:, None]
            hessian_AAFF += covariance_QAA.flatten(1).T @ (fact_QF[:, :, None] * fact_QF[:, None, :]).flatten(1)
            hessian_AOF += covariance_QAO.flatten(1).T @ fact_QF
            # Of one bucket, and of what is in all.
            moment_UBU, moment_GBU = (part.sum(dim=0)[..., of_bucket_U] for part in (moment_QVBV, moment_QGBV))
            moment_UBUB = moment_UBU[of_bucket_U].transpose(1, 2).diag_embed().transpose(1, 2)
            moment_UBG = moment_GBU.permute(2, 1, 0).flatten(0, 1)
            moment_GG = (pair_QCG * share_QC1).flatten(0, 1).T @ pair_QCG.flatten(0, 1)
            moment_OO = _symmetric(moment_UBUB.reshape(len(moment_UBG), -1), moment_UBG, moment_GG)
            hessian_OO += moment_OO - mean_QO.T @ mean_QO
        by_fact_by_fact = hessian_AAFF.view(num_columns + 1, num_columns + 1, num_facts, num_facts).permute(0, 2, 1, 3)
        by_fact_by_other = hessian_AOF.view(num_columns + 1, num_others, num_facts).permute(0, 2, 1).flatten(0, 1)
        hessian = _symmetric(by_fact_by_fact.reshape(len(by_fact_by_other), -1), by_fact_by_other, hessian_OO).numpy()
        gradient = (torch.cat([gradient_AF.flatten(), gradient_O]) - self._of_targets).numpy()
        value -= float(weights @ self._of_targets.numpy())
        moved = weights - self.at_first
        return (
            value / num_queries + float((self._pull * moved**2).sum()),
            gradient / num_queries + 2 * self._pull * moved,
            hessian / num_queries + np.diag(2 * self._pull),
        )


def _symmetric(corner: Tensor, side: Tensor, opposite: Tensor) -> Tensor:
    """Return the symmetric matrix of these blocks."""
    return torch.cat([torch.cat([corner, side], dim=1), torch.cat([side.T, opposite], dim=1)])


@dataclass(frozen=True)
class CrossFitted:
    """A gate, and what such a gate is worth on users that it was not fitted on."""

    gate: ScoreGate
    """Fitted on all targets."""
    score: Score
    mixed: bool
    """The memory that it was fitted with looks at histories as one."""

    @property
    def history(self) -> str:
        """The choice as the config names it."""
        return "mixed" if self.mixed else "target"


def half_of_user(queries: Queries, rng: np.random.Generator) -> IntArray:
    """Return for each query which of two halves its user belongs to, by chance.

    Their order may say something: the users of the target-only twin alternate between the domains.
    """
    half: IntArray = rng.permutation(queries.user.max(initial=0) + 1) % 2
    return half[queries.user]


def cross_fitted_gate(validation: Validation, model: SemaCdrModel, memory: Memory, seed: int) -> CrossFitted:
    """Fit the gate on all validation targets, and measure it by two halves of users, each by the other's gate.

    The targets lie after all events that the weights and the memory have seen: no score contains its own event. Each
    target is an example twice, with that memory and with one that knows every event before it: a gate that has seen the
    first alone reaches beyond its examples when it serves (docs/log.md). The measure is of the first, as evaluation is.
    """
    queries, vocabulary = validation.queries, validation.inputs.vocabulary
    num_domains = len(vocabulary.domains)
    experts = validation.inputs.config.experts
    shut = ScoreGate.of(experts, num_domains).requires_grad_(requires_grad=False)
    scorer = validation.scorer(model, Scoring.of(experts, memory, shut))
    sights = (Sight.at_fit(scorer), Sight.up_to_date(scorer))
    rng = np.random.default_rng(seed)
    half_Q = half_of_user(queries, rng)
    halves = [np.flatnonzero(half_Q == half) for half in range(2)]
    examples = [piloted_examples(sights, shut, validation.events, queries, half, vocabulary, rng) for half in halves]
    share = validation.inputs.config.cold_share

    def fitted(on: GateExamples, asked: IntArray, near: ScoreGate | None = None) -> ScoreGate:
        gate = fit_gate(on, shut, near=near)
        gate.cold_boost_SN.copy_(torch.stack([cold_boosts(gate, validation, sight, asked, share) for sight in sights]))
        return gate

    gates: list[ScoreGate] = []
    for other, half in zip(reversed(examples), reversed(halves), strict=True):
        gates.append(fitted(other, half, near=gates[-1] if gates else None) if other else shut)

    scorers = [replace(scorer, scoring=replace(scoring_of(scorer), gate=gate)) for gate in gates]

    def final(chosen: IntArray, domain: int) -> Tensor:
        score_XQI = scorer.scores(chosen, domain)
        final_QI = torch.empty_like(score_XQI[0])
        for half, of_half in enumerate(scorers):
            rows = torch.from_numpy(np.flatnonzero(half_Q[chosen] == half))
            final_QI[rows] = of_half.final(score_XQI[:, rows], chosen[rows.numpy()], domain)
        return final_QI

    both = [one for one in examples if one]
    gate = fitted(GateExamples.joined(both), np.arange(len(queries)), near=gates[-1])
    return CrossFitted(gate=gate, score=validation.rank(final), mixed=memory.mixed)
