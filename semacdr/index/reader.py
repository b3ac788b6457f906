"""Search in a published index."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import polars as pl
from numpy.typing import NDArray

from semacdr.errors import DataError, StoreError, close_names
from semacdr.tables import View, scan_files

FACTS_FILE = "index.json"

# Shapes: Q queries, K neighbours, D width of a vector.


@dataclass(frozen=True)
class Neighbours:
    """The items nearest to each query, best first."""

    item_ids: list[list[str]]
    scores_QK: NDArray[np.float32]


@dataclass(frozen=True)
class ItemIndex:
    """The index of one domain and view."""

    items: pl.DataFrame
    """``position`` and ``item_id``, by position."""
    _index: faiss.Index

    def search(
        self,
        vectors_QD: NDArray[np.float32],
        top_k: int,
        *,
        among: Collection[str] | None = None,
        without: Sequence[Collection[str]] | None = None,
    ) -> Neighbours:
        """Return the ``top_k`` items of highest cosine (fewer when there are fewer).

        Args:
            vectors_QD: the queries.
            top_k: how many items each query gets.
            among: items that are available; None: all. Unknown ones are no matter.
            without: for each query, items that it must not get, such as those already seen.

        Raises:
            DataError: the vectors are of another width, or ``without`` is not one collection a query.
        """
        self._check(vectors_QD, without)
        extra = max((len(seen) for seen in without), default=0) if without else 0
        parameters, available = self._among(among)
        num_found = min(top_k + extra, available)
        if not num_found:
            return Neighbours([[] for _ in vectors_QD], np.empty((len(vectors_QD), 0), np.float32))
        scores_QK, positions_QK = self._index.search(vectors_QD, num_found, params=parameters)
        rows_QK = np.searchsorted(self.items["position"].to_numpy(), positions_QK)
        names_QK = self.items["item_id"].gather(rows_QK.ravel()).to_numpy().reshape(rows_QK.shape)
        kept: list[list[str]] = []
        best_QK = np.full((len(vectors_QD), min(top_k, num_found)), -np.inf, np.float32)
        for query, (row, scores) in enumerate(zip(names_QK, scores_QK, strict=True)):
            seen = without[query] if without else ()
            # FAISS fills up with position -1 where it finds no more.
            chosen = [k for k, name in enumerate(row) if positions_QK[query, k] >= 0 and name not in seen][:top_k]
            kept.append([row[k] for k in chosen])
            best_QK[query, : len(chosen)] = scores[chosen]
        return Neighbours(kept, best_QK)

    def _check(self, vectors_QD: NDArray[np.float32], without: Sequence[Collection[str]] | None) -> None:
        if vectors_QD.shape[1] != self._index.d:
            raise DataError(
                "query vectors do not fit the index",
                found=f"width {vectors_QD.shape[1]}",
                expected=f"width {self._index.d}",
                do="embed the query with the encoder that the embeddings artifact names",
            )
        if without is not None and len(without) != len(vectors_QD):
            raise DataError(
                "items to leave out do not fit the queries",
                found=f"{len(without)} collections",
                expected=f"one for each of {len(vectors_QD)} queries",
            )

    def _among(self, among: Collection[str] | None) -> tuple[faiss.SearchParameters | None, int]:
        """Return what makes FAISS look at these items alone, and how many of them it has."""
        if among is None:
            return None, self.items.height
        wanted = pl.Series("item_id", list(among), dtype=pl.String).unique()
        positions = self.items.filter(pl.col("item_id").is_in(wanted.implode()))["position"].to_numpy()
        selector = faiss.IDSelectorBatch(positions)
        if isinstance(self._index, faiss.IndexIVF):
            # All lists: of few available items none may lie in those that are probed.
            return faiss.SearchParametersIVF(sel=selector, nprobe=self._index.nlist), len(positions)  # type: ignore[call-arg]
        return faiss.SearchParameters(sel=selector), len(positions)  # type: ignore[call-arg]


def read_ids(folder: Path, domain: str, view: str) -> pl.DataFrame:
    """Return position, item_id and, where it is kept, checksum of an index's vectors, by position."""
    table = scan_files(folder / "index_ids.parquet").filter(
        (pl.col("domain") == domain) & (pl.col("view") == str(view))
    )
    return table.drop("domain", "view").sort("position").collect()


def read_facts(folder: Path) -> dict[str, Any]:
    """Return ``<domain>/<view>`` -> kind, vectors, recall and growth of each index; empty if they were not kept."""
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts


def load_index(folder: Path, domain: str, view: View) -> ItemIndex:
    """Open the index of a domain and view, memory-mapped.

    Args:
        folder: the ``index`` artifact.
        domain: one of the data set's.
        view: which text.

    Raises:
        StoreError: there is none, or it does not match its id map.
    """
    file = folder / domain / f"{view}.faiss"
    if not file.is_file():
        domains = [path.name for path in folder.iterdir() if path.is_dir()]
        raise StoreError(f"no index of domain {domain!r}, view {view}", expected=close_names(domain, domains))
    index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
    items = read_ids(folder, domain, view)
    if index.ntotal != items.height:
        raise StoreError(
            f"{file} does not match its id map",
            found=f"{index.ntotal} vectors, {items.height} ids",
            do="the artifact is broken: remove its version and run the index stage again",
        )
    return ItemIndex(items, index)
