from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest

from semacdr import tables
from semacdr.semantics import Record, Responses
from semacdr.semantics.record import NAMES
from semacdr.store import Store, catalog_shows, rebuild_catalog
from tests.store.actions import publish
from tests.store.shelves import INTERACTIONS, ITEMS, RECOMMENDATIONS, embeddings, put

ANSWER = Record(
    key="k", status="failed", reason="not JSON", model="m", revision="", prompt="p@1", text_hash="h", raw='{"naïve'
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "it's a store")
    publish(store, key=1)
    publish(store, key=2)
    publish(store, key=1, dataset="other")
    vectors = dict(zip([("a", item, "agnostic") for item in "ijk"], np.eye(3, 4), strict=True))
    put(store, "embeddings", embeddings(vectors), inputs=[store.get("toy", "interactions")])
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


@pytest.mark.parametrize("name", ["plain", "it's", "a[b]*c", "sp ace/ümläut-e\u0301-\U0001f600"])
def test_store_may_be_moved_to_any_folder(tmp_path: Path, name: str):
    made = Store(tmp_path / "made")
    version = publish(made)
    publish(made, key=2)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    made.root.rename(tmp_path / name)
    store = Store(tmp_path / name)
    rebuild_catalog(store)
    found = query(
        store, f"select dataset, version, count(*) from interactions_versions where version = '{version}' group by all"
    )
    assert found == [("toy", version, 2)]


def test_versions_of_other_width_are_lists_and_each_reads(store: Store):
    wide = {("a", item, "agnostic"): vector for item, vector in zip("ijk", np.eye(3, 5), strict=True)}
    put(store, "embeddings", embeddings(wide), key=2)
    rebuild_catalog(store)
    kinds = "select distinct typeof(vector), len(vector) from {} order by all"
    assert query(store, kinds.format("embeddings_versions")) == [("FLOAT[]", 4), ("FLOAT[]", 5)]
    assert query(store, kinds.format("embeddings")) == [("FLOAT[5]", 5)]


def test_versions_of_one_width_keep_it(store: Store):
    narrow = {("a", item, "agnostic"): vector for item, vector in zip("ij", np.eye(2, 4), strict=True)}
    put(store, "embeddings", embeddings(narrow), key=2)
    rebuild_catalog(store)
    assert query(store, "select distinct typeof(vector), count(*) from embeddings_versions group by all") == [
        ("FLOAT[4]", 5)
    ]


def test_older_versions_have_null_in_a_column_that_is_new(store: Store, monkeypatch: pytest.MonkeyPatch):
    """As the store was before ``rating``, and as it would be after a column ``device``."""
    monkeypatch.setattr(tables, "check", lambda artifact, _: {artifact: 1})
    frame = INTERACTIONS.head(1)
    put(store, "interactions", frame.drop("rating").with_columns(user_id=pl.lit("old")), key="old", dataset="grown")
    put(
        store,
        "interactions",
        frame.with_columns(user_id=pl.lit("new"), device=pl.lit("tv")),
        key="new",
        dataset="grown",
    )
    rebuild_catalog(store)
    found = "select user_id, rating, device from interactions_versions where dataset = 'grown' order by user_id"
    assert query(store, found) == [("new", None, "tv"), ("old", None, None)]
    assert query(store, "select device from interactions where dataset = 'toy'") == [(None,), (None,)]


@pytest.mark.parametrize("content", [b"", b"PAR1 not parquet", None])
def test_broken_version_is_left_out_and_the_rest_reads(store: Store, content: bytes | None):
    (first, second) = [manifest.version for manifest in store.manifests("toy", "interactions")]
    file = store.root / "toy/interactions" / first / "interactions.parquet"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    rebuild_catalog(store)
    assert query(store, "select distinct version from interactions_versions where dataset = 'toy'") == [(second,)]
    told = query(store, "select version, left_out from artifacts where left_out is not null")
    assert [version for version, _ in told] == [first]
    assert "interactions" in told[0][1]


def test_version_that_breaks_later_stops_only_those_who_ask_for_it(store: Store):
    (first, second) = [manifest.version for manifest in store.manifests("toy", "interactions")]
    (store.root / "toy/interactions" / first / "interactions.parquet").write_bytes(b"broken")
    count = "select count(*) from interactions_versions where version = '{}' and dataset = 'toy'"
    assert query(store, count.format(second)) == [(2,)]
    with pytest.raises(duckdb.Error):
        query(store, count.format(first))


def test_version_without_its_table_is_left_out(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tables, "check", lambda artifact, _: {artifact: 0})
    put(store, "items", INTERACTIONS)
    monkeypatch.setitem(tables.TABLES, "items", {"other_items": tables.Items})
    rebuild_catalog(store)
    assert query(store, "select left_out from artifacts where name = 'items'") == [("no file of table other_items",)]


def test_other_contract_is_left_out(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(tables.CONTRACT_VERSIONS, "embeddings", 7)
    rebuild_catalog(store)
    told = query(store, "select name, left_out from artifacts where left_out is not null")
    assert told == [("embeddings", "contract version 1; this catalog reads 7")]
    assert query(store, "select count(*) from information_schema.tables where table_name like 'embeddings%'") == [(0,)]


def test_files_are_those_of_the_manifests(store: Store):
    (manifest,) = store.manifests("toy", "embeddings")
    (file,) = manifest.files
    assert query(store, "select dataset, version, path, bytes, sha256 from files where name = 'embeddings'") == [
        ("toy", manifest.version, file.path, file.bytes, file.sha256)
    ]


def test_aliases_hold_every_move_and_when_it_ended(store: Store):
    (first, second) = [manifest.version for manifest in store.manifests("toy", "interactions")]
    store.move_alias("toy", "interactions", "production", first, reason="a start")
    store.move_alias("toy", "interactions", "production", second)
    rebuild_catalog(store)
    rows = query(
        store, "select version, reason, is_now, moved_on_at from aliases where alias = 'production' order by moved_at"
    )
    moved = store.alias_history("toy", "interactions", "production")[1].moved_at
    assert [row[:3] for row in rows] == [(first, "a start", False), (second, None, True)]
    assert (rows[0][3].isoformat(timespec="milliseconds"), rows[1][3]) == (moved, None)
    assert query(
        store, "select aliases from artifacts where name = 'interactions' and dataset = 'toy' order by version"
    ) == [
        ([],),
        (["current", "production"],),
    ]


def test_lineage_tree_is_the_closure_with_the_shortest_way(store: Store):
    events, vectors = store.get("toy", "interactions"), store.get("toy", "embeddings")
    items = put(store, "recommendations", RECOMMENDATIONS, inputs=[vectors, events])
    put(store, "interactions", INTERACTIONS.sort("domain", "user_id"), key=5, inputs=[items])
    rebuild_catalog(store)
    last = store.get("toy", "interactions").reference
    found = query(
        store, f"select ancestor, num_steps from lineage_tree where artifact = '{last}' order by num_steps, ancestor"
    )
    assert found == [(items.reference, 1), (vectors.reference, 2), (events.reference, 2)]


def test_table_without_a_current_version_has_only_its_version_view(store: Store):
    (store.root / "toy/embeddings/current").unlink()
    rebuild_catalog(store)
    assert query(store, "select count(*) from embeddings_versions") == [(3,)]
    views = "select count(*) from information_schema.tables where table_name = 'embeddings'"
    assert query(store, views) == [(0,)]


def test_answers_of_all_runs_are_a_view(store: Store):
    assert query(store, "select count(*) from semantics_responses") == [(0,)]
    responses = Responses(store.responses)
    responses.put(ANSWER, replace(ANSWER, key="l", spent_tokens=7))
    rebuild_catalog(store)
    responses.put(replace(ANSWER, key="m"))  # after the rebuild: the view is over whatever files there are
    responses.close()
    journal = next(store.responses.glob("*.jsonl"))
    with journal.open("ab") as file:
        file.write(b'{"key": "torn')
    rows = query(store, "select key, reason, raw, spent_tokens, journal from semantics_responses order by key")
    assert [row[0] for row in rows] == ["k", "l", "m"]
    assert rows[1][1:] == ("not JSON", '{"naïve', 7, journal.name)


def test_view_of_answers_has_every_field_of_a_record():
    assert set(tables.SemanticsResponses.columns()) == {"journal", *NAMES}


def test_catalog_that_a_crash_or_a_move_left_behind_does_not_show(store: Store, tmp_path: Path):
    current = store.get("toy", "interactions")
    assert catalog_shows(store, [current])
    store.move_alias("toy", "interactions", "production", current.manifest.version)
    assert not catalog_shows(store, [current])
    rebuild_catalog(store)
    assert catalog_shows(store, [current])
    shutil.copytree(store.root, tmp_path / "copy")
    copy = Store(tmp_path / "copy")
    assert not catalog_shows(copy, [copy.get("toy", "interactions")])


def test_answers_and_dangling_aliases_of_a_store_whose_folder_reads_like_a_pattern(tmp_path: Path):
    store = Store(tmp_path / "st[o]re *")
    publish(store, key=1)
    gone = publish(store, key=2, alias="model-a")
    answers = Responses(store.responses)
    answers.put(ANSWER)
    answers.close()
    shutil.rmtree(store.root / "toy" / "interactions" / gone)
    rebuild_catalog(store)
    assert query(store, "select count(*) from semantics_responses") == [(1,)]
    # An alias that points nowhere does not keep the catalog from being up to date.
    assert catalog_shows(store, [store.get("toy", "interactions")])


def test_metrics_view_reads_a_metric_whose_name_holds_a_dot(store: Store):
    put(store, "items", ITEMS, metrics={"cold_share_sci.fi": 0.25})
    rebuild_catalog(store)
    assert query(store, "select metric, metric_value from metrics where name = 'items'") == [
        ("cold_share_sci.fi", 0.25)
    ]


def test_metric_that_is_no_number_is_left_out_of_the_manifest(store: Store):
    made = put(store, "items", ITEMS, metrics={"ndcg_10": float("nan"), "hr_10": 0.5})
    assert Store(store.root).get("toy", "items").manifest.metrics == made.manifest.metrics == {"hr_10": 0.5}
