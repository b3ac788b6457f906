"""What only a folder can go wrong with: disks, permissions, locks."""

from __future__ import annotations

import errno
import multiprocessing
import stat
import subprocess
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from semacdr.errors import StoreError
from semacdr.manifest import Facts, fingerprint
from semacdr.store import Draft, Store
from semacdr.store.names import Place
from tests.store.actions import EVENTS, FORKS, publish
from tests.store.conftest import Folder


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


def test_whoever_may_read_a_store_may_read_all_of_a_version(folder: Folder):
    store = folder.open()
    with store.open_draft(a_draft(), ["interactions"]) as draft:
        EVENTS.write_parquet(draft.folders["interactions"] / "interactions.parquet")
        (draft.folders["interactions"] / "part").mkdir()
        save_file({"mean": np.zeros(2)}, draft.folders["interactions"] / "part/whitening.safetensors")
        published = store.publish(draft, Facts(rows_in=2))["interactions"].path
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in published.rglob("*") if path.is_file()}
    assert len(modes) == 3
    assert len(set(modes.values())) == 1, modes


def test_empty_folder_in_a_versions_place_is_no_version(folder: Folder):
    version = publish(folder.open())
    (folder.folder / f"toy/interactions/{version}.1").mkdir()
    assert publish(folder.open(), key=2) == f"{version}.1"
    assert len(folder.open().manifests()) == 2


def test_mount_that_calls_a_taken_place_not_permitted_is_understood(folder: Folder, monkeypatch: pytest.MonkeyPatch):
    version = publish(folder.open())
    rename = Path.rename

    def rename_over_sftp(path: Path, target: Path) -> Path:
        try:
            return rename(path, target)
        except OSError as error:
            raise PermissionError(errno.EPERM, "Operation not permitted") from error

    monkeypatch.setattr(Path, "rename", rename_over_sftp)
    backend = folder.open()._backend
    with folder.open().open_draft(a_draft(), ["interactions"]) as draft:
        (draft.folders["interactions"] / "manifest.json").write_text("")
        assert not backend.put_version(draft.folders["interactions"], Place("toy", "interactions", version))
        monkeypatch.setattr(Path, "rename", lambda *_: rename_over_sftp(Path("/no such"), Path("/nowhere")))
        with pytest.raises(PermissionError):
            backend.put_version(draft.folders["interactions"], Place("toy", "interactions", "2020.01.01"))


def a_draft() -> Draft:
    return Draft(dataset="toy", stage="ingest", fingerprint="f", config={}, sources={}, inputs={})


def _hold(root: str, held: Event) -> None:
    with Store(root)._backend.exclusive("catalog"):
        held.set()
        time.sleep(600)


def test_lock_of_a_dead_process_is_free(folder: Folder):
    held = FORKS.Event()
    holder = FORKS.Process(target=_hold, args=(folder.uri, held))
    holder.start()
    assert held.wait(30)
    waiter = FORKS.Process(target=_take, args=(folder.uri,))
    waiter.start()
    waiter.join(0.3)
    assert waiter.exitcode is None
    holder.kill()
    holder.join(30)
    waiter.join(30)
    assert waiter.exitcode == 0
    assert multiprocessing.active_children() == []


def _take(root: str) -> None:
    with Store(root)._backend.exclusive("catalog"):
        pass
