"""What people do to a store, through the program's own commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result

from semacdr.cli import main
from semacdr.store import Store, rebuild_catalog
from tests.store.shelves import GATE_CHECKS, INTERACTIONS, put, put_all


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Two versions of each artifact of ``toy``, the second of another content; ``books`` has interactions alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEMACDR_STORE", str(tmp_path / "store"))
    store = Store(tmp_path / "store")
    put_all(store)
    put(store, "interactions", INTERACTIONS.head(1), key={"n": 2}, metrics={"ndcg_10": 0.25})
    put(store, "interactions", INTERACTIONS.head(1), dataset="books")
    rebuild_catalog(store)
    return store


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def two(store: Store) -> tuple[str, str]:
    first, second = (manifest.version for manifest in store.manifests("toy", "interactions"))
    return first, second


TOY = ("--dataset", "toy")


def test_promote_moves_an_alias_and_show_tells_its_history(store: Store):
    first, second = two(store)
    assert call("promote", f"interactions@{first}", "production", "--reason", "a start", *TOY).exit_code == 0
    moved = call("promote", "interactions@current", "production", *TOY)
    assert moved.output == f"production points at interactions@{second}\n"
    assert call("promote", "interactions@current", "production", *TOY).output.endswith("as before\n")
    shown = json.loads(call("show", "interactions@production", *TOY).output)
    assert shown["version"] == second
    production = shown["aliases"]["production"]
    assert production["version"] == second
    assert [(move["version"], move["reason"]) for move in production["history"]] == [(first, "a start"), (second, "")]
    assert "production" in call("artifacts", "toy").output


def test_refused_version_needs_an_override_that_is_kept(store: Store):
    items = put(store, "items", store.get("toy", "items").scan().collect().head(1), key=9)
    verdict = {items.reference: {"passed": False, "reasons": ["recall fell"]}}
    put(store, "gate", GATE_CHECKS, table="gate_checks", details={"verdicts": verdict})
    refused = call("promote", "items@current", "production")
    assert (refused.exit_code, "refused by the gate" in refused.output) == (2, True)
    assert store.aliases("toy", "items").keys() == {"current"}
    assert call("promote", "items@current", "production", "--override", "demo").exit_code == 0
    assert store.alias_history("toy", "items", "production")[0].reason == "refused by the gate, overridden: demo"
    found = call("sql", "select reason from gate_checks where not passed", "--csv")
    assert found.output == "reason\nrecall fell\n"


def test_rollback_goes_back(store: Store):
    first, second = two(store)
    result = call("rollback", "interactions", "current", *TOY, "--reason", "wrong logs")
    assert result.output == f"current points at interactions@{first}; it was at interactions@{second}\n"
    assert call("sql", "select distinct version from interactions where dataset = 'toy'", "--csv").output.split() == [
        "version",
        first,
    ]


def test_diff_shows_what_differs_as_table_and_json(store: Store):
    first, second = two(store)
    table = call("diff", f"interactions@{first}", "interactions", *TOY)
    for cell in (first, second, "ndcg_10", "0.25", "interactions.parquet.sha256", "rows_out.interactions", "-2"):
        assert cell in table.output
    document = json.loads(call("diff", f"interactions@{first}", f"interactions@{second}", *TOY, "--json").output)
    assert (document["same_fingerprint"], document["a"], document["b"]) == (
        False,
        f"interactions@{first}",
        f"interactions@{second}",
    )
    assert {"section": "metrics", "field": "ndcg_10", "a": None, "b": 0.25} in document["differences"]
    digests = [d for d in document["differences"] if d["field"].endswith("sha256")]
    assert all(len(d["a"]) == 64 for d in digests)
    assert len(digests) == 1
    assert "do not differ" in call("diff", "items", "items").output


def test_lineage_is_a_tree_up_and_down(store: Store):
    first, _ = two(store)
    tree = call("lineage", "embeddings").output
    assert tree.index("made from") < tree.index(f"interactions@{first}") < tree.index("used by")
    assert tree.index("used by") < tree.index("recommendations@")
    newest = call("lineage", "interactions", *TOY).output
    assert newest.count("nothing in the store") == 2
    assert call("lineage", "recommendations").output.count("interactions@") == 2


def test_lineage_table_tells_steps_and_what_is_gone(store: Store):
    items = store.get("toy", "items").manifest.version
    (store.root / "toy/items/current").unlink()
    store.retire_version("toy", "items", items)
    table = call("lineage", "recommendations", "--table").output
    line = next(line for line in table.splitlines() if f"items@{items}" in line)
    assert "not in the store" in line
    assert " 2 " in line
    assert f"items@{items} (not in the store)" in call("lineage", "recommendations").output


def test_verify_exits_with_1_when_anything_is_broken(store: Store):
    first, second = two(store)
    for arguments in ((), ("items",), (f"interactions@{first}", *TOY), ("interactions", *TOY), TOY):
        sound = call("verify", *arguments)
        assert (sound.exit_code, "as it was published" in sound.output) == (0, True), sound.output
    (store.root / "toy/interactions" / second / "interactions.parquet").write_bytes(b"broken")
    for arguments in ((), ("interactions", *TOY), ("interactions@current", *TOY)):
        broken = call("verify", *arguments)
        assert (broken.exit_code, f"toy/interactions/{second}" in broken.output) == (1, True), broken.output
    assert call("verify", f"interactions@{first}", *TOY).exit_code == 0


def test_prune_shows_first_and_acts_with_yes(store: Store):
    for key in range(10, 14):
        put(store, "items", store.get("toy", "items").scan().collect(), key=key)
    before = [manifest.reference for manifest in store.manifests("toy", "items")]
    asked = call("prune", "--keep-last", 1)
    assert "would remove 2 versions and 0 leftovers" in asked.output
    assert "--yes" in asked.output
    assert [manifest.reference for manifest in store.manifests("toy", "items")] == before
    done = call("prune", "--keep-last", 1, "--yes")
    assert "removed 2 versions" in done.output
    # The first is what the embeddings were made from; a rollback would take the last but one.
    assert [manifest.reference for manifest in store.manifests("toy", "items")] == [before[0], *before[-2:]]
    assert "removed 0 versions and 2 leftovers" in call("prune", "--grace-hours", 0, "--yes").output
    assert "would remove 0 versions and 0 leftovers" in call("prune").output
    assert call("verify").exit_code == 0


def test_catalog_rebuild_makes_it_from_the_manifests_alone(store: Store):
    rows = call("sql", "select * exclude (seconds) from artifacts order by all", "--csv").output
    store.catalog.unlink()
    assert call("sql", "from artifacts").exit_code == 1
    rebuilt = call("catalog", "rebuild")
    assert "6 versions" in rebuilt.output
    assert call("sql", "select * exclude (seconds) from artifacts order by all", "--csv").output == rows


MISTAKES = {
    ("promote", "item@current", "production"): "did you mean 'items'",
    ("promote", "items@1999.01.01", "production"): "no items@1999.01.01",
    ("promote", "items@curent", "production"): "did you mean 'current'",
    ("promote", "items@current", "2026.01.01"): "no alias can be called that",
    ("promote", "../items@current", "production"): "no artifact can be called that",
    ("promote", "interactions@current", "production"): "of which data set?",
    ("rollback", "items", "curent"): "did you mean 'current'",
    ("rollback", "items", "current"): "no version to go back to",
    ("rollback", "itms", "current"): "did you mean 'items'",
    ("diff", "items", "items@19"): "no version can be called that",
    ("lineage", "items", "--dataset", "toys"): "did you mean 'toy'",
    ("show", "items", "--dataset", "books"): "no artifact 'items'",
    ("verify", "items@nightly"): "no items@nightly",
    ("sql", "from opened"): "DuckDB refuses the query",
    ("prune", "--keep-days", "nan"): "--keep-days",
    ("prune", "--keep-days", "999999"): "at most 36,500",
    ("sql", "latin-1.sql"): "expected: SQL in UTF-8",
    ("artifacts", "--store", ""): "store",
}


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("arguments", MISTAKES)
def test_mistakes_exit_with_2_and_say_what_to_do(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin-1.sql").write_bytes("select 'é'".encode("latin-1"))
    result = call(*arguments)
    assert (result.exit_code, MISTAKES[arguments] in result.output) == (2, True), result.output
    assert "do:" in result.output
    assert "Traceback" not in result.output


def test_broken_manifest_is_a_fault_and_exits_with_1(store: Store):
    _, second = two(store)
    (store.root / "toy/interactions" / second / "manifest.json").write_text("{}")
    result = call("show", "interactions", *TOY)
    assert (result.exit_code, "is no manifest" in result.output) == (1, True), result.output
    assert call("show", "items").exit_code == 0


def test_queries_can_write_nothing(store: Store):
    before = store.catalog.read_bytes()
    assert call("sql", "drop table artifacts").exit_code == 2
    assert store.catalog.read_bytes() == before
    parquet = next(store.root.rglob("*.parquet"))
    whole = parquet.read_bytes()
    for query in (
        f"copy (select 1) to '{parquet}'",
        f"select 1; attach '{store.catalog}' as c",
        f"export database '{store.root}'",
        f"copy (pivot artifacts on name using count(*)) to '{parquet}'",
        f"explain analyze copy (select 1) to '{parquet}'",
        f"prepare p as copy (select 1) to '{parquet}'; execute p",
    ):
        refused = call("sql", query)
        assert (refused.exit_code, "looks and does not write" in refused.output) == (2, True), refused.output
    assert parquet.read_bytes() == whole
    assert pl.DataFrame({"n": [6]}).write_csv() == call("sql", "select count(*) as n from artifacts", "--csv").output


@pytest.mark.parametrize("history", ["films:a\nbooks:b", '"films:a', '"films:a"b', "films", "films:,books:b"])
def test_history_that_cannot_be_read_is_refused_in_words(store: Store, history: str):
    refused = call("recommend", "toy", "--store", store.root, "--history", history, "--domain", "films")
    assert refused.exit_code == 2
    assert "--history" in refused.output
    assert "DOMAIN:ITEM,DOMAIN:ITEM, oldest first, on one line" in refused.output


def test_queries_all_answer_and_fail_in_words(store: Store):
    assert call("sql", "select 1 as a; select 2 as b", "--csv").output == "a\n1\nb\n2\n"
    for query in (
        "pivot artifacts on name using count(*)",
        "explain analyze from artifacts",
        "set threads = 1",
        "show tables",
    ):
        assert call("sql", query).exit_code == 0, query
    for query, message in (
        ("", "no query"),
        ("/* nothing */", "no query"),
        ("select cast('x' as int)", "Conversion Error"),
    ):
        failed = call("sql", query)
        assert (failed.exit_code, message in failed.output) == (2, True), failed.output
        assert "Traceback" not in failed.output
    store.catalog.write_bytes(b"no database")
    failed = call("sql", "select 1")
    assert (failed.exit_code, "semacdr catalog rebuild" in failed.output) == (1, True), failed.output


def test_catalog_of_a_copied_store_says_whose_files_it_reads(store: Store, tmp_path: Path):
    query = ("sql", "select count(*) from interactions", "--csv")
    assert "rebuild" not in call(*query).output
    copy = tmp_path / "copy"
    shutil.copytree(store.root, copy)
    assert "`semacdr catalog rebuild` makes it anew" in call(*query, "--store", copy).output
    (tmp_path / "link").symlink_to(store.root)
    assert "rebuild" not in call(*query, "--store", tmp_path / "link").output
    call("catalog", "rebuild", "--store", copy)
    assert "rebuild" not in call(*query, "--store", copy).output


def test_upkeep_of_a_store_that_is_not_there_is_refused_and_makes_none(tmp_path: Path):
    for command in (("verify",), ("prune", "--yes"), ("catalog", "rebuild")):
        refused = call(*command, "--store", tmp_path / "none")
        assert (refused.exit_code, "no store at" in refused.output) == (1, True), refused.output
    assert not (tmp_path / "none").exists()


@pytest.mark.usefixtures("store")
def test_file_that_cannot_be_used_is_named_without_a_traceback(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/secret/store.json")

    monkeypatch.setattr(Store, "survey", refuse)
    refused = call("artifacts")
    assert (refused.exit_code, "/secret/store.json cannot be used" in refused.output) == (2, True), refused.output
    with pytest.raises(PermissionError):
        CliRunner().invoke(main, ["--debug", "artifacts"], catch_exceptions=False)
