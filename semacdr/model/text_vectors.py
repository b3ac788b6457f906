"""The frozen text vectors of all items, read from an ``embeddings`` artifact and placed by ``item_index``."""

# Shape suffixes: I1 items and the padding, V items that training may see, K whitened width, E encoder width.

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import Tensor

from semacdr.errors import DataError, StoreError
from semacdr.model.config import ModelConfig
from semacdr.model.vocabulary import Vocabulary
from semacdr.tables import WHITENING_FILE, View, scan_files, table_files

ZSCORE_FLOOR = 1e-3
"""Smallest variance that is divided by, as a share of the mean one (the floor of PCA whitening: research 5.1)."""


class Standard(NamedTuple):
    """What ``zscore`` measures vectors from and by; 0 and 1 for what measures otherwise."""

    mean_E: Float[Tensor, " encoder"]
    scale_E: Float[Tensor, " encoder"]


@dataclass(frozen=True)
class TextVectors:
    """One view of every item; rows of items without a text are zero."""

    whitened_I1K: Float[Tensor, "items1 whitened"]
    present_I1: Bool[Tensor, " items1"]
    raw_I1E: Float[Tensor, "items1 encoder"]
    """As the encoder gave them; not part of a checkpoint."""
    directions_EK: Float[Tensor, "encoder whitened"] | None = None
    """Unit vectors that the whitened numbers are measured along; None: the encoder's own."""

    def standard(self, config: ModelConfig, support_I1: Int[Tensor, " items1"]) -> Standard:
        """Return what the vectors are measured from and by.

        Args:
            config: of the model.
            support_I1: events of each item that its fit may see; what has none is in no statistic.
        """
        visible_I1 = self.present_I1 & (support_I1 > 0)
        if config.whitening != "zscore" or visible_I1.sum() < 2:  # noqa: PLR2004 (a variance needs two)
            return Standard(torch.zeros(1), torch.ones(1))
        variance_E, mean_E = torch.var_mean(self.raw_I1E[visible_I1].double(), dim=0)
        # A number that is the same everywhere has no spread: rounding noise is not blown up to one.
        scale_E = variance_E.clamp(min=max(ZSCORE_FLOOR * float(variance_E.mean()), 1e-12)).rsqrt()
        return Standard(mean_E.float(), scale_E.float())

    def for_model(self, config: ModelConfig, standard: Standard) -> Float[Tensor, "items1 text"]:
        """Return the vectors as ``config.whitening`` wants them; rows of items without a text are zero."""
        match config.whitening:
            case "none":
                return self.raw_I1E
            case "pca":
                return self.whitened_I1K
            case "zca":
                return self.whitened_I1K if self.directions_EK is None else self.whitened_I1K @ self.directions_EK.T
            case "zscore":
                return (self.raw_I1E - standard.mean_E) * standard.scale_E * self.present_I1[:, None]


def read_text_vectors(
    folder: Path, vocabulary: Vocabulary, *, whitened_as: Path | None = None, only: pl.DataFrame | None = None
) -> Mapping[View, TextVectors]:
    """Return both views of every item of the vocabulary.

    Args:
        folder: an ``embeddings`` artifact.
        vocabulary: of the items.
        whitened_as: another such artifact, whose whitening is to be taken; None: its own.
        only: domain, item_id of the items whose vectors are read, those of others staying zero; None: all items.

    Raises:
        DataError: vectors of another width than the whitening, or none at all.
        StoreError: the whitening cannot be read.
    """
    file = (whitened_as or folder) / WHITENING_FILE
    try:
        whitening = load_file(file)
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{file} cannot be read", found=error, do="make embeddings anew") from error
    files = table_files(folder, "embeddings")
    if not files:
        raise DataError("embeddings: table embeddings has no file", expected=f"embeddings.parquet in {folder}")
    scan = scan_files(files)
    scan = scan.select(pl.col("domain").cast(pl.String), "item_id", pl.col("view").cast(pl.String), "vector")
    wanted = vocabulary.table if only is None else vocabulary.table.join(only, on=["domain", "item_id"], how="semi")
    # Items that the vocabulary lacks are no fault here: embeddings may be newer than items.
    table = scan.join(wanted.lazy(), on=["domain", "item_id"], how="inner", maintain_order="left").collect()
    return {view: _view(table.filter(pl.col("view") == view.value), view, whitening, vocabulary) for view in View}


def _view(rows: pl.DataFrame, view: View, whitening: Mapping[str, np.ndarray], vocabulary: Vocabulary) -> TextVectors:
    mean, components = whitening.get(f"{view}.mean"), whitening.get(f"{view}.components")
    if mean is None or components is None:
        raise DataError(
            f"embeddings: no whitening of view {view}",
            found=", ".join(sorted(whitening)),
            expected=f"{view}.mean and {view}.components in {WHITENING_FILE}",
            do="run the embeddings stage again",
        )
    width = mean.shape[0]
    if not isinstance(rows["vector"].dtype, pl.Array):
        raise DataError(
            "embeddings: vector is no fixed-size list", found=rows["vector"].dtype, do="run the embeddings stage again"
        )
    vectors = rows["vector"].to_numpy().astype(np.float32)
    if rows.height and vectors.shape[1] != width:
        raise DataError(
            f"embeddings: vectors of view {view} do not fit their whitening",
            found=f"vectors of {vectors.shape[1]} numbers",
            expected=f"{width}, as {WHITENING_FILE} has",
            do="run the embeddings stage again",
        )
    num_rows = vocabulary.num_items + 1
    raw_I1E = torch.zeros(num_rows, width)
    whitened_I1K = torch.zeros(num_rows, components.shape[1])
    present_I1 = torch.zeros(num_rows, dtype=torch.bool)
    if rows.height:
        index = torch.from_numpy(rows["item_index"].to_numpy().astype(np.int64))
        raw_I1E[index] = torch.from_numpy(vectors)
        whitened_I1K[index] = torch.from_numpy(((vectors - mean) @ components).astype(np.float32))
        present_I1[index] = True
    return TextVectors(
        whitened_I1K=whitened_I1K,
        present_I1=present_I1,
        raw_I1E=raw_I1E,
        directions_EK=torch.nn.functional.normalize(torch.from_numpy(components), dim=0),
    )
