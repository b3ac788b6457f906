"""The last events of histories that score experts look at."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from semacdr.model.histories import Events, IntArray, Queries, ragged
from semacdr.model.popularity import FloatArray

RECENT = 10
"""Items of the history that transitions and texts look at."""
RECENT_DECAY = 0.8
"""Weight of each of them, relative to the one after it (amazon-food-kitchen, validation: docs/log.md)."""


@dataclass(frozen=True)
class Asked:
    """The queries of one call, with the last events of their histories."""

    time_s: IntArray
    row: IntArray
    """Of each recent event, its query."""
    item: IntArray
    weight: FloatArray
    """The decay to the power of how many of them came after it."""

    @classmethod
    def of(
        cls,
        events: Events,
        queries: Queries,
        chosen: IntArray,
        *,
        mixed: bool,
        recent: int = RECENT,
        decay: float = RECENT_DECAY,
    ) -> "Asked":
        """Collect the last ``recent`` events of some queries' histories.

        Unless ``mixed``, those of other domains are there only where the own has none.
        """
        row, index = ragged(events.offsets[queries.user[chosen]], queries.stop[chosen])
        if not mixed:
            is_own = events.domain[index] == queries.domain[chosen][row]
            has_own = np.bincount(row[is_own], minlength=len(chosen)) > 0
            looked_at = is_own | ~has_own[row]
            row, index = row[looked_at], index[looked_at]
        num_after = np.searchsorted(row, row, side="right") - 1 - np.arange(len(row))
        kept = num_after < recent
        weight = (decay ** num_after[kept]).astype(np.float32)
        return cls(time_s=queries.time_s[chosen], row=row[kept], item=events.item[index[kept]], weight=weight)

    def __len__(self) -> int:
        return len(self.time_s)

    def profile(self, num_items: int) -> sparse.csr_matrix:
        """Return the queries as weighted sums of items."""
        return sparse.csr_matrix((self.weight, (self.row, self.item)), shape=(len(self), num_items))
