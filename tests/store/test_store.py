"""What a store promises, in a folder and in a bucket."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, tzinfo
from pathlib import Path

import polars as pl
import pytest

from semacdr.errors import ConfigError, DataError, StoreError
from semacdr.manifest import FILE_NAME, Facts, file_sha256
from semacdr.store import Draft, Store
from semacdr.store import aliases as aliases_module
from semacdr.store import store as store_module
from tests.store.actions import EVENTS, FORKS, publish, publish_many
from tests.store.conftest import Folder, Lab


def set_clock(monkeypatch: pytest.MonkeyPatch, *now: str) -> None:
    """Let the store's clock say these times, one after the other, and then the last for ever."""
    times = [datetime.fromisoformat(text).replace(tzinfo=UTC) for text in now]

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return times.pop(0) if len(times) > 1 else times[0]

    monkeypatch.setattr(store_module, "datetime", Clock)
    monkeypatch.setattr(aliases_module, "datetime", Clock)


def test_publish_writes_a_manifest_that_matches_the_files(lab: Lab):
    store = lab.open()
    publish(store)
    artifact = lab.open().get("toy", "interactions")
    (record,) = artifact.manifest.files
    assert record.sha256 == file_sha256(artifact.path / record.path)
    assert record.bytes == (artifact.path / record.path).stat().st_size
    assert artifact.manifest.rows_in == 3
    assert artifact.manifest.rows_out == {"interactions": 2}
    assert artifact.manifest.dropped == {"no user": 1}
    assert artifact.scan().collect().equals(EVENTS)
    assert store.faults(artifact.manifest) == []


def test_publish_leaves_nothing_in_staging(lab: Lab):
    publish(lab.open())
    assert lab.open().staging_leftovers() == []
    assert [key for key in lab.list() if key.startswith(".staging")] == []


def test_publish_same_fingerprint_returns_the_published_version(lab: Lab):
    assert publish(lab.open()) == publish(lab.open())
    assert len(lab.open().manifests("toy", "interactions")) == 1


def test_publish_other_fingerprint_makes_the_next_version_and_moves_current(lab: Lab):
    store = lab.open()
    first = publish(store, key=1)
    second = publish(store, key=2)
    assert second == f"{first}.1"
    assert store.get("toy", "interactions").manifest.version == second
    assert store.get("toy", "interactions", first).manifest.config == {"key": 1}


def test_publish_under_an_alias_that_cannot_be_publishes_nothing(lab: Lab):
    with pytest.raises(ConfigError, match="no alias can be called that"):
        publish(lab.open(), alias="Upper.case")
    assert lab.open().manifests("toy", "interactions") == []


def test_publish_fixed_version_again_returns_it(lab: Lab):
    store = lab.open()
    assert publish(store, version="2026.11.24") == "2026.11.24"
    assert publish(lab.open(), version="2026.11.24") == "2026.11.24"


def test_publish_fixed_version_of_something_else_names_the_field(lab: Lab):
    publish(lab.open(), key={"epochs": 3, "width": 64}, version="2026.11.24")
    with pytest.raises(StoreError, match=r"config\.key\.epochs: 3 -> 4\n"):
        publish(lab.open(), key={"epochs": 4, "width": 64}, version="2026.11.24")
    assert len(lab.open().manifests()) == 1


def test_publish_fixed_version_that_is_none_is_refused(lab: Lab):
    with pytest.raises(ConfigError, match=r"expected: YYYY\.MM\.DD"):
        publish(lab.open(), version="2026.13.01")


def test_publish_fixed_version_whose_place_has_foreign_files_is_refused(lab: Lab):
    publish(lab.open())
    lab.put("toy/interactions/2020.01.01/foreign.txt", b"x")
    with pytest.raises(StoreError, match="its place is not free"):
        publish(lab.open(), key=2, version="2020.01.01")


def test_current_returns_to_an_older_version_and_keeps_its_history(lab: Lab):
    store = lab.open()
    first, second = publish(store, key=1), publish(store, key=2)
    publish(store, key=1)
    moves = lab.open().alias_history("toy", "interactions", "current")
    assert [move.version for move in moves] == [first, second, first]
    assert json.loads(lab.get("toy/interactions/current"))["version"] == first


def test_alias_moves_only_from_where_it_is_expected(lab: Lab):
    store = lab.open()
    first, second = publish(store, key=1), publish(store, key=2)
    assert store.move_alias("toy", "interactions", "production", first, reason="measured")
    assert not store.move_alias("toy", "interactions", "production", first)
    with pytest.raises(StoreError, match="was moved by someone else"):
        store.move_alias("toy", "interactions", "production", second, expected=second)
    assert store.move_alias("toy", "interactions", "production", second, expected=first)
    history = store.alias_history("toy", "interactions", "production")
    assert [(move.version, move.reason) for move in history] == [(first, "measured"), (second, "")]
    assert store.aliases("toy", "interactions") == {"current": second, "production": second}


def test_alias_to_a_version_that_is_not_there_is_refused(lab: Lab):
    store = lab.open()
    publish(store)
    with pytest.raises(StoreError, match=r"no interactions@2020\.01\.01"):
        store.move_alias("toy", "interactions", "production", "2020.01.01")


def test_alias_moved_by_many_at_once_loses_no_move(lab: Lab):
    store = lab.open()
    versions = [publish(store, key=key) for key in range(2)]
    barrier = threading.Barrier(4)

    def move(number: int) -> int:
        other = lab.open()
        barrier.wait()
        return sum(other.move_alias("toy", "interactions", f"p{number % 2}", versions[i % 2]) for i in range(6))

    with ThreadPoolExecutor(4) as threads:
        moved = list(threads.map(move, range(4)))
    histories = lab.open().alias_histories("toy", "interactions")
    assert len(histories["p0"]) + len(histories["p1"]) == sum(moved)


def test_version_without_manifest_does_not_exist(lab: Lab):
    version = publish(lab.open())
    lab.delete(f"toy/interactions/{version}/{FILE_NAME}")
    with pytest.raises(StoreError, match="no interactions@current of data set 'toy'"):
        lab.open().get("toy", "interactions")
    assert publish(lab.open(), key=2) == f"{version}.1"


def test_removed_version_is_gone_and_its_number_is_not_given_again(lab: Lab):
    store = lab.open()
    first, second, third = (publish(store, key=key) for key in range(3))
    store.move_alias("toy", "interactions", "current", first)
    store.remove_version("toy", "interactions", second)
    store.remove_version("toy", "interactions", third)
    assert [m.version for m in lab.open().manifests()] == [first]
    assert store.staging_leftovers() == []
    assert not [key for key in lab.list() if f"/{third}/" in key]
    assert publish(store, key=9) == f"{first}.3"


def test_removed_version_goes_on_for_a_reader_that_is_inside(lab: Lab):
    store = lab.open()
    first = publish(store, key=1)
    publish(store, key=2)
    with (store.get("toy", "interactions", first).path / "interactions.parquet").open("rb") as file:
        store.remove_version("toy", "interactions", first)
        assert pl.read_parquet(file.read()).equals(EVENTS)


def test_version_that_an_alias_points_at_is_not_removed(lab: Lab):
    store = lab.open()
    version = publish(store)
    for give_up in (store.remove_version, store.retire_version):
        with pytest.raises(StoreError, match="alias current points at it"):
            give_up("toy", "interactions", version)
    with pytest.raises(StoreError, match=r"no interactions@2020\.01\.01"):
        store.remove_version("toy", "interactions", "2020.01.01")


def test_retired_version_is_not_found_and_its_files_stay_until_they_are_removed(lab: Lab):
    store = lab.open()
    first, second = publish(store, key=1), publish(store, key=2)
    inside = store.get("toy", "interactions", first)
    store.retire_version("toy", "interactions", first)
    assert [m.version for m in lab.open().manifests()] == [second]
    assert inside.scan().collect().equals(EVENTS)
    (leftover,) = lab.open().staging_leftovers()
    assert leftover.kind == "retired"
    lab.open().remove_leftover(leftover)
    assert lab.open().staging_leftovers() == []
    assert not [key for key in lab.list() if f"/{first}/" in key]


def test_failed_stage_leaves_nothing(lab: Lab):
    store = lab.open()
    draft = Draft(dataset="toy", stage="ingest", fingerprint="f", config={}, sources={}, inputs={})

    def fail_half_way() -> None:
        with store.open_draft(draft, ["interactions"]):
            (draft.folders["interactions"] / "interactions.parquet").write_bytes(b"half")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    assert store.manifests() == []
    assert list((store.root / ".staging").iterdir()) == []


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
        ("toy", "interactions", "curent", "did you mean 'current'"),
    ],
)
def test_unknown_artifact_names_what_there_is(lab: Lab, dataset: str, name: str, version: str, message: str):
    publish(lab.open())
    with pytest.raises(StoreError, match=message):
        lab.open().get(dataset, name, version)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is no manifest"),
        (b"[]", "is no manifest"),
        (b"\xff\x00", "is no manifest"),
        (b'{"layout_version": 99}', "newer SemaCDR"),
    ],
)
def test_broken_manifest_is_refused_and_the_rest_is_read(lab: Lab, content: bytes, message: str):
    first, second = publish(lab.open(), key=1), publish(lab.open(), key=2)
    lab.put(f"toy/interactions/{second}/{FILE_NAME}", content)
    store = lab.open()
    with pytest.raises(StoreError, match=message):
        store.get("toy", "interactions")
    survey = store.survey()
    assert [m.version for m in survey.manifests] == [first]
    assert [place.version for place in survey.broken] == [second]
    assert publish(lab.open(), key=3) == f"{first}.2"


def test_manifest_of_another_place_is_refused(lab: Lab):
    version = publish(lab.open())
    data = lab.get(f"toy/interactions/{version}/{FILE_NAME}")
    lab.put(f"toy/interactions/2020.01.01/{FILE_NAME}", data)
    with pytest.raises(StoreError, match="belongs to another version"):
        lab.open().get("toy", "interactions", "2020.01.01")


def test_manifest_with_a_file_outside_its_folder_is_refused(lab: Lab):
    version = publish(lab.open())
    key = f"toy/interactions/{version}/{FILE_NAME}"
    lab.put(key, lab.get(key).replace(b'"interactions.parquet"', b'"../../../../etc/passwd"'))
    with pytest.raises(StoreError, match="is no manifest"):
        lab.open().get("toy", "interactions")


@pytest.mark.parametrize(
    "content", [b"2026", b'{"history": []}', b'{"history": [{"version": "../../x", "moved_at": ""}]}']
)
def test_broken_alias_is_refused_and_left_out(lab: Lab, content: bytes):
    publish(lab.open())
    lab.put("toy/interactions/production", content)
    with pytest.raises(StoreError, match="is no alias"):
        lab.open().get("toy", "interactions", "production")
    assert list(lab.open().aliases("toy", "interactions")) == ["current"]


def test_store_of_a_newer_layout_is_refused(lab: Lab):
    publish(lab.open())
    lab.put("store.json", b'{"layout_version": 2}')
    with pytest.raises(StoreError, match="written by a newer SemaCDR"):
        lab.open().manifests()
    with pytest.raises(StoreError, match="written by a newer SemaCDR"):
        publish(lab.open(), key=2)
    lab.put("store.json", b"{}")
    with pytest.raises(StoreError, match=r"store\.json of the store .* cannot be read"):
        lab.open().get("toy", "interactions")


def test_clock_that_goes_back_keeps_the_order(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    set_clock(monkeypatch, "2026-11-24T12:00")
    first = publish(lab.open(), key=1)
    set_clock(monkeypatch, "2026-11-20T12:00")
    second = publish(lab.open(), key=2)
    assert (first, second) == ("2026.11.24", "2026.11.24.1")
    assert [m.version for m in lab.open().manifests()] == [first, second]
    moves = lab.open().alias_history("toy", "interactions", "current")
    assert moves[0].moved_at < moves[1].moved_at
    set_clock(monkeypatch, "2026-11-25T00:00")
    assert publish(lab.open(), key=3) == "2026.11.25"


def test_eleventh_version_of_a_day_comes_after_the_second(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    set_clock(monkeypatch, "2026-11-24T12:00")
    versions = [publish(lab.open(), key=key) for key in range(12)]
    assert versions[-1] == "2026.11.24.11"
    assert [m.version for m in lab.open().manifests()] == versions


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda lab, key: lab.put(key, lab.get(key)[:-1]), "bytes, not"),
        (lambda lab, key: lab.put(key, b"PAR0" + lab.get(key)[4:]), "other content"),
        (lambda lab, key: lab.delete(key), "missing"),
        (lambda lab, key: lab.put(f"{key}.copy", b"x"), "not in the manifest"),
    ],
)
def test_faults_names_what_differs(lab: Lab, spoil: Callable[[Lab, str], None], fault: str):
    version = publish(lab.open())
    spoil(lab, f"toy/interactions/{version}/interactions.parquet")
    store = lab.open()
    (found,) = store.faults(store.manifests()[0])
    assert fault in found


def test_table_is_read_from_the_published_files_alone(tmp_path: Path):
    store = Store(tmp_path / "a [1] *")
    version = publish(store)
    artifact = store.get("toy", "interactions", version)
    EVENTS.write_parquet(artifact.path / "interactions-2.parquet")
    (artifact.path / "interactions").mkdir()
    EVENTS.write_parquet(artifact.path / "interactions/part.parquet")
    assert artifact.scan().collect().equals(EVENTS)


def test_catalog_is_replaced_and_read_back(lab: Lab):
    store = lab.open()
    assert not store.catalog.exists()
    for content in (b"one", b"two"):
        store.replace_catalog(lambda path, content=content: path.write_bytes(content))  # type: ignore[misc]
        assert lab.open().catalog.read_bytes() == store.catalog.read_bytes() == lab.get("catalog.duckdb") == content
    assert store.staging_leftovers() == []


def test_catalog_that_cannot_be_written_leaves_the_old_one(lab: Lab):
    store = lab.open()
    store.replace_catalog(lambda path: path.write_bytes(b"one"))

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        store.replace_catalog(fail)
    assert lab.open().catalog.read_bytes() == b"one"
    assert store.staging_leftovers() == []


def test_publishers_in_several_processes_never_share_a_version(lab: Lab):
    workers = [
        FORKS.Process(target=publish_many, args=(lab.uri, lab.cache, lab.environment, list(range(start, start + 4))))
        for start in (0, 100, 200)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    known = lab.open().manifests("toy", "interactions")
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len({manifest.version for manifest in known}) == len({manifest.fingerprint for manifest in known}) == 12


def test_publishers_of_the_same_get_the_winners_artifact(lab: Lab):
    barrier = threading.Barrier(4)

    def race(_: int) -> str:
        store = lab.open()
        barrier.wait()
        return publish(store, EVENTS, key="same")

    with ThreadPoolExecutor(4) as threads:
        versions = set(threads.map(race, range(4)))
    assert len(versions) == 1
    assert [m.version for m in lab.open().manifests()] == list(versions)


def test_number_of_a_removed_version_is_not_given_to_another_that_an_alias_would_mean(folder: Folder):
    store = folder.open()
    publish(store, key=0)
    first = publish(store, key=1, alias="model-a")
    shutil.rmtree(folder.folder / "toy" / "interactions" / first)
    assert publish(store, key=2, alias="model-b") != first
