from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from semacdr import tables
from semacdr.errors import DataError, StoreError
from semacdr.index import build, load_index
from semacdr.tables import View

SIZES = {"a": 40, "b": 3, "c": 1}


@pytest.fixture
def embeddings(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    frames = []
    for domain, size in SIZES.items():
        for view in ("agnostic", "specific"):
            vectors = rng.normal(size=(size, 16)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            items = [f"{domain}{number:02d}" for number in range(size)]
            frames.append(
                pl.DataFrame({"domain": domain, "item_id": items, "view": view}).with_columns(
                    pl.Series("vector", vectors, dtype=pl.Array(pl.Float32, 16))
                )
            )
    folder = tmp_path / "embeddings"
    folder.mkdir()
    pl.concat(frames).sample(fraction=1, shuffle=True, seed=1).write_parquet(folder / "embeddings.parquet")
    return folder


@pytest.fixture
def index(tmp_path: Path, embeddings: Path) -> Path:
    output = tmp_path / "index"
    output.mkdir()
    build(embeddings, output)
    return output


@pytest.mark.parametrize("domain", SIZES)
@pytest.mark.parametrize("view", View)
def test_search_finds_what_brute_force_finds(index: Path, embeddings: Path, domain: str, view: View):
    rows = pl.read_parquet(embeddings / "embeddings.parquet").filter(
        (pl.col("domain") == domain) & (pl.col("view") == view)
    )
    vectors, ids = rows["vector"].to_numpy(), rows["item_id"].to_list()
    found = load_index(index, domain, view).search(vectors, top_k=5)
    for row, names in enumerate(found.item_ids):
        assert names == [ids[i] for i in np.argsort(-(vectors @ vectors[row]))[:5]]
        assert names[0] == ids[row]


def test_build_keeps_the_contract_and_measures_recall(index: Path, embeddings: Path, tmp_path: Path):
    assert tables.check("index", index) == {"index_ids": 2 * sum(SIZES.values())}
    output = tmp_path / "again"
    output.mkdir()
    facts = build(embeddings, output)
    assert facts.metrics == {"recall_10": 1.0}
    assert facts.rows_in == 2 * sum(SIZES.values())


def test_build_without_vectors_has_no_index(embeddings: Path, tmp_path: Path):
    pl.read_parquet(embeddings / "embeddings.parquet").clear().write_parquet(embeddings / "embeddings.parquet")
    output = tmp_path / "empty"
    output.mkdir()
    build(embeddings, output)
    assert tables.check("index", output) == {"index_ids": 0}


def test_unknown_domain_names_the_known_ones(index: Path):
    with pytest.raises(StoreError, match="known: a, b, c"):
        load_index(index, "wine", View.AGNOSTIC)


def test_query_of_another_width_is_refused(index: Path):
    with pytest.raises(DataError, match="width 8"):
        load_index(index, "a", View.AGNOSTIC).search(np.zeros((1, 8), np.float32), 3)


def test_index_that_does_not_match_its_ids_is_refused(index: Path):
    ids = pl.read_parquet(index / "index_ids.parquet")
    ids.filter(pl.col("item_id") != "a07").write_parquet(index / "index_ids.parquet")
    with pytest.raises(StoreError, match="40 vectors, 39 ids"):
        load_index(index, "a", View.AGNOSTIC)
