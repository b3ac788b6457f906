import shutil
from pathlib import Path

import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from semacdr.errors import DataError, StoreError
from semacdr.model.text_vectors import read_text_vectors
from semacdr.model.vocabulary import Vocabulary
from semacdr.tables import View


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
