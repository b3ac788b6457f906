"""The catalog of a store in a bucket of a real server."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from semacdr.cli import main
from semacdr.store import catalog_views, rebuild_catalog
from tests.store.conftest import Bucket
from tests.store.shelves import INTERACTIONS, put, put_all


def ask(bucket: Bucket, sql: str) -> str:
    result = CliRunner().invoke(main, ["sql", sql, "--csv", "--store", bucket.uri])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def filled(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    monkeypatch.setenv("SEMACDR_CACHE", str(tmp_path / "another machine"))
    store = bucket.open()
    put_all(store)
    put(store, "interactions", INTERACTIONS.head(1), key=2)
    rebuild_catalog(store)
    return bucket


def test_catalog_of_a_bucket_answers_on_another_machine(filled: Bucket):
    assert ask(filled, "select count(*) as n from interactions_versions") == "n\n4\n"
    assert ask(filled, "select count(*) as n from interactions") == "n\n1\n"
    near = ask(filled, "select item_id, round(cosine::double, 3) as near from similar_items('j', 1)")
    assert near == "item_id,near\ni,0.8\n"
    assert ask(filled, "select distinct path[:5] as path, left_out from artifacts") == "path,left_out\ns3://,\n"


def test_file_with_a_long_footer_is_read(filled: Bucket, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalog_views, "_FOOTER_BYTES", 16)
    rebuild_catalog(filled.open())
    assert ask(filled, "select count(*) as n from artifacts where left_out is not null") == "n\n0\n"
    assert ask(filled, "select count(*) as n from interactions_versions") == "n\n4\n"


def test_version_without_its_file_is_left_out_of_a_buckets_catalog(filled: Bucket):
    first, second = (manifest.version for manifest in filled.open().manifests("toy", "interactions"))
    filled.delete(f"toy/interactions/{first}/interactions.parquet")
    rebuild_catalog(filled.open())
    assert ask(filled, "select distinct version from interactions_versions") == f"version\n{second}\n"
    assert ask(filled, "select version from artifacts where left_out is not null") == f"version\n{first}\n"


def test_commands_work_on_a_bucket(filled: Bucket):
    def call(*arguments: str) -> str:
        result = CliRunner().invoke(main, [*arguments, "--store", filled.uri])
        assert result.exit_code == 0, result.output
        return result.output

    first, second = (manifest.version for manifest in filled.open().manifests("toy", "interactions"))
    assert "production points at" in call("promote", f"interactions@{first}", "production")
    assert f"current points at interactions@{first}" in call("rollback", "interactions", "current")
    assert ask(filled, "select distinct version from interactions") == f"version\n{first}\n"
    assert "used by" in call("lineage", "items")
    assert "as it was published" in call("verify")
    assert second in call("diff", f"interactions@{first}", f"interactions@{second}")
    assert "0 versions and 0 leftovers" in call("prune")
    assert "5 versions" in call("catalog", "rebuild")
