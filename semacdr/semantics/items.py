"""The items that have text, and the key under which the answer about each is kept."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path

import polars as pl

from semacdr.dataset import DatasetConfig
from semacdr.errors import DataError, close_names
from semacdr.manifest import fingerprint
from semacdr.semantics.engine import Decoding
from semacdr.semantics.models import ModelIdentity
from semacdr.semantics.prompt import DomainWords, Prompt
from semacdr.tables import table_files

_SLICE_ROWS = 50_000
COLUMNS = ("domain", "item_id", "title", "brand", "categories", "text", "text_hash")


def read_items(folder: Path) -> tuple[pl.DataFrame, int]:
    """Return the items that have text, sorted by domain and item, and the number of those that have none."""
    scan = pl.scan_parquet(table_files(folder, "items"), hive_partitioning=False)
    frame = scan.select(*COLUMNS, "has_text").collect()
    with_text = frame.filter("has_text").drop("has_text").sort("domain", "item_id")
    return with_text, frame.height - with_text.height


def read_item_ids(folder: Path, *extra: str) -> pl.DataFrame:
    """Return the items that have text, without it: ``row`` in the table, domain, item_id, text_hash and ``extra``."""
    scan = _scan(folder).filter("has_text")
    return scan.select("row", "domain", "item_id", "text_hash", *extra).collect(engine="streaming")


def read_item_texts(folder: Path, rows: pl.Series) -> pl.DataFrame:
    """Return title, text and text_hash of some rows of the table; no more of it is held than these."""
    wanted = pl.LazyFrame({"row": rows})
    scan = _scan(folder).select("row", "title", "text", "text_hash").join(wanted, on="row", how="semi")
    return scan.collect(engine="streaming")


def _scan(folder: Path) -> pl.LazyFrame:
    return pl.scan_parquet(table_files(folder, "items"), hive_partitioning=False).with_row_index("row")


def decoding_of(config: DatasetConfig) -> Decoding:
    """Return how a data set's answers are decoded."""
    return Decoding(temperature=config.semantics.temperature, max_tokens=config.semantics.max_tokens)


def words_of(config: DatasetConfig) -> dict[str, DomainWords]:
    """Return each domain's words in a prompt."""
    return {name: DomainWords.of(name, domain) for name, domain in config.domains.items()}


def with_keys(items: pl.DataFrame, config: DatasetConfig, model: ModelIdentity, prompt: Prompt) -> pl.DataFrame:
    """Return the items with the column ``key``: all that shapes an answer, hashed.

    Raises:
        DataError: an item of a domain that the data set does not have.
    """
    bases = {}
    for domain, words in words_of(config).items():
        shaped_by = {
            "model": [model.name, model.revision],
            "prompt": prompt.fingerprint(words),
            "decoding": asdict(decoding_of(config)),
            "seed": config.semantics.seed,
            "max_item_tokens": config.semantics.max_item_tokens,
        }
        bases[domain] = hashlib.sha256(fingerprint(shaped_by).encode())
    unknown = items.filter(~pl.col("domain").is_in(list(bases)))
    if unknown.height:
        domain = unknown["domain"][0]
        raise DataError(
            "items: domain", found=domain, expected=close_names(domain, bases), do="ingest the data set again"
        )
    # In parts, for a million Python strings weigh three times what a column of them does.
    parts = items.select("domain", "text_hash").iter_slices(_SLICE_ROWS)
    keys = (
        pl.Series("key", [_key(bases[domain], text_hash) for domain, text_hash in part.iter_rows()]) for part in parts
    )
    return items.with_columns(pl.concat([pl.Series("key", dtype=pl.String), *keys]))


def _key(base: hashlib._Hash, text_hash: str) -> str:
    digest = base.copy()
    digest.update(text_hash.encode())
    return digest.hexdigest()
