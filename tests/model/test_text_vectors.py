import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file, save_file

from semacdr.errors import DataError, StoreError
from semacdr.model.config import load_preset
from semacdr.model.histories import read_events
from semacdr.model.text_vectors import TextVectors, read_text_vectors
from semacdr.model.vocabulary import Vocabulary
from semacdr.tables import Part, View


@pytest.fixture
def vocabulary(toy_artifacts: dict[str, Path]):
    return Vocabulary.of_items(pl.read_parquet(toy_artifacts["items"] / "items.parquet"))


@pytest.fixture
def folder(toy_artifacts: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_artifacts["embeddings"], tmp_path / "embeddings"))


def test_text_vectors_are_whitened_and_placed_by_item(folder: Path, vocabulary: Vocabulary):
    text = read_text_vectors(folder, vocabulary)
    rows = pl.read_parquet(folder / "embeddings.parquet").filter(pl.col("view") == "specific")
    assert int(text[View.SPECIFIC].present_I1.sum()) == rows.height < vocabulary.num_items
    whitening = load_file(folder / "whitening.safetensors")
    row = rows[3]
    index = vocabulary.encode(row, "embeddings")[0]
    expected = (row["vector"].to_numpy()[0] - whitening["specific.mean"]) @ whitening["specific.components"]
    assert text[View.SPECIFIC].whitened_I1K[index].tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    assert (text[View.SPECIFIC].whitened_I1K[~text[View.SPECIFIC].present_I1] == 0).all()


def test_text_vectors_of_items_beyond_the_vocabulary_are_left_out(folder: Path, vocabulary: Vocabulary):
    small = Vocabulary(vocabulary.table.head(vocabulary.num_items - 5))
    assert len(read_text_vectors(folder, small)[View.AGNOSTIC].present_I1) == vocabulary.num_items - 4


def test_text_vectors_without_whitening_are_refused(folder: Path, vocabulary: Vocabulary):
    (folder / "whitening.safetensors").unlink()
    with pytest.raises(StoreError, match=r"whitening\.safetensors"):
        read_text_vectors(folder, vocabulary)


def test_text_vectors_without_a_views_whitening_are_refused(folder: Path, vocabulary: Vocabulary):
    whitening = load_file(folder / "whitening.safetensors")
    save_file({k: v for k, v in whitening.items() if not k.startswith("agn")}, folder / "whitening.safetensors")
    with pytest.raises(DataError, match="no whitening of view agnostic"):
        read_text_vectors(folder, vocabulary)


def test_text_vectors_of_another_width_are_refused(folder: Path, vocabulary: Vocabulary):
    whitening = load_file(folder / "whitening.safetensors")
    whitening["specific.mean"] = whitening["specific.mean"][:-1].copy()
    save_file(whitening, folder / "whitening.safetensors")
    with pytest.raises(DataError, match="vectors of 16 numbers"):
        read_text_vectors(folder, vocabulary)


def test_text_vectors_that_are_no_fixed_lists_are_refused(folder: Path, vocabulary: Vocabulary):
    path = folder / "embeddings.parquet"
    frame = pl.read_parquet(path)
    frame.with_columns(vector=frame["vector"].cast(pl.List(pl.Float32))).write_parquet(path)
    with pytest.raises(DataError, match="no fixed-size list"):
        read_text_vectors(folder, vocabulary)


def test_text_vectors_without_a_table_are_refused(folder: Path, vocabulary: Vocabulary):
    (folder / "embeddings.parquet").unlink()
    with pytest.raises(DataError, match="no file"):
        read_text_vectors(folder, vocabulary)


def for_model(vectors: TextVectors, whitening: str, support: torch.Tensor) -> torch.Tensor:
    config = load_preset("semacdr", {"whitening": whitening})
    return vectors.for_model(config, vectors.standard(config, support))


@pytest.fixture
def support(toy_artifacts: dict[str, Path], vocabulary: Vocabulary) -> torch.Tensor:
    events = read_events(toy_artifacts["sequences"], vocabulary).up_to(Part.TRAIN)
    return torch.from_numpy(events.support(vocabulary.num_items))


def test_zca_is_the_inverse_root_of_the_covariance(folder: Path, vocabulary: Vocabulary, support: torch.Tensor):
    vectors = read_text_vectors(folder, vocabulary)[View.SPECIFIC]
    seen = vectors.raw_I1E[vectors.present_I1 & (support > 0)].double().numpy()
    variance, direction = np.linalg.eigh(np.cov(seen.T, bias=True))
    kept = vectors.whitened_I1K.shape[1]
    root = (direction[:, -kept:] / np.sqrt(variance[-kept:])) @ direction[:, -kept:].T
    expected = (vectors.raw_I1E.double().numpy() - seen.mean(axis=0)) @ root
    expected[~vectors.present_I1.numpy()] = 0
    found = for_model(vectors, "zca", support)
    assert found.shape == vectors.raw_I1E.shape
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_zscore_is_over_items_that_training_sees(folder: Path, vocabulary: Vocabulary, support: torch.Tensor):
    vectors = read_text_vectors(folder, vocabulary)[View.AGNOSTIC]
    seen = vectors.present_I1 & (support > 0)
    unseen = vectors.present_I1 & (support == 0)
    assert unseen.any()
    found = for_model(vectors, "zscore", support)
    torch.testing.assert_close(found[seen].mean(dim=0), torch.zeros(found.shape[1]), rtol=0, atol=1e-5)
    torch.testing.assert_close(found[seen].std(dim=0), torch.ones(found.shape[1]))
    assert (found[~vectors.present_I1] == 0).all()
    vectors.raw_I1E[unseen] += 5
    torch.testing.assert_close(for_model(vectors, "zscore", support)[seen], found[seen], rtol=0, atol=0)


@pytest.mark.parametrize("num_seen", [0, 1, 3])
def test_zscore_without_spread_stays_finite(num_seen: int):
    raw = torch.full((4, 2), 0.3)
    vectors = TextVectors(raw, torch.ones(4, dtype=torch.bool), raw)
    assert for_model(vectors, "zscore", (torch.arange(4) < num_seen).long()).abs().max() < 1


def test_no_whitening_is_what_the_encoder_gave(folder: Path, vocabulary: Vocabulary, support: torch.Tensor):
    vectors = read_text_vectors(folder, vocabulary)[View.AGNOSTIC]
    assert for_model(vectors, "none", support) is vectors.raw_I1E
    assert for_model(vectors, "pca", support) is vectors.whitened_I1K
