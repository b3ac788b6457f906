"""The embeddings stage: a vector for each view of each item that has text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import structlog
from numpy.typing import NDArray
from safetensors.numpy import save_file

from semacdr.dataset import Embeddings
from semacdr.embeddings.encoders import Encoder, open_encoder
from semacdr.embeddings.probe import probe_domains
from semacdr.embeddings.whitening import fit_whitening
from semacdr.manifest import Facts
from semacdr.progress import Progress
from semacdr.settings import EncoderSettings
from semacdr.tables import Part, View, table_files

log = structlog.get_logger()

WHITENING_FILE = "whitening.safetensors"
_CHUNK = 512


def embed(
    config: Embeddings,
    settings: EncoderSettings,
    semantics: Path,
    sequences: Path,
    output: Path,
    progress: Progress,
) -> Facts:
    """Write ``embeddings.parquet`` and, per view, the whitening of ``whitening.safetensors``.

    The whitening is fitted on the items of training events alone. Its tensors are ``<view>.mean`` (D numbers) and
    ``<view>.components`` (D x K).

    Raises:
        ConfigError: the encoder is not there.
        EngineError: the endpoint refuses.
        TransientError: the endpoint cannot be reached.
    """
    rows = pl.read_parquet(table_files(semantics, "semantics")).select("domain", "item_id", "view", "text", "source")
    encoder = open_encoder(config, settings)
    texts = rows["text"].unique(maintain_order=True)
    vectors = _encode(encoder, texts, progress)
    vectors_ND = vectors[rows["text"].replace_strict(texts, np.arange(len(texts))).cast(pl.Int64).to_numpy()]
    visible = _visible_items(sequences)
    is_visible = rows.select("domain", "item_id").join(visible, on=["domain", "item_id"], how="left")["visible"]
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
    save_file(tensors, output / WHITENING_FILE)
    table = rows.select(
        "domain",
        "item_id",
        pl.col("view").cast(pl.String),
        pl.Series("vector", vectors_ND, dtype=pl.Array(pl.Float32, encoder.dim)),
        pl.lit(f"{config.encoder} {config.revision}").alias("encoder"),
        pl.col("view").cast(pl.String).replace_strict(digests, return_dtype=pl.String).alias("whitening"),
    )
    table.sort("domain", "item_id", "view").write_parquet(output / "embeddings.parquet")
    probe = probe_domains(rows, vectors_ND)
    shown = probe.get("llm_texts") or probe.get("all_texts", {})
    return Facts(
        rows_in=rows.height,
        details={
            "dim": encoder.dim,
            "texts_encoded": len(texts),
            "whitening_fitted_on_items": fitted_on,
            "domain_probe": probe,
        },
        metrics={f"domain_probe_{name}": value for name, value in shown.items() if name in {*View, "chance"}},
    )


def _encode(encoder: Encoder, texts: pl.Series, progress: Progress) -> NDArray[np.float32]:
    """Encode texts of like length together, so that little is spent on padding."""
    order = texts.str.len_chars().arg_sort().to_numpy()
    vectors = np.empty((len(texts), encoder.dim), dtype=np.float32)
    with progress.task("embed texts", total=len(texts)) as task:
        for start in range(0, len(order), _CHUNK):
            chunk = order[start : start + _CHUNK]
            vectors[chunk] = encoder.encode(texts[chunk].to_list())
            task.advance(len(chunk))
    return vectors


def _visible_items(sequences: Path) -> pl.DataFrame:
    """Return domain, item_id of the items that training events touch."""
    events = (
        pl.scan_parquet(table_files(sequences, "sequences"))
        .select("domains", "item_ids", "parts")
        .explode("domains", "item_ids", "parts")
        .filter(pl.col("parts") == Part.TRAIN)
    )
    return (
        events.select(domain="domains", item_id="item_ids").unique().with_columns(visible=pl.lit(value=True)).collect()
    )
