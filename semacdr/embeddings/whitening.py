"""PCA whitening of text vectors.

Sentence vectors of one catalogue fill a narrow cone: their mean and first few directions carry what all of them
share. Whitening takes both away (UniSRec, KDD 2022; LLM-RecG, RecSys 2025, on collapse without it).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Shapes: N items, D width of a vector, K width of a whitened one.


@dataclass(frozen=True)
class Whitening:
    """``whitened_NK = (vectors_ND - mean_D) @ components_DK``."""

    mean_D: NDArray[np.float32]
    components_DK: NDArray[np.float32]

    def apply(self, vectors_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the whitened vectors, one row of K numbers each."""
        return ((vectors_ND - self.mean_D) @ self.components_DK).astype(np.float32)

    @property
    def digest(self) -> str:
        """Fingerprint of the numbers themselves."""
        return hashlib.sha256(self.mean_D.tobytes() + self.components_DK.tobytes()).hexdigest()


def fit_whitening(vectors_ND: NDArray[np.float32], dim: int, floor: float) -> Whitening:
    """Fit the whitening on the vectors of items that training may see.

    Args:
        vectors_ND: their vectors. With fewer than two of them there is nothing to fit, and vectors stay as they are.
        dim: K at most; less when there are fewer dimensions or items.
        floor: smallest eigenvalue that is divided by, as a share of the mean eigenvalue.
    """
    num_items, width = vectors_ND.shape
    if num_items < 2:  # noqa: PLR2004 (a covariance needs two)
        return Whitening(np.zeros(width, np.float32), np.eye(width, dtype=np.float32))
    mean_D = vectors_ND.mean(axis=0, dtype=np.float64)
    centred_ND = vectors_ND - mean_D
    values_D, vectors_DD = np.linalg.eigh(centred_ND.T @ centred_ND / (num_items - 1))
    kept = np.argsort(values_D)[::-1][: min(dim, width, num_items - 1)]
    # Identical vectors have no spread at all: rounding noise is not blown up to one.
    scale_K = 1 / np.sqrt(np.maximum(values_D[kept], max(floor * values_D.mean(), 1e-12)))
    basis_DK = vectors_DD[:, kept]
    # An eigenvector's sign is arbitrary: fix it, so that every machine gives the same one.
    basis_DK = basis_DK * np.sign(basis_DK[np.abs(basis_DK).argmax(axis=0), np.arange(len(kept))])
    return Whitening(mean_D.astype(np.float32), (basis_DK * scale_K).astype(np.float32))
