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
from semacdr.tables import scan_files, table_files

_SLICE_ROWS = 50_000
COLUMNS = ("domain", "item_id", "title", "brand", "categories", "text", "text_hash")


def read_items(folder: Path) -> tuple[pl.DataFrame, int]:
    """Return the items that have text, sorted by domain and item, and the number of those that have none."""
    scan = scan_files(table_files(folder, "items"))
    frame = scan.select(*COLUMNS, "has_text").collect()
    with_text = frame.filter("has_text").drop("has_text").sort("domain", "item_id")
    return with_text, frame.height - with_text.height


def read_item_ids(folder: Path, *extra: str) -> pl.DataFrame:
    """Return the items that have text, without it: domain, item_id, text_hash and ``extra``."""
    scan = scan_files(table_files(folder, "items")).filter("has_text")
    return scan.select("domain", "item_id", "text_hash", *extra).collect(engine="streaming")


def decoding_of(config: DatasetConfig) -> Decoding:
    """Return how a data set's answers are decoded."""
    return Decoding(temperature=config.semantics.temperature, max_tokens=config.semantics.max_tokens)


def words_of(config: DatasetConfig) -> dict[str, DomainWords]:
    """Return each domain's words in a prompt."""
    return {name: DomainWords.of(name, domain) for name, domain in config.domains.items()}


def key_prefixes(config: DatasetConfig, model: ModelIdentity, prompt: Prompt) -> dict[str, str]:
    """Return by domain what shapes an answer beside the item: an answer's key is sha256(prefix + ``text_hash``)."""
    shared = {
        "model": [model.name, model.revision],
        "decoding": asdict(decoding_of(config)),
        "seed": config.semantics.seed,
        "max_item_tokens": config.semantics.max_item_tokens,
    }
    words = words_of(config).items()
    return {domain: fingerprint({**shared, "prompt": prompt.fingerprint(word)}) for domain, word in words}


def with_keys(items: pl.DataFrame, config: DatasetConfig, model: ModelIdentity, prompt: Prompt) -> pl.DataFrame:
    """Return the items with the column ``key``: all that shapes an answer, hashed.

    Raises:
        DataError: an item of a domain that the data set does not have.
    """
    prefixes = key_prefixes(config, model, prompt)
    bases = {domain: hashlib.sha256(prefix.encode()) for domain, prefix in prefixes.items()}
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
