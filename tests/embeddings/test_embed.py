from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from semacdr import tables
from semacdr.dataset import Embeddings
from semacdr.embeddings import LocalEncoder, embed, fit_whitening
from semacdr.errors import ConfigError
from semacdr.progress import Progress
from semacdr.settings import EncoderSettings

TEXTS = {
    "i1": "strong dark roast coffee beans",
    "i2": "espresso ground coffee, bold",
    "i3": "green tea leaves from Japan",
    "i4": "cast iron frying pan",
    "i5": "",
}


@pytest.fixture(scope="module")
def encoder() -> LocalEncoder:
    return LocalEncoder(Embeddings(), batch_size=8)


def write_inputs(folder: Path) -> tuple[Path, Path]:
    rows = [
        {
            "domain": "a",
            "item_id": item,
            "view": view,
            "text": text + (" for guests" if view == "agnostic" else ""),
            "source": "generated",
        }
        for item, text in TEXTS.items()
        if text
        for view in ("agnostic", "specific")
    ]
    pl.DataFrame(rows).write_parquet(folder / "semantics.parquet")
    pl.DataFrame(
        {
            "user_id": ["u"],
            "domains": [["a"] * 4],
            "item_ids": [["i1", "i2", "i3", "i4"]],
            "timestamps_s": [[1, 2, 3, 9]],
            "parts": [["train", "train", "train", "test"]],
            "is_target": [[False, False, False, True]],
        }
    ).write_parquet(folder / "sequences.parquet")
    return folder, folder


def test_embed_writes_unit_vectors_to_the_contract(tmp_path: Path):
    output = tmp_path / "out"
    output.mkdir()
    semantics, sequences = write_inputs(tmp_path)
    facts = embed(Embeddings(), EncoderSettings(), semantics, sequences, tmp_path / "vectors", output, Progress())
    assert tables.check("embeddings", output) == {"embeddings": 8}
    vectors = pl.read_parquet(output / "embeddings.parquet")["vector"].to_numpy()
    assert vectors.shape == (8, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert facts.details["texts_encoded"] == 8


def test_whitening_is_fitted_on_items_of_training_events_alone(tmp_path: Path):
    output = tmp_path / "out"
    output.mkdir()
    semantics, sequences = write_inputs(tmp_path)
    facts = embed(Embeddings(), EncoderSettings(), semantics, sequences, tmp_path / "vectors", output, Progress())
    rows = pl.read_parquet(output / "embeddings.parquet").filter(pl.col("view") == "specific")
    seen = rows.filter(pl.col("item_id") != "i4")["vector"].to_numpy()
    expected = fit_whitening(seen, dim=256, floor=1e-3)
    tensors = load_file(output / "whitening.safetensors")
    np.testing.assert_allclose(tensors["specific.mean"], expected.mean_D, rtol=1e-6)
    assert facts.details["whitening_fitted_on_items"] == {"specific": 3, "agnostic": 3}


def test_like_texts_lie_closer_than_others(encoder: LocalEncoder):
    coffee, espresso, tea, pan = encoder.encode([TEXTS[item] for item in ("i1", "i2", "i3", "i4")])
    assert coffee @ espresso > coffee @ tea > coffee @ pan


def test_text_far_beyond_the_models_length_is_cut_not_refused(encoder: LocalEncoder):
    long = encoder.encode(["coffee " * 5000])
    np.testing.assert_allclose(np.linalg.norm(long, axis=1), 1, rtol=1e-5)


def test_items_without_any_text_give_an_empty_table(tmp_path: Path):
    output = tmp_path / "out"
    output.mkdir()
    semantics, sequences = write_inputs(tmp_path)
    pl.read_parquet(semantics / "semantics.parquet").clear().write_parquet(semantics / "semantics.parquet")
    embed(Embeddings(), EncoderSettings(), semantics, sequences, tmp_path / "vectors", output, Progress())
    assert tables.check("embeddings", output) == {"embeddings": 0}


@pytest.mark.parametrize("encoder", ["./nowhere", "no/such-model"])
def test_encoder_that_is_not_there_is_a_clear_error(encoder: str):
    with pytest.raises(ConfigError, match=r"embeddings\.encoder"):
        LocalEncoder(Embeddings(encoder=encoder), batch_size=8)


def test_folder_that_is_no_model_is_a_clear_error(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="is no sentence-transformers model"):
        LocalEncoder(Embeddings(encoder=str(tmp_path)), batch_size=8)
