from __future__ import annotations

import json
import multiprocessing
import subprocess
from pathlib import Path

import polars as pl
import pytest

from semacdr.errors import DataError, StoreError
from semacdr.manifest import FILE_NAME, Facts, file_sha256, fingerprint
from semacdr.store import Draft, Store

EVENTS = pl.DataFrame(
    {"user_id": ["u", "v"], "domain": ["a", "a"], "item_id": ["i", "j"], "timestamp_s": [1, 2], "rating": [None, 4.5]}
)


def publish(store: Store, frame: pl.DataFrame = EVENTS, *, key: object = 1, dataset: str = "toy") -> str:
    """Publish one interactions artifact and return its version."""
    draft = Draft(
        dataset=dataset, stage="ingest", fingerprint=fingerprint(key), config={"key": key}, sources={}, inputs={}
    )
    with store.open_draft(draft, ["interactions"]):
        frame.write_parquet(draft.folders["interactions"] / "interactions.parquet")
        facts = Facts(rows_in=3, dropped={"no user": 1}, metrics={"ndcg_10": 0.5})
        return store.publish(draft, facts)["interactions"].manifest.version


def test_publish_writes_a_manifest_that_matches_the_files(tmp_path: Path):
    store = Store(tmp_path)
    publish(store)
    artifact = store.get("toy", "interactions")
    (record,) = artifact.manifest.files
    assert record.sha256 == file_sha256(artifact.path / record.path)
    assert record.bytes == (artifact.path / record.path).stat().st_size
    assert artifact.manifest.rows_in == 3
    assert artifact.manifest.rows_out == {"interactions": 2}
    assert artifact.manifest.dropped == {"no user": 1}
    assert artifact.scan().collect().equals(EVENTS)


def test_publish_same_fingerprint_returns_the_published_version(tmp_path: Path):
    store = Store(tmp_path)
    assert publish(store) == publish(store)
    assert len(store.manifests("toy", "interactions")) == 1


def test_publish_other_fingerprint_makes_the_next_version_and_moves_current(tmp_path: Path):
    store = Store(tmp_path)
    first = publish(store, key=1)
    second = publish(store, key=2)
    assert second == f"{first}.1"
    assert store.get("toy", "interactions").manifest.version == second
    assert store.get("toy", "interactions", first).manifest.config == {"key": 1}


def test_current_returns_to_an_older_version_and_keeps_its_history(tmp_path: Path):
    store = Store(tmp_path)
    first, second = publish(store, key=1), publish(store, key=2)
    publish(store, key=1)
    alias = json.loads((tmp_path / "toy/interactions/current").read_text())
    assert [entry["version"] for entry in alias["history"]] == [first, second, first]


def test_version_without_manifest_does_not_exist(tmp_path: Path):
    store = Store(tmp_path)
    version = publish(store)
    (tmp_path / "toy/interactions" / version / FILE_NAME).unlink()
    with pytest.raises(StoreError, match="no interactions@current of data set 'toy'"):
        store.get("toy", "interactions")


def test_failed_stage_leaves_nothing(tmp_path: Path):
    store = Store(tmp_path)
    draft = Draft(dataset="toy", stage="ingest", fingerprint="f", config={}, sources={}, inputs={})

    def fail_half_way() -> None:
        with store.open_draft(draft, ["interactions"]):
            (draft.folders["interactions"] / "interactions.parquet").write_bytes(b"half")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    assert store.manifests() == []
    assert list((tmp_path / ".staging").iterdir()) == []


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (EVENTS.drop("rating"), "expected"),
        (EVENTS.with_columns(pl.col("timestamp_s").cast(pl.String)), "has other types"),
        (pl.concat([EVENTS, EVENTS]), "breaks its contract in 4 rows"),
        (EVENTS.with_columns(user_id=pl.lit("")), "breaks its contract"),
    ],
)
def test_table_that_breaks_its_contract_is_not_published(tmp_path: Path, frame: pl.DataFrame, message: str):
    store = Store(tmp_path)
    with pytest.raises(DataError, match=message):
        publish(store, frame)
    assert store.manifests() == []


def test_artifact_without_its_table_is_not_published(tmp_path: Path):
    store = Store(tmp_path)
    draft = Draft(dataset="toy", stage="ingest", fingerprint="f", config={}, sources={}, inputs={})
    with pytest.raises(DataError, match="table interactions has no file"), store.open_draft(draft, ["interactions"]):
        store.publish(draft, Facts())


@pytest.mark.parametrize(
    ("dataset", "name", "version", "message"),
    [
        ("toys", "interactions", "current", "did you mean 'toy'"),
        ("toy", "interaction", "current", "did you mean 'interactions'"),
        ("toy", "interactions", "1999.01.01", "found:    versions "),
        ("toy", "interactions", "production", "found:    versions "),
    ],
)
def test_unknown_artifact_names_what_there_is(tmp_path: Path, dataset: str, name: str, version: str, message: str):
    store = Store(tmp_path)
    publish(store)
    with pytest.raises(StoreError, match=message):
        store.get(dataset, name, version)


@pytest.mark.parametrize(("content", "message"), [("{", "is no manifest"), ('{"layout_version": 99}', "newer SemaCDR")])
def test_manifest_that_cannot_be_read_is_refused(tmp_path: Path, content: str, message: str):
    store = Store(tmp_path)
    version = publish(store)
    (tmp_path / "toy/interactions" / version / FILE_NAME).write_text(content)
    with pytest.raises(StoreError, match=message):
        store.get("toy", "interactions")


def test_broken_alias_is_refused(tmp_path: Path):
    store = Store(tmp_path)
    publish(store)
    (tmp_path / "toy/interactions/current").write_text("2026")
    with pytest.raises(StoreError, match="is no alias"):
        store.get("toy", "interactions")


def test_full_disk_is_one_clear_error_and_publishes_nothing(small_disk: Path):
    store = Store(small_disk / "store")
    big = pl.DataFrame({"user_id": [f"{fingerprint(i)}" for i in range(40_000)]}).with_columns(
        domain=pl.lit("a"), item_id=pl.col("user_id"), timestamp_s=pl.lit(1, pl.Int64), rating=pl.lit(1.0)
    )
    with pytest.raises(StoreError, match=r"cannot be written.*\n(.*\n)*.*free some space"):
        publish(store, big)
    assert store.manifests() == []
    assert list((small_disk / "store/.staging").iterdir()) == []
    publish(store)
    assert len(store.manifests()) == 1


def test_read_only_disk_is_one_clear_error(small_disk: Path):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match="read-only: choose another store"):
        publish(Store(small_disk / "store"))


def test_store_below_a_file_is_one_clear_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        publish(Store(tmp_path / "file" / "store"))


def _publish_many(root: Path, keys: list[int]) -> None:
    for key in keys:
        publish(Store(root), key=key)


def test_publishers_in_several_processes_never_share_a_version(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_publish_many, args=(tmp_path, list(range(start, start + 8)))) for start in (0, 100, 200)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    known = Store(tmp_path).manifests("toy", "interactions")
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len({manifest.version for manifest in known}) == len({manifest.fingerprint for manifest in known}) == 24
