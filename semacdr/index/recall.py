"""How much of what an exact search finds an index finds, too; the exact search is done in blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from semacdr.index.vectors import Vectors

# Shapes: N vectors, D width of a vector, Q sampled queries, K neighbours.

SAMPLE = 500
"""Vectors of which recall is measured."""
DEPTHS = (10, 100)
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Truth:
    """Sampled queries, and the score of each one's K-th best vector, by K."""

    vectors: Vectors
    queries_QD: NDArray[np.float32]
    worst_Q: Mapping[int, NDArray[np.float32]]

    @classmethod
    def of(cls, vectors: Vectors) -> Truth:
        """Search exactly, a batch of vectors at a time."""
        count = len(vectors.item_ids)
        queries_QD = vectors.sample(min(SAMPLE, count))
        depth = min(max(DEPTHS), count)
        best_QK = np.full((len(queries_QD), depth), -np.inf, np.float32)
        for _, vectors_ND in vectors.batches():
            together = np.concatenate([best_QK, queries_QD @ vectors_ND.T], axis=1)
            best_QK = -np.partition(-together, depth - 1, axis=1)[:, :depth]
        best_QK = -np.sort(-best_QK, axis=1)
        return cls(vectors, queries_QD, {wanted: best_QK[:, min(wanted, count) - 1] for wanted in DEPTHS})

    def recalls(self, index: faiss.Index, place_of: NDArray[np.int64]) -> dict[str, float]:
        """Return recall at each depth: the share of the exact search's K best that are found.

        What is found counts by its exact score: copies of one text tie.

        Args:
            index: to be measured.
            place_of: of each of its positions, the place in the vectors.
        """
        count, most = len(self.vectors.item_ids), max(DEPTHS)
        _, positions_QK = index.search(self.queries_QD, min(most, count))
        places_QK = np.where(positions_QK >= 0, place_of[positions_QK], -1)
        score_QK = np.full(places_QK.shape, -np.inf, np.float32)
        for places, vectors_ND in self.vectors.batches():
            query, column = np.nonzero((places_QK >= places[0]) & (places_QK <= places[-1]))
            found_MD = vectors_ND[places_QK[query, column] - places[0]]
            score_QK[query, column] = np.einsum("md,md->m", self.queries_QD[query], found_MD)
        recalls = {}
        for depth in DEPTHS:
            wanted = min(depth, count)
            hits = score_QK[:, :wanted] >= self.worst_Q[depth][:, None] - _ROUNDING
            recalls[f"recall_{depth}"] = float(hits.mean())
        return recalls
