"""Does having a written text tell which items will be asked for? It does when texts were given by later popularity."""

# Shapes: I1 items and the padding.

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from semacdr.model.histories import IntArray
from semacdr.model.vocabulary import Vocabulary
from semacdr.tables import TextSource, scan_files, table_files

Z_LIMIT = 3.0
"""Standard deviations: by chance one run in about 700 goes beyond, upwards."""
MIN_TARGETS = 10
"""Fewer targets say nothing."""


@dataclass(frozen=True)
class WrittenTexts:
    """Which items were given a text by a writer; the others have their own words or none."""

    has_words_I1: npt.NDArray[np.bool_]
    """The item has any text: only such could be given one."""
    is_written_I1: npt.NDArray[np.bool_]


def written_texts(folder: Path, vocabulary: Vocabulary) -> WrittenTexts:
    """Read a ``semantics`` artifact; items that the vocabulary lacks are left out."""
    rows = pl.concat(
        scan_files(file).select("domain", "item_id", "source").collect() for file in table_files(folder, "semantics")
    ).with_columns(pl.col("domain", "source").cast(pl.String))
    items = rows.group_by("domain", "item_id").agg(
        is_written=(pl.col("source") != TextSource.FALLBACK.value).any(),
    )
    known = vocabulary.table.join(items, on=["domain", "item_id"], how="left", maintain_order="left")
    written = known["is_written"]
    return WrittenTexts(
        has_words_I1=np.concatenate([[False], written.is_not_null().to_numpy()]),
        is_written_I1=np.concatenate([[False], written.fill_null(value=False).to_numpy()]),
    )


def text_finding(written: WrittenTexts, support_I1: IntArray, targets: IntArray) -> tuple[bool, str]:
    """Tell whether a written text predicts validation targets among items that training cannot tell apart.

    Items are compared with others of exactly the same support, by the Cochran-Mantel-Haenszel statistic (Mantel and
    Haenszel 1959) over all supports, and once more over the cold items alone, of which training knows nothing at all.

    Returns:
        Whether either lies more than ``Z_LIMIT`` above chance, and what was found, in words.
    """
    asked_I1 = np.zeros(len(support_I1), bool)
    asked_I1[targets] = True
    cold_I1 = written.has_words_I1 & (support_I1 == 0)
    z_all = _z(written.is_written_I1, asked_I1, np.where(written.has_words_I1, support_I1, -1))
    z_cold = _z(written.is_written_I1, asked_I1, np.where(cold_I1, 0, -1))
    num_cold = int((cold_I1 & asked_I1).sum())
    cold = "no cold validation target has words"
    if num_cold:
        share, among = written.is_written_I1[cold_I1 & asked_I1].mean(), written.is_written_I1[cold_I1].mean()
        cold = f"of {num_cold} cold validation targets {share:.0%} have a written text, of all cold items {among:.0%}"
    found = f"{cold} (z {z_cold:.1f}); at equal training support, z {z_all:.1f}"
    flattering = max(z_all, z_cold) > Z_LIMIT
    return flattering, f"a written text tells the future: {found}" if flattering else found


def _z(is_written: npt.NDArray[np.bool_], is_asked: npt.NDArray[np.bool_], stratum: IntArray) -> float:
    """Standard deviations by which written items are asked for more often than others of their stratum (-1: none)."""
    kept = stratum >= 0
    place = np.unique(stratum[kept], return_inverse=True)[1]
    size = np.bincount(place).astype(np.float64)
    written, asked = (np.bincount(place, flags[kept], minlength=len(size)) for flags in (is_written, is_asked))
    both = np.bincount(place, (is_written & is_asked)[kept], minlength=len(size))
    if asked.sum() < MIN_TARGETS:
        return 0.0
    excess = (both - written * asked / size.clip(min=1)).sum()
    variance = written * (size - written) * asked * (size - asked) / (size**2 * (size - 1).clip(min=1))
    return float(excess / np.sqrt(variance.sum())) if variance.sum() > 0 else 0.0
