"""The embeddings stage: a vector for each view of each item that has text."""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
import structlog
from numpy.typing import NDArray
from safetensors.numpy import save_file

from semacdr.dataset import Embeddings
from semacdr.embeddings.cache import VectorCache, text_hashes
from semacdr.embeddings.encoders import Encoder, open_encoder
from semacdr.embeddings.probe import probe_domains
from semacdr.embeddings.whitening import fit_whitening
from semacdr.manifest import Facts
from semacdr.progress import Progress
from semacdr.settings import EncoderSettings
from semacdr.spread import Advance, Shard, Spread, here
from semacdr.tables import WHITENING_FILE, Part, View, scan_files, table_files

log = structlog.get_logger()

SHARD_TEXTS = 512
"""Texts encoded together. The last digits of a vector depend on the texts beside it and on the number of threads, so a
run that goes on after a kill has the same shards as one that was not killed: whole ones are kept, in their order."""
ROWS_PER_GROUP = 16_384
"""So that who reads one domain need not read the others."""
KEEP_EVERY_S = 5.0
"""Time between two segments of the cache: what a killed run has lost at most, and a shard."""


def embed(  # noqa: PLR0913, PLR0917 (three places, and how)
    config: Embeddings,
    settings: EncoderSettings,
    semantics: Path,
    sequences: Path,
    vectors: Path,
    output: Path,
    progress: Progress,
    spread: Spread = here,
) -> Facts:
    """Write ``embeddings.parquet`` and, per view, the whitening of ``whitening.safetensors``.

    Only texts without a vector in the folder ``vectors`` are encoded, and kept there as they come. The whitening is
    fitted on the items of training events alone. Its tensors are ``<view>.mean`` (D numbers) and ``<view>.components``
    (D x K).

    Raises:
        ConfigError: the encoder is not there.
        EngineError: the endpoint refuses.
        TransientError: the endpoint cannot be reached.
    """
    scan = scan_files(table_files(semantics, "semantics"))
    rows = scan.select("domain", "item_id", "view", "text", "source").collect()
    texts = rows["text"].unique(maintain_order=True)
    cache = VectorCache(vectors, config.model_dump(mode="json", include={"encoder", "revision", "max_tokens"}))
    vectors_TD, num_encoded = _vectors(config, settings, texts, cache, progress, spread)
    vectors_ND = vectors_TD[rows["text"].replace_strict(texts, np.arange(len(texts))).cast(pl.Int64).to_numpy()]
    tensors, digests, fitted_on = _whitenings(config, rows, vectors_ND, sequences)
    save_file(tensors, output / WHITENING_FILE)
    table = rows.select(
        "domain",
        "item_id",
        pl.col("view").cast(pl.String),
        pl.Series("vector", vectors_ND, dtype=pl.Array(pl.Float32, vectors_TD.shape[1])),
        pl.lit(f"{config.encoder} {config.revision}").alias("encoder"),
        pl.col("view").cast(pl.String).replace_strict(digests, return_dtype=pl.String).alias("whitening"),
    )
    # Compressed, vectors take nine tenths of the room, and three times the reader's time.
    table.sort("domain", "item_id", "view").write_parquet(
        output / "embeddings.parquet", compression="uncompressed", row_group_size=ROWS_PER_GROUP
    )
    probe = probe_domains(rows, vectors_ND)
    shown = probe.get("llm_texts") or probe.get("all_texts", {})
    return Facts(
        rows_in=rows.height,
        details={
            "dim": vectors_TD.shape[1],
            "texts": len(texts),
            "texts_encoded": num_encoded,
            "whitening_fitted_on_items": fitted_on,
            "domain_probe": probe,
        },
        metrics={f"domain_probe_{name}": value for name, value in shown.items() if name in {*View, "chance"}},
    )


def rewhiten(config: Embeddings, embeddings: Path, sequences: Path, output: Path) -> None:
    """Write the same vectors with the whitening of other sequences: another protocol trains on other items."""
    files = table_files(embeddings, "embeddings")
    rows = pl.concat(scan_files(file).collect() for file in files)
    rows = rows.with_columns(pl.col("domain", "view").cast(pl.String))
    tensors, digests, _ = _whitenings(config, rows, rows["vector"].to_numpy(), sequences)
    save_file(tensors, output / WHITENING_FILE)
    rows = rows.with_columns(whitening=pl.col("view").replace_strict(digests, return_dtype=pl.String))
    rows.write_parquet(output / "embeddings.parquet")


def _whitenings(
    config: Embeddings, rows: pl.DataFrame, vectors_ND: NDArray[np.float32], sequences: Path
) -> tuple[dict[str, NDArray[np.float32]], dict[str, str], dict[str, int]]:
    """Return both views' tensors, digests, and how many items each is fitted on: those of training events."""
    visible = _visible_items(sequences)
    keys = rows.select(pl.col("domain").cast(pl.String), "item_id")
    is_visible = keys.join(visible, on=["domain", "item_id"], how="left", maintain_order="left")["visible"]
    is_visible_N = is_visible.fill_null(value=False).to_numpy()
    tensors: dict[str, NDArray[np.float32]] = {}
    digests: dict[str, str] = {}
    fitted_on: dict[str, int] = {}
    for view in View:
        is_fitted_N = is_visible_N & (rows["view"] == view).to_numpy()
        whitening = fit_whitening(vectors_ND[is_fitted_N], config.whitening_dim, config.whitening_floor)
        tensors |= {f"{view}.mean": whitening.mean_D, f"{view}.components": whitening.components_DK}
        digests[view] = whitening.digest[:16]
        fitted_on[view] = int(is_fitted_N.sum())
    return tensors, digests, fitted_on


def _vectors(
    config: Embeddings,
    settings: EncoderSettings,
    texts: pl.Series,
    cache: VectorCache,
    progress: Progress,
    spread: Spread,
) -> tuple[NDArray[np.float32], int]:
    """Return a vector for each text, and how many had to be encoded; with none to encode no model is loaded."""
    hashes = text_hashes(texts)
    known, vectors = cache.read(hashes)
    missing = np.setdiff1d(np.arange(len(texts)), known)
    # Texts of like length together, so that little is spent on padding.
    order = missing[np.argsort(texts.str.len_chars().to_numpy()[missing], kind="stable")]
    places = [order[start : start + SHARD_TEXTS] for start in range(0, len(order), SHARD_TEXTS)]
    shards = [Shard(f"texts {n}", (config, settings, texts[p].to_list()), len(p)) for n, p in enumerate(places)]
    # An endpoint spreads the work itself.
    run = here if settings.url else spread
    try:
        width = _encoder(config, settings).dim if vectors is None else vectors.shape[1]
        vectors_TD = np.empty((len(texts), width), np.float32)
        done = kept = 0
        kept_at_s = time.monotonic()
        with progress.task("embed texts", total=len(order)) as task:
            for shard, made in zip(places, run(encode_texts, shards, task.advance), strict=True):
                vectors_TD[shard] = made
                done += len(shard)
                if done == len(order) or time.monotonic() - kept_at_s >= KEEP_EVERY_S:
                    cache.write(hashes[order[kept:done]], vectors_TD[order[kept:done]])
                    kept, kept_at_s = done, time.monotonic()
    finally:
        _encoder.cache_clear()
    if vectors is not None:
        vectors_TD[known] = vectors
    return vectors_TD, len(order)


def encode_texts(
    config: Embeddings, settings: EncoderSettings, texts: list[str], *, advance: Advance
) -> NDArray[np.float32]:
    """Return one row per text; ``advance`` takes texts."""
    vectors_ND = _encoder(config, settings).encode(texts)
    advance(len(texts))
    return vectors_ND


@lru_cache(maxsize=1)
def _encoder(config: Embeddings, settings: EncoderSettings) -> Encoder:
    """Open an encoder, once in a process."""
    return open_encoder(config, settings)


def _visible_items(sequences: Path) -> pl.DataFrame:
    """Return domain, item_id of the items that training events touch."""
    events = (
        scan_files(table_files(sequences, "sequences"))
        .select("domains", "item_ids", "parts")
        .explode("domains", "item_ids", "parts")
        .filter(pl.col("parts") == Part.TRAIN)
    )
    return (
        events.select(domain="domains", item_id="item_ids").unique().with_columns(visible=pl.lit(value=True)).collect()
    )
