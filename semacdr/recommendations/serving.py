"""What ranks: a checkpoint that has learned of today's items and events, and what may be recommended of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from semacdr.dataset import Recommendations
from semacdr.errors import DataError
from semacdr.model.checkpoint import load_checkpoint
from semacdr.model.growth import grow
from semacdr.model.present import read_present
from semacdr.model.present_scorer import PresentScorer
from semacdr.recommendations.lists import Lister
from semacdr.recommendations.rules import available_items
from semacdr.tables import scan_files, table_files


@dataclass(frozen=True)
class Serving:
    """A lister, and what it was made from."""

    lister: Lister
    items: pl.DataFrame
    """The ``items`` table."""
    new_items: int
    """Items that the checkpoint was not trained with."""
    sequences: Path
    """The folder of what users did."""


def open_serving(config: Recommendations, inputs: Mapping[str, Path]) -> Serving:
    """Load a checkpoint for the items and with the memory of today.

    Args:
        config: the rules.
        inputs: folders of ``checkpoint``, ``items``, ``sequences`` (what the experts remember, in place of what the
            checkpoint does) and what ``grow`` takes.

    Raises:
        ConfigError: the availability is no condition in SQL.
        DataError: a new item that the checkpoint cannot take in, or a domain without an available item.
        StoreError: the checkpoint cannot be loaded.
    """
    files = table_files(inputs["items"], "items")
    if not files:
        raise DataError("items: table items has no file", expected=f"items in {inputs['items']}", do="run ingest again")
    items = pl.concat(scan_files(file).collect() for file in files)
    titles = items.select("domain", "item_id", "title")
    grown = grow(load_checkpoint(inputs["checkpoint"]), titles, inputs)
    vocabulary = grown.model.vocabulary
    available = available_items(items, config.availability, vocabulary)
    scoring, present = grown.model.scoring, None
    if scoring is not None:
        present = read_present(inputs["sequences"], vocabulary, mixed=scoring.memory.mixed)
    scorer = PresentScorer(grown.model, present)
    return Serving(Lister(scorer, available, config.repeat_after_days), items, grown.new_items, inputs["sequences"])
