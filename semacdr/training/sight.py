"""Validation targets as the experts see them: with the memory of the fit, or with one that is up to date."""

# Shapes: Q queries, I items of one domain, X columns (the trained score first), F facts.

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from semacdr.model.gate import UP_TO_DATE, ScoreGate, support_bucket
from semacdr.model.histories import Events, IntArray, Queries
from semacdr.model.popularity import FloatArray
from semacdr.model.ranking import Scorer
from semacdr.model.scorer import FinalScorer, Scoring

NO_BOOST = torch.tensor(0.0)


@dataclass(frozen=True)
class Sight:
    """The same targets, as the experts see them with one memory."""

    scores: Callable[[IntArray, int], Tensor]
    """From positions of queries and their domain to scores of the domain's items: [X, Q, I]."""
    facts: FloatArray
    """Of all queries: [Q, F]."""
    support: Callable[[IntArray, IntArray], IntArray]
    """From ``item_index`` and times, of one shape when broadcast, to the items' support then."""

    @classmethod
    def at_fit(cls, scorer: FinalScorer) -> "Sight":
        """With the memory of the fit, however long ago that is at a target: what evaluation asks with."""
        scoring = scoring_of(scorer)
        support_R = np.bincount(scoring.memory.item, minlength=scoring.memory.bounds[-1][1]).astype(np.int64)
        facts = scoring.facts(scorer.events, scorer.queries, scoring.memory.last_s)
        return cls(scorer.scores, facts, lambda item, _: support_R[item])

    @classmethod
    def up_to_date(cls, scorer: FinalScorer, log: Events | None = None) -> "Sight":
        """With every event of the log strictly before each target: what serving asks with.

        Args:
            scorer: of the targets.
            log: what happened; None: the events that the scorer takes histories from.
        """
        scoring = scoring_of(scorer)
        memory = scoring.memory.with_events(log or scorer.events)
        scoring = replace(scoring, memory=memory)
        of_today = replace(scorer, scoring=scoring)
        facts = scoring.facts(scorer.events, scorer.queries, scorer.queries.time_s)
        return cls(of_today.scores, facts, memory.counts.before)

    def final(
        self,
        gate: ScoreGate,
        score_XQI: Tensor,
        queries: Queries,
        chosen: IntArray,
        bounds: tuple[int, int],
        cold_boost: Tensor = NO_BOOST,
    ) -> tuple[Float[Tensor, "queries items"], Int[Tensor, "..."]]:
        """Return the final scores of a domain's items, and the items' buckets, at each query if they depend on it.

        Args:
            gate: weighs the columns.
            score_XQI: what ``scores`` gives for the queries.
            queries: all of them.
            chosen: which of them.
            bounds: of the domain's items.
            cold_boost: of the domain.
        """
        support = self.support(np.arange(*bounds), queries.time_s[chosen, None])
        bucket = torch.from_numpy(support_bucket(support))
        return gate(score_XQI, torch.from_numpy(self.facts[chosen]), bucket, cold_boost), bucket


def rolling(scorer: FinalScorer, log: Events) -> Scorer:
    """Return the scorer that asks as serving does; without experts there is nothing that could be out of date.

    Args:
        scorer: with the memory of its fit, and the histories to rank for, whosever they are.
        log: what happened.
    """
    if scorer.scoring is None:
        return scorer
    gate, sight = scorer.scoring.gate, Sight.up_to_date(scorer, log)

    def scores(chosen: IntArray, domain: int) -> Tensor:
        bounds, boost = scorer.vocabulary.bounds[domain], gate.cold_boost_SN[UP_TO_DATE, domain]
        return sight.final(gate, sight.scores(chosen, domain), scorer.queries, chosen, bounds, boost)[0]

    return scores


def scoring_of(scorer: FinalScorer) -> Scoring:
    """Return the experts and the gate of a scorer that has them."""
    assert scorer.scoring is not None
    return scorer.scoring
