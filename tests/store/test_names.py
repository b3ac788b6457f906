from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semacdr.errors import ConfigError, StoreError
from semacdr.manifest import Facts, FileRecord
from semacdr.store import Draft, Store, names
from tests.store.actions import publish
from tests.store.conftest import Folder, Lab

BAD = [
    "", ".", "..", "../toy", "/etc", "a/b", "a\\b", "a\0b", "a\nb", "toy\n", "Toy", "t\u043ey", "t\u014dy",
    "toy\u202e", "x" * 64,
    "~", "-rf", ".staging", "a b", "*", "%2e%2e", "C:", "\uff11",
]  # fmt: skip


@pytest.mark.parametrize("name", [*BAD, *names.RESERVED])
def test_data_set_that_could_leave_the_store_is_refused(lab: Lab, name: str):
    store = lab.open()
    with pytest.raises(ConfigError, match="data set can"):
        publish(store, dataset=name)
    for refused in (store.get, store.aliases):
        with pytest.raises(ConfigError, match="data set can"):
            refused(name, "interactions")
    assert lab.list() == []


@pytest.mark.parametrize("name", BAD)
def test_artifact_alias_and_version_that_could_leave_the_store_are_refused(folder: Folder, name: str):
    store = folder.open()
    version = publish(store)
    before = folder.list()
    with pytest.raises(ConfigError, match="no artifact can be called"):
        store.get("toy", name)
    with pytest.raises(ConfigError, match="no version can be called"):
        store.get("toy", "interactions", name)
    with pytest.raises(ConfigError, match="no alias can be called"):
        store.move_alias("toy", "interactions", name, version)
    for give_up in (store.remove_version, store.retire_version):
        with pytest.raises(ConfigError, match="no version can be called"):
            give_up("toy", "interactions", name)
    with pytest.raises(ConfigError, match="no version can be called"):
        store.publish(
            Draft(dataset="toy", stage="s", fingerprint="", config={}, sources={}, inputs={}), Facts(), version=name
        )
    assert folder.list() == before


@pytest.mark.parametrize("version", ["2026.02.30", "2026.1.1", "2026.01.01.0", "2026.01.01.01", "\u0662026.01.01"])
def test_what_looks_like_a_version_is_none(version: str):
    assert not names.is_version(version)


@given(st.text(max_size=70))
def test_a_name_that_is_accepted_is_one_harmless_path_part(name: str):
    for accepts in (names.is_dataset, names.is_artifact, names.is_alias, names.is_version):
        if accepts(name):
            assert name.isascii()
            assert Path(f"/root/{name}").parts == ("/", "root", name)
            assert not name.startswith(".")


VERSIONS = st.builds(
    lambda day, number: f"{day:%Y.%m.%d}" + (f".{number}" if number else ""),
    st.dates(date(2000, 1, 1), date(2100, 1, 1)),
    st.integers(0, 30),
)


@given(st.sets(VERSIONS), st.dates(date(2000, 1, 1), date(2100, 1, 1)))
def test_next_version_comes_after_all_others(taken: set[str], today: date):
    version = names.next_version(today, taken)
    assert names.is_version(version)
    assert version not in taken
    assert all(names.version_key(other) < names.version_key(version) for other in taken)
    assert names.version_key(version) >= names.version_key(f"{today:%Y.%m.%d}")


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../b", "a//b", "./a", "", "a\\b", "a\0", "a\n"])
def test_file_record_cannot_lead_out_of_its_folder(path: str):
    with pytest.raises(ValueError, match="cannot be called"):
        FileRecord(path=path, bytes=0, sha256="")


@pytest.mark.parametrize("part", ["toy", "toy/interactions", "toy/interactions/{version}"])
def test_folder_that_is_a_link_is_refused(folder: Folder, tmp_path: Path, part: str):
    version = publish(folder.open())
    inside = folder.folder / part.format(version=version)
    inside.rename(tmp_path / "outside")
    inside.symlink_to(tmp_path / "outside")
    store = folder.open()
    assert store.manifests() == []
    with pytest.raises(StoreError, match="is a link"):
        store.get("toy", "interactions", version)


@pytest.mark.parametrize("name", ["{version}/manifest.json", "current"])
def test_file_that_is_a_link_is_refused(folder: Folder, tmp_path: Path, name: str):
    version = publish(folder.open())
    path = folder.folder / "toy/interactions" / name.format(version=version)
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    with pytest.raises(StoreError, match="is a link"):
        folder.open().get("toy", "interactions")


def test_table_that_is_a_link_is_a_fault(folder: Folder, tmp_path: Path):
    version = publish(folder.open())
    path = folder.folder / f"toy/interactions/{version}/interactions.parquet"
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    store = folder.open()
    assert store.faults(store.manifests()[0]) == ["interactions.parquet: a link"]


def test_link_in_a_draft_is_not_published(folder: Folder):
    store = folder.open()
    draft = Draft(dataset="toy", stage="ingest", fingerprint="f", config={}, sources={}, inputs={})
    publish(store)
    source = store.get("toy", "interactions").path / "interactions.parquet"
    with store.open_draft(draft, ["interactions"]):
        (draft.folders["interactions"] / "interactions.parquet").symlink_to(source)
        with pytest.raises(StoreError, match="cannot be published"):
            store.publish(draft, Facts())


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_files_have_the_users_umask(lab: Lab, umask: int):
    before = os.umask(umask)
    try:
        store = lab.open()
        publish(store)
        store.replace_catalog(lambda path: path.write_bytes(b""))
        artifact = store.get("toy", "interactions").path
    finally:
        os.umask(before)
    for path in [artifact, *store.root.rglob("*")]:
        wanted = (0o777 if path.is_dir() else 0o666) & ~umask
        assert (path.stat().st_mode & 0o777) == wanted, path


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ftp://host/x", "a store cannot lie at ftp://"),
        ("file://host/x", "a host in a file URI"),
        ("what?/store", "a question mark in the path"),
        ("file:///what?/store", "a question mark in the path"),
        ("s3://", "characters that it cannot have"),
        ("s3://bucket/../x", "characters that it cannot have"),
        ("s3://KEY:SECRET@bucket/x", "characters that it cannot have"),
    ],
)
def test_uri_that_is_no_store_is_refused(uri: str, message: str):
    with pytest.raises(ConfigError, match=message) as error:
        Store(uri)
    assert "SECRET" not in str(error.value)


def test_a_cache_that_duckdb_cannot_write_to_is_refused():
    with pytest.raises(ConfigError, match="SEMACDR_CACHE"):
        Store("s3://bucket/x", cache=Path("/what?"))


def test_file_uri_is_its_path(tmp_path: Path):
    publish(Store(f"file://{tmp_path}/store"))
    assert len(Store(tmp_path / "store").manifests()) == 1
