"""What benchmarks of the model read of a store: the current version of a data set that has been run."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from semacdr.model.config import load_preset
from semacdr.model.histories import Events, read_events
from semacdr.model.text_vectors import read_text_vectors
from semacdr.model.vocabulary import Vocabulary
from semacdr.store import Store
from semacdr.tables import Part, table_files
from semacdr.training.fit import FitInputs

MAX_LENGTH = 50


def read_fit_inputs(store: Path, dataset: str, preset: str = "semacdr") -> tuple[FitInputs, Events]:
    """Return what the fit ``train`` of a preset sees, and all events."""
    folders = {name: Store(store).get(dataset, name).path for name in ("items", "sequences", "embeddings")}
    titles = pl.read_parquet(table_files(folders["items"], "items"), columns=["domain", "item_id", "title"])
    vocabulary = Vocabulary.of_items(titles)
    events = read_events(folders["sequences"], vocabulary)
    inputs = FitInputs(
        config=load_preset(preset),
        vocabulary=vocabulary,
        text=read_text_vectors(folders["embeddings"], vocabulary),
        titles=titles,
        events=events.up_to(Part.TRAIN),
        max_length=MAX_LENGTH,
    )
    return inputs, events
