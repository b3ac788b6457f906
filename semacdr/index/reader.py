"""Search in a published index."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import polars as pl
from numpy.typing import NDArray

from semacdr.errors import DataError, StoreError, close_names
from semacdr.tables import View

# Shapes: Q queries, K neighbours, D width of a vector.


@dataclass(frozen=True)
class Neighbours:
    """The items nearest to each query, best first."""

    item_ids: list[list[str]]
    scores_QK: NDArray[np.float32]


@dataclass(frozen=True)
class ItemIndex:
    """The index of one domain and view."""

    item_ids: list[str]
    _index: faiss.Index

    def search(self, vectors_QD: NDArray[np.float32], top_k: int) -> Neighbours:
        """Return the ``top_k`` items of highest cosine (fewer when the domain has fewer).

        Raises:
            DataError: the vectors are of another width.
        """
        if vectors_QD.shape[1] != self._index.d:
            raise DataError(
                "query vectors do not fit the index",
                found=f"width {vectors_QD.shape[1]}",
                expected=f"width {self._index.d}",
                do="embed the query with the encoder that the embeddings artifact names",
            )
        scores_QK, positions_QK = self._index.search(vectors_QD, min(top_k, len(self.item_ids)))
        return Neighbours([[self.item_ids[p] for p in row] for row in positions_QK], scores_QK)


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
    ids = (
        pl.scan_parquet(folder / "index_ids.parquet")
        .filter((pl.col("domain") == domain) & (pl.col("view") == str(view)))
        .sort("position")
        .collect()["item_id"]
        .to_list()
    )
    if index.ntotal != len(ids):
        raise StoreError(
            f"{file} does not match its id map",
            found=f"{index.ntotal} vectors, {len(ids)} ids",
            do="the artifact is broken: remove its version and run the index stage again",
        )
    return ItemIndex(ids, index)
