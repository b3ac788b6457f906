"""Stores of both kinds, and what lies in them as bytes."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import obstore
import pytest
from obstore.store import S3Store

from semacdr.store import Store
from tests.mounts import mount_twice
from tests.s3 import BUCKET, S3Server, serve_s3


class Lab(Protocol):
    """A place for a store that a test can look into and spoil."""

    uri: str
    cache: Path
    environment: dict[str, str]
    """What another process needs in its environment to open it."""

    def open(self) -> Store:
        """Return the store as a new process would see it."""

    def put(self, key: str, data: bytes) -> None: ...

    def get(self, key: str) -> bytes: ...

    def delete(self, key: str) -> None: ...

    def list(self) -> list[str]: ...


class Folder:
    """A store in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "store"
        self.uri = str(self.folder)
        self.cache = folder / "cache"
        self.environment: dict[str, str] = {}

    def open(self) -> Store:
        return Store(self.uri, self.cache)

    def put(self, key: str, data: bytes) -> None:
        (self.folder / key).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / key).write_bytes(data)

    def get(self, key: str) -> bytes:
        return (self.folder / key).read_bytes()

    def delete(self, key: str) -> None:
        (self.folder / key).unlink()

    def list(self) -> list[str]:
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())


class Bucket:
    """A store in a bucket of a real server, below a prefix of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.environment = environment
        prefix = f"test-{secrets.token_hex(6)}/store"
        self.uri = f"s3://{BUCKET}/{prefix}"
        self.cache = folder / "cache"
        self._store = S3Store(BUCKET, prefix=prefix, client_options={"allow_http": True})

    def open(self) -> Store:
        return Store(self.uri, self.cache)

    def put(self, key: str, data: bytes) -> None:
        obstore.put(self._store, key, data)

    def get(self, key: str) -> bytes:
        return bytes(obstore.get(self._store, key).bytes())

    def delete(self, key: str) -> None:
        obstore.delete(self._store, key)

    def list(self) -> list[str]:
        return sorted(meta["path"] for page in obstore.list(self._store) for meta in page)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serve_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def as_user(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Put a user's keys into the environment."""

    def put(variables: dict[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return put


@pytest.fixture
def bucket(s3_server: S3Server, as_user: Callable[[dict[str, str]], None], tmp_path: Path) -> Bucket:
    as_user(s3_server.owner)
    return Bucket(tmp_path, s3_server.owner)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture(scope="session")
def mounts(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """Two mounts of the server's files, as two machines have them."""
    with mount_twice(s3_server, tmp_path_factory.mktemp("mounts")) as both:
        yield both


@pytest.fixture(params=["folder", "bucket"])
def lab(request: pytest.FixtureRequest) -> Lab:
    lab: Lab = request.getfixturevalue(request.param)
    return lab
