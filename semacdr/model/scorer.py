"""The final score: the trained score beside those of the experts, weighed by the gate, at any time.

Training and evaluation ask at the times of their targets; serving, which asks now, has ``present_scorer``.
"""

# Shapes: Q queries, I items of one domain, X columns (the trained score first), R items and the padding, D model width,
# N domains.

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from semacdr.model.config import Expert
from semacdr.model.experts import Memory, column_names, fill_expert_scores
from semacdr.model.gate import AT_FIT, ScoreGate, query_facts, support_bucket
from semacdr.model.histories import Events, IntArray, Queries
from semacdr.model.popularity import FloatArray
from semacdr.model.vocabulary import Vocabulary

TRAINED = "trained"
"""The name of the first column."""


@dataclass(frozen=True)
class Scoring:
    """What the experts and the gate need at inference; the trained score needs none of it."""

    experts: tuple[Expert, ...]
    memory: Memory
    gate: ScoreGate
    bucket: IntArray
    """Of each item's support in the fit, by ``item_index``."""

    @classmethod
    def of(cls, experts: tuple[Expert, ...], memory: Memory, gate: ScoreGate) -> "Scoring":
        """Count the items' support from the memory."""
        support = np.bincount(memory.item, minlength=memory.bounds[-1][1]).astype(np.int64)
        return cls(experts=experts, memory=memory, gate=gate, bucket=support_bucket(support))

    @cached_property
    def zero_shot_N(self) -> npt.NDArray[np.bool_]:  # noqa: N802 (the shape)
        """Which domains no event of the fit lies in."""
        return np.array([not self.bucket[start:stop].any() for start, stop in self.memory.bounds])

    def facts(self, events: Events, queries: Queries, last_s: int | IntArray) -> FloatArray:
        """Return what the gate knows of queries; see ``query_facts``."""
        facts = query_facts(events, queries, last_s, self.memory.past, len(self.memory.bounds))
        # Of a domain that the gate was not fitted on it knows nothing: the weights are those of the mean query.
        facts[self.zero_shot_N[queries.domain], 1:] = self.gate.mean_F[1:].numpy()
        return facts


@dataclass(frozen=True)
class FinalScorer:
    """Scores all items of a domain for some of the queries it was made for."""

    vector_QD: Float[Tensor, "queries dim"]
    vector_RD: Float[Tensor, "rows dim"]
    """All items, by ``item_index``."""
    events: Events
    queries: Queries
    vocabulary: Vocabulary
    scoring: Scoring | None
    """None: the trained score is the final one."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the score columns."""
        return (TRAINED, *(column_names(self.scoring.experts) if self.scoring else ()))

    def scores(self, chosen: IntArray, domain: int) -> Float[Tensor, "columns queries items"]:
        """Return every column's scores of a domain's items."""
        start, stop = self.vocabulary.bounds[domain]
        # One piece of memory for all columns: putting them together afterwards would cost as much as most of them.
        score_XQI = torch.empty(len(self.columns), len(chosen), stop - start)
        torch.mm(self.vector_QD[torch.from_numpy(chosen)], self._item_DR[:, start:stop], out=score_XQI[0])
        if self.scoring is not None:
            memory, experts = self.scoring.memory, self.scoring.experts
            fill_expert_scores(score_XQI[1:].numpy(), memory, experts, self.events, self.queries, chosen, domain)
        return score_XQI

    @cached_property
    def _item_DR(self) -> Tensor:  # noqa: N802 (the shape)
        # A product with rows of items would bring them into this order each time.
        return self.vector_RD.T.contiguous()

    def final(self, score_XQI: Tensor, chosen: IntArray, domain: int) -> Float[Tensor, "queries items"]:
        """Return the final scores, from the columns'."""
        if self.scoring is None:
            return score_XQI[0]
        start, stop = self.vocabulary.bounds[domain]
        bucket_I = torch.from_numpy(self.scoring.bucket[start:stop])
        gate, facts_QF = self.scoring.gate, self._facts[torch.from_numpy(chosen)]
        final_QI: Tensor = gate(score_XQI, facts_QF, bucket_I, gate.cold_boost_SN[AT_FIT, domain])
        return final_QI

    def __call__(self, chosen: IntArray, domain: int) -> Float[Tensor, "queries items"]:
        """Return the final scores of a domain's items."""
        return self.final(self.scores(chosen, domain), chosen, domain)

    @cached_property
    def _facts(self) -> Tensor:
        assert self.scoring is not None
        return torch.from_numpy(self.scoring.facts(self.events, self.queries, self.scoring.memory.last_s))
