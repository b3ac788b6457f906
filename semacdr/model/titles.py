"""Items' titles as TF-IDF vectors, and which titles are alike."""

# Shapes: R items and the padding, N new ones, V words.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from semacdr.errors import DataError
from semacdr.model.histories import IntArray
from semacdr.model.popularity import FloatArray
from semacdr.model.vocabulary import Vocabulary
from semacdr.tables import scan_files, table_files

SIMILAR, LEAST_SIMILAR = 10, 0.2
"""How many items of a domain count as similar to one of them, and the least cosine of their titles."""
_ROWS = 1_024
"""Items that are compared with all others of their domain at a time."""

Cosines = tuple[IntArray, IntArray, FloatArray]
"""Of pairs: ``item_index`` of one, of the other, the cosine of their titles."""


@dataclass(frozen=True)
class Titles:
    """The titles of all items."""

    words: tuple[str, ...]
    """Of the titles of all items when the model was trained, those that nobody had taken, too: a column each."""
    idf: FloatArray
    tfidf_RV: sparse.csr_matrix
    """By ``item_index``, rows of length 1 (or 0: no title)."""
    similar_RR: sparse.csr_matrix
    """The cosines of each item with the ``SIMILAR`` of its domain whose titles are most like its own; else 0."""

    @classmethod
    def of(cls, texts_R: Sequence[str], bounds: Sequence[tuple[int, int]]) -> Titles:
        """Read the titles by ``item_index`` of items whose domains have some bounds; empty where there is none."""
        words, idf = title_words(texts_R)
        tfidf_RV = title_tfidf(texts_R, words, idf)
        domains = [np.arange(start, stop) for start, stop in bounds]
        parts = [part for items in domains for part in _similar(tfidf_RV, items, items)]
        return cls(words=words, idf=idf, tfidf_RV=tfidf_RV, similar_RR=_square(parts, len(texts_R)))

    def with_new(
        self, texts_N: Sequence[str], places: tuple[IntArray, IntArray], bounds: Sequence[tuple[int, int]]
    ) -> Titles:
        """Return the same titles and new ones, by the words that are known.

        A new item is similar to the known ones most like it, and they to it. Between known items nothing changes, for
        their scores are not to move.

        Args:
            texts_N: the new.
            places: where the known and the new lie among all, by ``item_index``.
            bounds: of the domains among all.
        """
        place_R, place_N = places
        order = np.argsort(np.concatenate(places))
        tfidf = sparse.vstack([self.tfidf_RV, title_tfidf(texts_N, self.words, self.idf)], format="csr")[order]
        before = self.similar_RR.tocoo()
        parts = [(place_R[before.row], place_R[before.col], before.data)]
        for start, stop in bounds:
            new, known = (place[(place >= start) & (place < stop)] for place in (place_N, place_R))
            for row, item, cosine in _similar(tfidf, new, known):
                parts += [(row, item, cosine), (item, row, cosine)]
        return Titles(words=self.words, idf=self.idf, tfidf_RV=tfidf, similar_RR=_square(parts, tfidf.shape[0]))

    def arrays(self) -> dict[str, Any]:
        """Return them as arrays for a checkpoint."""
        return {
            **_parts("title", self.tfidf_RV),
            **_parts("similar", self.similar_RR),
            # No word holds a line's end.
            "title_words": np.frombuffer("\n".join(self.words).encode(), np.uint8).copy(),
            "title_idf": self.idf,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Titles:
        """Return what ``arrays`` made.

        Raises:
            KeyError: an array is missing.
        """
        words = tuple(arrays["title_words"].tobytes().decode().split())
        size = len(arrays["title_indptr"]) - 1
        return cls(
            words=words,
            idf=arrays["title_idf"],
            tfidf_RV=_matrix("title", arrays, (size, max(len(words), 1))),
            similar_RR=_matrix("similar", arrays, (size, size)),
        )


def read_titles(items: Path) -> pl.DataFrame:
    """Return domain, item_id and title of all items of an artifact.

    Raises:
        DataError: it holds none.
    """
    files = table_files(items, "items")
    if not files:
        raise DataError("items: table items has no file", expected=f"items.parquet in {items}", do="run ingest again")
    columns = ["domain", "item_id", "title"]
    return pl.concat(scan_files(file).select(columns).collect() for file in files)


def title_texts(titles: pl.DataFrame, vocabulary: Vocabulary) -> list[str]:
    """Return the titles by ``item_index``; empty where there is none."""
    joined = vocabulary.table.join(titles, on=["domain", "item_id"], how="left", maintain_order="left")
    return ["", *joined["title"].fill_null("").to_list()]


def title_words(texts: Sequence[str]) -> tuple[tuple[str, ...], FloatArray]:
    """Return the words of some titles, and how much each weighs by the titles that hold it."""
    vectoriser = _vectoriser(None)
    try:
        vectoriser.fit(texts)
    except ValueError:
        # scikit-learn's only word for it: not one word is in them.
        return (), np.empty(0, np.float32)
    return tuple(vectoriser.get_feature_names_out()), vectoriser.idf_


def title_tfidf(texts: Sequence[str], words: Sequence[str], idf: FloatArray) -> sparse.csr_matrix:
    """Return the TF-IDF vectors of titles by words and their weights; what is no such word does not count."""
    if not words:
        return sparse.csr_matrix((len(texts), 1), dtype=np.float32)
    vectoriser = _vectoriser(words)
    vectoriser.idf_ = idf
    return vectoriser.transform(texts).tocsr()


def _vectoriser(words: Sequence[str] | None) -> TfidfVectorizer:
    return TfidfVectorizer(
        sublinear_tf=True,
        token_pattern=r"(?u)\w+",  # noqa: S106
        dtype=np.float32,
        vocabulary=words,
    )


def _similar(tfidf_RV: sparse.csr_matrix, some: IntArray, others: IntArray) -> Iterator[Cosines]:
    """Yield the cosines of some items with the ``SIMILAR`` others most like each; of equal ones the first."""
    by_word = tfidf_RV[others].T.tocsr()
    for first in range(0, len(some), _ROWS):
        rows = some[first : first + _ROWS]
        found = (tfidf_RV[rows] @ by_word).tocoo()
        row, item, cosine = rows[found.row], others[found.col], found.data
        kept = np.flatnonzero((cosine >= LEAST_SIMILAR) & (row != item))
        order = kept[np.lexsort((item[kept], -cosine[kept], row[kept]))]
        best = order[np.arange(len(order)) - np.searchsorted(row[order], row[order]) < SIMILAR]
        yield row[best], item[best], cosine[best]


def _square(parts: Sequence[Cosines], size: int) -> sparse.csr_matrix:
    nothing: Cosines = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    row, item, cosine = (np.concatenate(column) for column in zip(nothing, *parts, strict=True))
    return sparse.csr_matrix((cosine, (row, item)), shape=(size, size))


def _parts(name: str, matrix: sparse.csr_matrix) -> dict[str, Any]:
    return {
        f"{name}_data": matrix.data.astype(np.float32),
        f"{name}_indices": matrix.indices.astype(np.int32),
        f"{name}_indptr": matrix.indptr.astype(np.int64),
    }


def _matrix(name: str, arrays: Mapping[str, Any], shape: tuple[int, int]) -> sparse.csr_matrix:
    return sparse.csr_matrix(tuple(arrays[f"{name}_{part}"] for part in ("data", "indices", "indptr")), shape=shape)
