"""The macros and views of ``sql/catalog``, and the queries of ``sql/examples``: given rows, expected rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import polars as pl
import pytest

from semacdr.database import SQL_FOLDER
from semacdr.store import Store, rebuild_catalog
from tests.store.shelves import EVENT_TIMES, INTERACTIONS, put, put_all


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    put_all(store)
    put_all(store, dataset="other")
    rebuild_catalog(store)
    return store


def query(store: Store, sql: str) -> list[tuple]:
    with duckdb.connect(str(store.catalog), read_only=True) as connection:
        connection.execute("set timezone = 'UTC'")
        return connection.execute(sql).fetchall()


def test_similar_items_are_the_nearest_over_all_domains_with_titles(store: Store):
    rows = query(
        store,
        "select source_domain, place, domain, item_id, title, round(cosine::double, 3) from similar_items('i', 2)"
        " where dataset = 'toy'",
    )
    assert rows == [
        ("a", 1, "b", "k", None, 1.0),
        ("a", 2, "a", "j", "A j", 0.6),
        ("b", 1, "a", "j", "A j", 0.8),
        ("b", 2, "a", "i", "A i", 0.0),
    ]


def test_similar_items_keep_to_their_data_set(store: Store):
    assert query(store, "select dataset, count(*) from similar_items('j', 9) group by all order by all") == [
        ("other", 3),
        ("toy", 3),
    ]
    assert query(store, "from similar_items('unknown', 9)") == []


def test_history_is_one_users_oldest_first(store: Store):
    rows = query(store, "select event_at, domain, item_id, title, rating from history('u') where dataset = 'toy'")
    assert rows == [(EVENT_TIMES[1], "b", "k", None, 1.0), (EVENT_TIMES[2], "a", "i", "A i", None)]


def test_recommendations_for_are_one_users_by_domain_and_rank(store: Store):
    rows = query(store, "select * exclude (dataset) from recommendations_for(user_id := 'u') where dataset = 'toy'")
    assert rows == [
        ("a", 1, "j", "A j", 0.9, "r1"),
        ("a", 2, "i", "A i", 0.1, "r2"),
        ("b", 1, "k", None, 0.5, "r3"),
    ]


def test_as_of_gives_the_version_of_a_time(store: Store):
    first = store.get("toy", "interactions").manifest.version
    second = put(store, "interactions", INTERACTIONS.head(1), key=2).manifest.version
    store.move_alias("toy", "interactions", "production", first)
    store.move_alias("toy", "interactions", "production", second)
    store.move_alias("toy", "interactions", "production", second)
    rebuild_catalog(store)
    moves = store.alias_history("toy", "interactions", "current")
    of_toy = "select version, is_published from as_of('interactions', '{}') where dataset = 'toy'"
    assert query(store, of_toy.format("2020-01-01")) == []
    assert query(store, of_toy.format(moves[0].moved_at)) == [(first, True)]
    assert query(store, of_toy.format(moves[1].moved_at)) == [(second, True)]
    assert query(store, "select dataset from as_of('interactions', now())") == [("other",), ("toy",)]
    production = "select version from as_of('interactions', '{}', alias := 'production')"
    start = store.alias_history("toy", "interactions", "production")[0].moved_at
    assert query(store, production.format(start)) == [(first,)]
    store.move_alias("toy", "interactions", "production", second)
    store.remove_version("toy", "interactions", first)
    rebuild_catalog(store)
    assert query(store, of_toy.format(moves[0].moved_at)) == [(first, False)]


def test_macros_are_there_when_what_they_read_is(tmp_path: Path):
    store = Store(tmp_path / "store")
    put(store, "interactions", INTERACTIONS.sort("domain", "user_id"))
    rebuild_catalog(store)
    macros = "select function_name from duckdb_functions() where function_type = 'table_macro' and not internal"
    assert query(store, macros) == [("as_of",)]


def test_macros_work_in_an_older_client(store: Store):
    client = Path(sys.executable).with_name("duckdb")
    asked = (
        "select count(*) from similar_items('i', 2); select count(*) from history('u');"
        "select count(*) from recommendations_for('u'); select count(*) from as_of('items', now());"
        "select count(*) from lineage_tree; select count(*) from interactions_versions where version > '2';"
    )
    run = subprocess.run(
        [str(client), str(store.catalog), "-csv", "-noheader", "-c", asked], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["8", "4", "6", "2", "10", "6"]


def example(store: Store, name: str) -> list[tuple]:
    return query(store, (SQL_FOLDER / "examples" / f"{name}.sql").read_text(encoding="utf-8"))


def test_example_of_changes_between_two_times(store: Store):
    before = store.get("toy", "recommendations").manifest.version
    changed = store.get("toy", "recommendations").scan().collect().with_columns(item_id=_other_items_for_one_user())
    after = put(store, "recommendations", changed, key=2).manifest.version
    rebuild_catalog(store)
    assert example(store, "what_recommendations_changed") == [("toy", before, after, 4, 2, 0.5)]


def test_example_of_what_depends_on_the_raw_logs(store: Store):
    rows = [row for row in example(store, "what_is_made_from_items") if row[0] == "toy"]
    items, vectors = (store.get("toy", name).reference for name in ("items", "embeddings"))
    ranked = store.get("toy", "recommendations").reference
    assert rows == [("toy", items, vectors, 1), ("toy", items, ranked, 2)]


def _other_items_for_one_user() -> pl.Expr:
    return pl.when(pl.col("user_id") == "u", pl.col("domain") == "a").then(pl.col("item_id") + "'").otherwise("item_id")
