"""Items on a plane, one for each view: the two directions in which their vectors differ most (PCA)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float
from numpy.typing import NDArray

from semacdr.store import Artifact
from semacdr.tables import View

MAP_ITEMS = 2_000
"""Of all domains together, as many of each, the same items on every plane: a drawn sample of those with both texts."""
FUSED = "fused"
"""The plane of the vectors that the model scores with."""
_FEWEST_ITEMS = 3
"""With fewer there is no plane to choose."""
_SCALE = 1_000
"""Coordinates are whole numbers up to it."""
_TITLE_CHARS = 80
_KEYS = ["domain", "item_id"]

# Shapes: N items, D width of a vector.


def maps(inputs: Mapping[str, Artifact], seed: int = 0) -> dict[str, Any]:
    """Return the drawn items (domain, item_id, title) and per view their coordinates and the variance that each shows.

    Both are empty where next to no item has both texts.

    Args:
        inputs: ``embeddings``, ``item_vectors`` and ``items``.
        seed: of the sample.
    """
    chosen = _sample(inputs, seed)
    if chosen.height < _FEWEST_ITEMS:
        return {"items": [], "views": {}, "scale": _SCALE}
    titles = chosen.lazy().join(inputs["items"].scan().select(*_KEYS, "title"), on=_KEYS, how="left").sort(_KEYS)
    items = titles.with_columns(pl.col("title").str.slice(0, _TITLE_CHARS)).collect()
    texts = _of(chosen, inputs["embeddings"].scan().with_columns(pl.col("view").cast(pl.String)))
    vectors = {view.value: texts.filter(view=view.value) for view in View} | {
        FUSED: _of(chosen, inputs["item_vectors"].scan())
    }
    planes = {view: _plane(found["vector"].to_numpy()) for view, found in vectors.items()}
    return {"items": items.rows(), "views": planes, "scale": _SCALE}


def _of(chosen: pl.DataFrame, rows: pl.LazyFrame) -> pl.DataFrame:
    return rows.join(chosen.lazy(), on=_KEYS, how="semi").sort(_KEYS).collect()


def _sample(inputs: Mapping[str, Artifact], seed: int) -> pl.DataFrame:
    views = inputs["embeddings"].scan().group_by(_KEYS).len().filter(pl.col("len") == len(View))
    both = views.join(inputs["item_vectors"].scan(), on=_KEYS, how="semi").select(_KEYS).sort(_KEYS).collect()
    rng = np.random.default_rng(seed)
    of_domain = both.partition_by("domain", maintain_order=True)
    size = MAP_ITEMS // max(len(of_domain), 1)
    drawn = [frame[np.sort(rng.choice(frame.height, min(size, frame.height), replace=False))] for frame in of_domain]
    return pl.concat(drawn) if drawn else both


def _plane(vectors_ND: Float[np.ndarray, "n d"]) -> dict[str, Any]:
    # Imported here: it takes a second, and most commands draw nothing.
    from sklearn.decomposition import PCA  # noqa: PLC0415
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    with threadpool_limits(1):
        fitted = PCA(n_components=2, svd_solver="covariance_eigh")
        at_N2: NDArray[np.float64] = fitted.fit_transform(vectors_ND.astype(np.float64))
    largest = max(float(np.abs(at_N2).max()), np.finfo(np.float64).tiny)
    whole_N2 = np.rint(at_N2 / largest * _SCALE).astype(int)
    share = fitted.explained_variance_ratio_.round(4).tolist()
    return {"x": whole_N2[:, 0].tolist(), "y": whole_N2[:, 1].tolist(), "variance": share}
