"""Validation: every item a candidate, histories as the protocol rules, the fit's own events as memory."""

# Shapes: Q queries.

from functools import cached_property

import torch

from semacdr.model.checkpoint import encode_all_items, user_states
from semacdr.model.histories import Events, Queries, queries_of_targets
from semacdr.model.ranking import Scorer, hit, macro, ndcg, rank_targets
from semacdr.model.scorer import FinalScorer, Scoring
from semacdr.model.semacdr import SemaCdrModel
from semacdr.tables import Part
from semacdr.training.fit import FitInputs
from semacdr.training.loop import Score

CUT = 10
"""NDCG@10 decides."""


class Validation:
    """Scores models on the validation targets; test events are cut off first, out of reach of all that is chosen."""

    def __init__(self, inputs: FitInputs, events: Events, seed: int) -> None:
        self.inputs = inputs
        self.events = events.up_to(Part.VALIDATION)
        self.seed = seed

    @cached_property
    def queries(self) -> Queries:
        """The targets."""
        return queries_of_targets(self.events, Part.VALIDATION, self.inputs.visibility)

    def scorer(self, model: SemaCdrModel, scoring: Scoring | None = None) -> FinalScorer:
        """Return a model's scorer, with or without experts."""
        with torch.inference_mode():
            items = encode_all_items(model)
            states = user_states(model, items, self.events, self.queries, max_length=self.inputs.max_length)
        vocabulary = self.inputs.vocabulary
        return FinalScorer(states.vector_QD, items.vector_RD.cpu(), self.events, self.queries, vocabulary, scoring)

    def score(self, model: SemaCdrModel) -> Score:
        """Return the score of a model without experts."""
        return self.rank(self.scorer(model))

    def rank(self, scorer: Scorer) -> Score:
        """Return the score of any scorer."""
        ranks = rank_targets(scorer, self.events, self.queries, self.inputs.vocabulary, seed=self.seed)
        domain = self.queries.domain
        return Score(macro(ndcg(ranks.rank, CUT), domain), macro(hit(ranks.rank, CUT), domain))
