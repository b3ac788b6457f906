from __future__ import annotations

import numpy as np
import pytest

from semacdr.embeddings import fit_whitening


def cone(rows: int, seed: int = 0) -> np.ndarray:
    """Vectors that share a mean and have directions of very different spread, as text vectors do."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(rows, 8)) * np.geomspace(1, 0.01, 8) + 3).astype(np.float32)


def test_whitened_vectors_have_mean_zero_and_unit_covariance():
    vectors = cone(500)
    whitened = fit_whitening(vectors, dim=4, floor=0).apply(vectors)
    np.testing.assert_allclose(whitened.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(4), atol=1e-2)


def test_floor_keeps_small_directions_small():
    vectors = cone(500)
    free = fit_whitening(vectors, dim=8, floor=0).apply(vectors).std(axis=0)
    floored = fit_whitening(vectors, dim=8, floor=0.1).apply(vectors).std(axis=0)
    assert free.min() > 0.9
    assert floored[-1] < 0.2


@pytest.mark.parametrize(("rows", "dim", "width"), [(500, 100, 8), (3, 100, 2), (500, 3, 3)])
def test_width_is_bounded_by_dimensions_and_items(rows: int, dim: int, width: int):
    assert fit_whitening(cone(rows), dim, floor=1e-3).components_DK.shape == (8, width)


def test_one_item_leaves_vectors_as_they_are():
    vectors = cone(1)
    np.testing.assert_array_equal(fit_whitening(vectors, dim=4, floor=1e-3).apply(vectors), vectors)


def test_row_order_changes_nothing_but_rounding():
    vectors = cone(200)
    shuffled = vectors[np.random.default_rng(1).permutation(200)]
    first, second = (fit_whitening(rows, dim=4, floor=1e-3) for rows in (vectors, shuffled))
    np.testing.assert_allclose(first.apply(vectors), second.apply(vectors), rtol=1e-3, atol=1e-3)


def test_identical_vectors_do_not_divide_by_zero():
    whitening = fit_whitening(np.ones((5, 8), np.float32), dim=4, floor=1e-3)
    assert np.isfinite(whitening.apply(np.ones((5, 8), np.float32))).all()
