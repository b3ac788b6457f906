from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest

from semacdr.manifest import Facts, fingerprint
from semacdr.store import Draft, Store, rebuild_catalog
from tests.store.test_store import publish


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "it's a store")
    publish(store, key=1)
    publish(store, key=2)
    publish(store, key=1, dataset="other")
    draft = Draft(
        dataset="toy",
        stage="embeddings",
        fingerprint=fingerprint("e"),
        config={},
        sources={},
        inputs={"interactions": store.get("toy", "interactions")},
    )
    vectors = np.eye(3, 4, dtype=np.float32)
    frame = pl.DataFrame({"domain": ["a"] * 3, "item_id": ["i", "j", "k"], "view": ["agnostic"] * 3}).with_columns(
        pl.Series("vector", vectors, dtype=pl.Array(pl.Float32, 4)), encoder=pl.lit("e"), whitening=pl.lit("w")
    )
    with store.open_draft(draft, ["embeddings"]):
        frame.write_parquet(draft.folders["embeddings"] / "embeddings.parquet")
        store.publish(draft, Facts())
    rebuild_catalog(store)
    return store


def query(store: Store, sql: str) -> list[tuple]:
    with duckdb.connect(str(store.catalog), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_views_hold_the_current_version_of_every_data_set(store: Store):
    rows = query(store, "select dataset, count(*) from interactions group by all order by all")
    assert rows == [("other", 2), ("toy", 2)]


def test_version_views_hold_all_versions(store: Store):
    assert query(
        store, "select count(*), count(distinct version) from interactions_versions where dataset = 'toy'"
    ) == [(4, 2)]


def test_artifacts_answers_what_made_this(store: Store):
    rows = query(store, "select version, ndcg_10, inputs, aliases from artifacts where name = 'embeddings'")
    (version, ndcg, inputs, aliases) = rows[0]
    current = store.get("toy", "interactions").reference
    assert (version, ndcg, inputs, aliases) == (
        store.get("toy", "embeddings").manifest.version,
        None,
        [current],
        ["current"],
    )
    assert query(store, "select artifact, input from lineage") == [(f"embeddings@{version}", current)]
    assert query(store, "select distinct metric, metric_value from metrics") == [("ndcg_10", 0.5)]


def test_vectors_keep_their_size(store: Store):
    rows = query(
        store,
        "select array_cosine_similarity(a.vector, b.vector) from embeddings a, embeddings b"
        " where a.item_id = 'i' order by b.item_id",
    )
    assert rows == [(1.0,), (0.0,), (0.0,)]


def test_catalog_answers_from_any_directory(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    relative = os.path.relpath(store.catalog)
    with duckdb.connect(relative, read_only=True) as connection:
        assert connection.execute("select count(*) from interactions").fetchone() == (4,)


def test_older_duckdb_client_reads_the_catalog(store: Store, tmp_path: Path):
    client = Path(sys.executable).with_name("duckdb")
    command = [
        str(client),
        str(store.catalog),
        "-csv",
        "-noheader",
        "-c",
        "select version(), count(*) from interactions",
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    version, rows = run.stdout.strip().split(",")
    assert version < "v2" <= f"v{duckdb.__version__}"
    assert rows == "4"


def test_rebuild_serves_readers_that_are_inside(store: Store):
    with duckdb.connect(str(store.catalog), read_only=True) as reader:
        publish(store, key=3)
        rebuild_catalog(store)
        assert reader.execute("select count(*) from interactions_versions").fetchone() == (6,)
    assert query(store, "select count(*) from interactions_versions") == [(8,)]


def test_catalog_of_an_empty_store_has_its_tables(tmp_path: Path):
    store = Store(tmp_path)
    tmp_path.mkdir(exist_ok=True)
    rebuild_catalog(store)
    assert query(store, "select count(*) from artifacts") == [(0,)]
