"""The score gate: how much the trained score and each expert count, for this user, at this time, on this kind of item.

The final score is linear in what goes into it:

    s(u, i) = sum over columns x of  (A_x . facts(u) + C_x[support(i)]) s_x(u, i)  +  b[support(i)]
              + a . facts(u) for cold items
              + sum over half-lives h <= k of  T_hk p_h(i) p_k(i)

with the trained score as the first column; users differ in whether they take what nobody has taken, too. The last line
is the trend: p_h is how far an item's popularity of one half-life lies above none, and their products tell what rises
from what was and what always is. So fitting it by softmax cross-entropy is a convex problem with one solution (a
conditional logit, McFadden 1974, section II), the same on every machine and in every order.
"""

# Shapes: Q queries, I items, X columns (the trained score first), F facts, C candidates, B support buckets,
# S sights (AT_FIT, UP_TO_DATE), N domains, H half-lives of popularity, G pairs of them.

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from semacdr.model.config import Expert
from semacdr.model.experts import COLUMNS, column_names
from semacdr.model.histories import SECONDS_PER_DAY, Events, IntArray, Queries
from semacdr.model.popularity import SMALLEST, FloatArray, PastPopularity

SUPPORT_EDGES = (1, 6, 21)
"""Items are cold, of 1-5, of 6-20 or of more events (research 3.2-7)."""
NUM_BUCKETS = len(SUPPORT_EDGES) + 1
AT_FIT, UP_TO_DATE = 0, 1
"""How old the experts' memory is: as the fit, or of now."""
NUM_FACTS, POPULARITY_FACTS = 8, slice(6, 8)
"""One; log counts of the own and the other domains' history; log days since the last event of each; log days since the
last event that the experts remember; how popular what the user took was at that time, in the own and the other domains.
"""


def query_facts(
    events: Events, queries: Queries, last_s: int | IntArray, past: PastPopularity, num_domains: int
) -> FloatArray:
    """Return what the gate knows of each query: ``NUM_FACTS`` numbers, then which domain is asked for.

    Args:
        events: in which histories lie.
        queries: at their times.
        last_s: time of the last event that the experts remember, for all queries or for each.
        past: what they remember of popularity.
        num_domains: how many there are.
    """
    first, stop = events.offsets[queries.user], queries.stop
    facts = np.zeros((len(queries), NUM_FACTS + num_domains), np.float32)
    facts[:, 0] = 1
    event_s = events.time_s if len(events.time_s) else np.zeros(1, np.int64)
    popularity, is_known = past.when_taken(events)
    # Sums of what was taken, in the own and in the other domains, and of how much that was.
    taken_2Q, num_taken_2Q = np.zeros((2, len(queries))), np.zeros((2, len(queries)))
    for domain in range(num_domains):
        here = events.domain == domain
        before = np.concatenate([[0], np.cumsum(here)])
        count = before[stop] - before[first]
        latest = np.maximum.accumulate(np.concatenate([[-1], np.where(here, np.arange(len(here)), -1)]))
        last = latest[stop]
        days = np.where(count > 0, (queries.time_s - event_s[last.clip(min=0)]) / SECONDS_PER_DAY, 0.0)
        own = queries.domain == domain
        facts[own, 1] += count[own]
        facts[~own, 2] += count[~own]
        facts[own, 3] = days[own]
        source = ~own & (count > 0)
        nearest = np.where(facts[:, 4] > 0, np.minimum(facts[:, 4], days), days)
        facts[source, 4] = nearest[source]
        facts[own, NUM_FACTS + domain] = 1
        for place, at in enumerate((own, ~own)):
            for sums, values in ((taken_2Q, popularity * (here & is_known)), (num_taken_2Q, here & is_known)):
                total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
                sums[place, at] += (total[stop] - total[first])[at]
    facts[:, 5] = (queries.time_s - last_s).clip(min=0) / SECONDS_PER_DAY
    facts[:, 1:6] = np.log1p(facts[:, 1:6])
    # A mean drawn to 0 by one event that nobody else took: of few events little follows.
    facts[:, POPULARITY_FACTS] = (taken_2Q / (num_taken_2Q + 1)).T
    return facts


def support_bucket(support: IntArray) -> IntArray:
    """Return the bucket of each item's support."""
    return np.searchsorted(SUPPORT_EDGES, support, side="right").astype(np.int64)


class ScoreGate(nn.Module):
    """The weights of the columns; a fresh gate passes the trained score on as it is."""

    mean_F: Tensor
    scale_F: Tensor
    low_F: Tensor
    high_F: Tensor
    cold_boost_SN: Tensor
    """Added to the final score of a domain's cold items, with the memory of the fit and with one that is up to date."""

    def __init__(self, num_columns: int, num_domains: int, num_half_lives: int = 0) -> None:
        """Make a fresh gate; the columns after the trained score are popularity of so many half-lives."""
        super().__init__()
        num_facts = NUM_FACTS + num_domains
        self.popularity = slice(1, 1 + num_half_lives)
        self.register_buffer("mean_F", torch.zeros(num_facts))
        self.register_buffer("scale_F", torch.ones(num_facts))
        self.register_buffer("low_F", torch.full((num_facts,), -torch.inf))
        self.register_buffer("high_F", torch.full((num_facts,), torch.inf))
        self.register_buffer("cold_boost_SN", torch.zeros(2, num_domains))
        self.by_fact = nn.Parameter(torch.zeros(num_columns, num_facts))
        with torch.no_grad():
            self.by_fact[0, 0] = 1
        self.cold_by_fact = nn.Parameter(torch.zeros(num_facts))
        self.by_support = nn.Parameter(torch.zeros(num_columns, NUM_BUCKETS))
        self.bias = nn.Parameter(torch.zeros(NUM_BUCKETS))
        self.by_pair = nn.Parameter(torch.zeros(num_half_lives * (num_half_lives + 1) // 2))

    @classmethod
    def of(cls, experts: Sequence[Expert], num_domains: int) -> "ScoreGate":
        """Make a fresh gate for the trained score and the columns of some experts."""
        num_half_lives = len(COLUMNS[Expert.POPULARITY]) if Expert.POPULARITY in experts else 0
        return cls(1 + len(column_names(experts)), num_domains, num_half_lives)

    def standardise(self, facts_QF: Float[Tensor, "queries facts"]) -> None:
        """Measure facts from their mean over these queries, in their spread; the constant stays.

        What lies beyond all of these queries counts as the farthest of them: a line fitted here says nothing there.
        """
        self.mean_F[1:] = facts_QF[:, 1:].mean(dim=0)
        self.scale_F[1:] = facts_QF[:, 1:].std(dim=0, unbiased=False).clamp(min=1e-3)
        self.low_F.copy_(facts_QF.amin(dim=0))
        self.high_F.copy_(facts_QF.amax(dim=0))

    def measured(self, facts_QF: Float[Tensor, "queries facts"]) -> Float[Tensor, "queries facts"]:
        """Return facts as ``standardise`` says."""
        return (facts_QF.clamp(self.low_F, self.high_F) - self.mean_F) / self.scale_F

    def weights(self, facts_QF: Float[Tensor, "queries facts"]) -> Float[Tensor, "queries columns"]:
        """Return the part of each column's weight that depends on the query."""
        return self.measured(facts_QF) @ self.by_fact.T

    def cold(self, facts_QF: Float[Tensor, "queries facts"]) -> Float[Tensor, "queries 1"]:
        """Return what is added to the scores of cold items."""
        return (self.measured(facts_QF) @ self.cold_by_fact)[:, None]

    def trend(self, popularity: Float[Tensor, "half_lives ..."]) -> Float[Tensor, "..."]:
        """Return what the columns of popularity say together."""
        above = above_none(popularity)
        form_HH = above.new_zeros(len(above), len(above))
        form_HH[tuple(torch.triu_indices(len(above), len(above)))] = self.by_pair
        trend: Tensor = (torch.tensordot(form_HH, above, dims=1) * above).sum(dim=0)
        return trend

    def forward(
        self,
        score_XQI: Float[Tensor, "columns queries items"],
        facts_QF: Float[Tensor, "queries facts"],
        bucket: Int[Tensor, "*queries items"],
        cold_boost: Tensor,
    ) -> Float[Tensor, "queries items"]:
        """Return the final scores of items for queries.

        Args:
            score_XQI: of the same items for all queries, or of each query's own.
            facts_QF: of the queries.
            bucket: the items' support, for all queries or for each.
            cold_boost: one of ``cold_boost_SN``.
        """
        weight_QX = self.weights(facts_QF)
        total_QI = self.bias[bucket] + (cold_boost + self.cold(facts_QF)) * (bucket == 0)
        for column, score_QI in enumerate(score_XQI):
            total_QI.addcmul_(weight_QX[:, column, None] + self.by_support[column][bucket], score_QI)
        return total_QI + self.trend(score_XQI[self.popularity])


def above_none(popularity: Tensor) -> Tensor:
    """Return how far logarithms of shares lie above that of an item without events."""
    return popularity - math.log(SMALLEST)
