from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from semacdr import tables
from semacdr.dataset import Index
from semacdr.errors import ConfigError, DataError, StoreError
from semacdr.index import build, load_index
from semacdr.index.kinds import choose_kind
from semacdr.index.vectors import Vectors
from semacdr.progress import Progress
from semacdr.tables import View

BUILD = importlib.import_module("semacdr.index.build")
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
    build(embeddings, output, Index(), Progress())
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
    facts = build(embeddings, output, Index(), Progress())
    assert facts.metrics == {"recall_10": 1.0, "recall_100": 1.0}
    assert facts.rows_in == 2 * sum(SIZES.values())


def test_build_reads_the_row_groups_of_a_domain_alone(embeddings: Path, index: Path, tmp_path: Path):
    table = pl.read_parquet(embeddings / "embeddings.parquet")
    output = tmp_path / "grouped"
    output.mkdir()
    table.sort("domain", maintain_order=True).write_parquet(embeddings / "embeddings.parquet", row_group_size=3)
    with pq.ParquetFile(embeddings / "embeddings.parquet") as file:
        read = Vectors([], "b", "specific", [], 16)._groups(file.metadata)
        assert 0 < len(read) < file.num_row_groups
    build(embeddings, output, Index(), Progress())
    for file in index.rglob("*.*"):
        assert (output / file.relative_to(index)).read_bytes() == file.read_bytes()


def test_build_without_vectors_has_no_index(embeddings: Path, tmp_path: Path):
    pl.read_parquet(embeddings / "embeddings.parquet").clear().write_parquet(embeddings / "embeddings.parquet")
    output = tmp_path / "empty"
    output.mkdir()
    build(embeddings, output, Index(), Progress())
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


def test_kind_is_the_most_exact_that_fits():
    config = Index(exact_up_to=1000, memory_mb=100)
    assert choose_kind(1000, 384, config) == "Flat"
    assert choose_kind(40_000, 384, config) == "IVF1024,Flat"
    assert choose_kind(100_000, 384, config) == "IVF1024,SQfp16"
    assert choose_kind(250_000, 384, config) == "IVF2048,SQ8"
    with pytest.raises(ConfigError, match="374 MB or more"):
        choose_kind(1_000_000, 384, config)


IVF = Index(exact_up_to=100, wanted_recall=0.95)


def write(folder: Path, vectors: dict[str, np.ndarray]) -> Path:
    folder.mkdir()
    stacked = np.stack(list(vectors.values())).astype(np.float32)
    table = pl.DataFrame({"domain": "a", "item_id": list(vectors), "view": "specific"})
    table = table.with_columns(pl.Series("vector", stacked, dtype=pl.Array(pl.Float32, stacked.shape[1])))
    table.sort("item_id").write_parquet(folder / "embeddings.parquet")
    return folder


def clustered(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(20, 16))
    vectors = centres[rng.integers(20, size=count)] + 0.3 * rng.normal(size=(count, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return {f"s{seed}-{number:05d}": row for number, row in enumerate(vectors)}


def built(folder: Path, vectors: dict[str, np.ndarray], config: Index = IVF, last: Path | None = None) -> Path:
    output = folder / f"index{len(list(folder.iterdir()))}"
    output.mkdir()
    build(write(folder / f"{output.name}-vectors", vectors), output, config, Progress(), last)
    tables.check("index", output)
    return output


def facts_of(index: Path) -> dict:
    return json.loads((index / "index.json").read_text())["a/specific"]


def test_many_vectors_are_searched_by_an_inverted_file_of_the_wanted_recall(tmp_path: Path):
    vectors = clustered(3000)
    facts = facts_of(index := built(tmp_path, vectors))
    assert (facts["kind"], facts["vectors"], facts["trained_on"]) == ("IVF256,Flat", 3000, 3000)
    assert 0.95 <= facts["recall_10"] <= 1
    assert facts["probed"] < facts["lists"]
    names, stacked = list(vectors), np.stack(list(vectors.values())).astype(np.float32)
    found = load_index(index, "a", View.SPECIFIC).search(stacked[:50], 10)
    true = [{names[i] for i in np.argsort(-(stacked @ stacked[q]))[:10]} for q in range(50)]
    assert sum(len(true[q] & set(found.item_ids[q])) for q in range(50)) >= 0.95 * 500


def test_recall_that_cannot_be_reached_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(BUILD, "choose_kind", lambda *_: "IVF16,PQ2x2")
    with pytest.raises(DataError, match="all 16 lists probed"):
        built(tmp_path, clustered(3000))


def test_few_changes_grow_the_last_index(tmp_path: Path):
    vectors = clustered(3000)
    first = built(tmp_path, vectors)
    changed = dict(vectors)
    for name in list(changed)[:20]:
        del changed[name]
    moved = next(iter(changed))
    new = clustered(30, seed=1)
    changed |= new
    changed[moved] = -changed[moved]
    second = built(tmp_path, changed, last=first)
    facts = facts_of(second)
    # 20 gone, 30 new, one moved: taken out and put in.
    assert (facts["vectors"], facts["trained_on"], facts["changed_since"]) == (3010, 3000, 52)
    search = load_index(second, "a", View.SPECIFIC)
    queries = np.stack([changed[moved], *new.values()]).astype(np.float32)
    assert [found[0] for found in search.search(queries, 3).item_ids] == [moved, *new]
    everything = search.search(queries[:1], 3010).item_ids[0]
    assert set(everything) <= set(changed)
    third = built(tmp_path, changed, last=second)
    assert facts_of(third)["changed_since"] == 52


def test_many_changes_train_anew(tmp_path: Path):
    first = built(tmp_path, clustered(3000))
    second = built(tmp_path, clustered(3000) | clustered(400, seed=1), last=first)
    assert (facts_of(second)["trained_on"], facts_of(second)["changed_since"]) == (3400, 0)
    exact = built(tmp_path, clustered(90), last=second)
    assert facts_of(exact)["kind"] == "Flat"


@pytest.mark.parametrize("config", [IVF, Index()], ids=["inverted", "exact"])
def test_search_among_some_and_without_others(tmp_path: Path, config: Index):
    vectors = clustered(1000)
    search = load_index(built(tmp_path, vectors, config), "a", View.SPECIFIC)
    names = list(vectors)
    queries = np.stack([vectors[name] for name in names[:3]]).astype(np.float32)
    available = [*names[:5], "unknown"]
    found = search.search(queries, 10, among=available).item_ids
    assert all(set(row) == set(names[:5]) for row in found)
    found = search.search(queries, 3, among=available, without=[[names[0]], [], names[:5]]).item_ids
    assert names[0] not in found[0]
    assert found[1][0] == names[1]
    assert found[2] == []
    assert search.search(queries, 3, among=[]).item_ids == [[], [], []]
    with pytest.raises(DataError, match="2 collections"):
        search.search(queries, 3, without=[[], []])


def test_inverted_file_has_no_more_lists_than_vectors():
    assert choose_kind(6, 4, Index(exact_up_to=1)) == "IVF6,Flat"
