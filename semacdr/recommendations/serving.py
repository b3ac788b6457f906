"""What ranks: a checkpoint that has learned of today's items, and what may be recommended of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from semacdr.dataset import Recommendations
from semacdr.errors import DataError
from semacdr.model.checkpoint import load_checkpoint
from semacdr.model.growth import grow
from semacdr.recommendations.lists import Lister
from semacdr.recommendations.rules import available_items
from semacdr.tables import table_files


@dataclass(frozen=True)
class Serving:
    """A lister, and what it was made from."""

    lister: Lister
    items: pl.DataFrame
    """The ``items`` table."""
    new_items: int
    """Items that the checkpoint was not trained with."""


def open_serving(config: Recommendations, inputs: Mapping[str, Path]) -> Serving:
    """Load a checkpoint for the items of today.

    Args:
        config: the rules.
        inputs: folders of ``checkpoint``, ``items`` and what ``grow`` takes.

    Raises:
        ConfigError: the availability is no condition in SQL.
        DataError: a new item that the checkpoint cannot take in, or a domain without an available item.
        StoreError: the checkpoint cannot be loaded.
    """
    files = table_files(inputs["items"], "items")
    if not files:
        raise DataError("items: table items has no file", expected=f"items in {inputs['items']}", do="run ingest again")
    items = pl.concat(pl.read_parquet(file, hive_partitioning=False) for file in files)
    titles = items.select("domain", "item_id", "title")
    grown = grow(load_checkpoint(inputs["checkpoint"]), titles, inputs)
    available = available_items(items, config.availability, grown.model.vocabulary)
    return Serving(Lister(grown.model, available, config.repeat_after_days), items, grown.new_items)
