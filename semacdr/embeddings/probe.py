"""The domain probe: how well a linear classifier tells from a text's vector which domain the item is of.

Near chance for agnostic texts means that nothing of the domain is left in them to keep a preference from being carried
over; specific texts should give it away. Each domain has the same number of items, so chance is 1 / domains.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float32
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from semacdr.tables import TextSource, View

MAX_ITEMS = 1_500
"""Of each domain: the same items in both views, as far as both have texts."""
MIN_ITEMS = 20
_FOLDS = 5
_RIDGE = 1.0
"""Penalty on squared weights."""

# Shapes: N texts, D width of a vector, C domains.


def probe_domains(rows: pl.DataFrame, vectors_ND: Float32[np.ndarray, "n d"], seed: int = 0) -> dict[str, Any]:
    """Return accuracy per view on the texts that an LLM wrote, and on all texts; empty where there is nothing to tell.

    Args:
        rows: domain, item_id, view and source of each vector.
        vectors_ND: of length 1.
        seed: of the sample and of the folds.
    """
    written = (rows["source"] != TextSource.FALLBACK.value).to_numpy()
    found = {"llm_texts": _accuracies(rows, vectors_ND, written, seed)}
    if not written.all():
        found["all_texts"] = _accuracies(rows, vectors_ND, np.ones_like(written), seed)
    return {which: accuracies for which, accuracies in found.items() if accuracies}


def _accuracies(
    rows: pl.DataFrame, vectors_ND: NDArray[np.float32], is_used_N: NDArray[np.bool_], seed: int
) -> dict[str, float | int]:
    found: dict[str, float | int] = {}
    for view in View:
        places = _sample(rows, is_used_N & (rows["view"] == view.value).to_numpy(), seed)
        if not places:
            return {}
        # The matrices are small: a second thread costs four times what it saves on a busy machine.
        with threadpool_limits(1):
            found[view.value] = round(_accuracy(vectors_ND, places, seed), 4)
        found["chance"] = round(1 / len(places), 4)
        found[f"items_per_domain_{view.value}"] = len(next(iter(places.values())))
    return found


def _sample(rows: pl.DataFrame, is_used_N: NDArray[np.bool_], seed: int) -> dict[str, NDArray[np.int64]]:
    """Return the places of as many texts of each domain; none where a domain has too few, or there is one alone."""
    domains = rows["domain"].to_numpy()
    places = {name: np.flatnonzero(is_used_N & (domains == name)) for name in rows["domain"].unique().sort()}
    size = min([MAX_ITEMS, *(len(listed) for listed in places.values())])
    if len(places) < 2 or size < MIN_ITEMS:  # noqa: PLR2004 (two can be told apart)
        return {}
    rng = np.random.default_rng(seed)
    return {name: np.sort(rng.choice(listed, size, replace=False)) for name, listed in places.items()}


def _accuracy(vectors_ND: NDArray[np.float32], places: dict[str, NDArray[np.int64]], seed: int) -> float:
    """Fit least squares, one domain against the others, on all folds but one, and ask it about that one; the mean."""
    texts_ND = vectors_ND[np.concatenate(list(places.values()))].astype(np.float64)
    texts_ND = np.column_stack([texts_ND, np.ones(len(texts_ND))])
    label_N = np.repeat(np.arange(len(places)), [len(listed) for listed in places.values()])
    rng = np.random.default_rng(seed)
    # Of each domain as many in each fold, but for one.
    fold_N = np.concatenate([rng.permutation(len(listed)) % _FOLDS for listed in places.values()])
    target_NC = np.where(label_N[:, None] == np.arange(len(places)), 1.0, -1.0)
    ridge_DD = _RIDGE * np.diag([*np.ones(texts_ND.shape[1] - 1), 0])
    # The sums of all folds less those of one: each text is multiplied once, not once for each fold.
    of_folds = [(texts_ND[fold_N == fold], target_NC[fold_N == fold]) for fold in range(_FOLDS)]
    products = [(x_ND.T @ x_ND, x_ND.T @ y_NC) for x_ND, y_NC in of_folds]
    all_DD, all_DC = (sum(parts) for parts in zip(*products, strict=True))
    shares = []
    for (x_ND, y_NC), (of_fold_DD, of_fold_DC) in zip(of_folds, products, strict=True):
        weight_DC = np.linalg.solve(all_DD - of_fold_DD + ridge_DD, all_DC - of_fold_DC)
        shares.append(((x_ND @ weight_DC).argmax(axis=1) == y_NC.argmax(axis=1)).mean())
    return float(np.mean(shares))
