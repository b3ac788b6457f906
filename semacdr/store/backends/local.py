"""A store in a folder: of a local disk, or of a network mount.

A version appears by renaming its finished folder, and renaming onto a folder with files in it fails: that is all that
publishing relies on, so it needs no lock. Locks keep alias moves and catalog rebuilds apart; the system frees a lock
when its process dies, on whichever machine. Where a mount does not share locks between machines, a move of an alias
may undo another machine's of the same moment (docs/architecture.md).

No link below the root is followed: it could lead out of the store.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from semacdr.errors import StoreError
from semacdr.manifest import FILE_NAME, Manifest, file_sha256
from semacdr.store import names
from semacdr.store.backends.base import RETIRED, Leftover, Stored
from semacdr.store.backends.workplace import Workplace
from semacdr.store.disk import sync_file
from semacdr.store.names import Place

_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_LOOKS = 10
_PAUSE_S = 0.1
"""Between looks at what a network mount does not show yet."""


class LocalBackend:
    """A store in a folder.

    Args:
        root: the folder; made at the first write.
    """

    def __init__(self, root: Path) -> None:
        self.work = root.expanduser().absolute()
        self.uri = str(self.work)
        self._workplace = Workplace(self.work)

    def read(self, key: str) -> Stored | None:
        """Return a file's bytes; their hash is the tag.

        A network mount may show a file that is being replaced cut off where the old one ended. All of them are JSON,
        and what is none is read again for a moment.
        """
        for _ in range(_LOOKS):
            try:
                data = self._read_plain(self.work / key)
            except _ABSENT:
                return None
            if _is_json(data):
                break
            time.sleep(_PAUSE_S)
        return Stored(data, hashlib.sha256(data).hexdigest())

    def write(self, key: str, data: bytes, tag: str | None) -> bool:
        """Replace a file by one rename. Its caller holds the lock that makes look and rename one step."""
        known = self.read(key)
        if (known.tag if known else None) != tag:
            return False
        partial = self._workplace.new("write")
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.work / key)
        sync_file((self.work / key).parent)
        return True

    def versions(self, dataset: str | None = None, name: str | None = None) -> dict[Place, str]:
        """Return the folders that hold a manifest; its inode, time and size are the tag."""
        return dict(self._marked(FILE_NAME, dataset, name))

    def read_manifests(self, places: dict[Place, str]) -> dict[Place, bytes]:
        """Read one file after the other."""
        found = {}
        for place in places:
            try:
                found[place] = (self.work / place.key / FILE_NAME).read_bytes()
            except _ABSENT:  # removed since it was listed
                continue
        return found

    def aliases(self, dataset: str, name: str) -> list[str]:
        """Return the plain files beside the versions."""
        folder = self._plain_folder(f"{dataset}/{name}")
        try:
            with os.scandir(folder) as entries:
                return sorted(e.name for e in entries if names.is_alias(e.name) and e.is_file(follow_symlinks=False))
        except _ABSENT:
            return []

    def put_version(self, folder: Path, place: Place) -> bool:
        """Rename the folder into place."""
        target = self._plain_folder(place.key)
        _make_folder(target.parent)
        _let_read(folder)
        sync_file(folder)
        try:
            folder.rename(target)
        except OSError as error:
            # A mount over SFTP says of a place that is taken that it is not permitted; another may say what it is, and
            # not list yet what lies there.
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST) or _has_files(target):
                self._wait_for_winner(place)
                return False
            raise
        sync_file(target.parent)
        return True

    def fetch(self, place: Place, manifest: Manifest) -> Path:
        """Return the version's own folder."""
        return self._plain_folder(place.key)

    def location(self, place: Place) -> str:
        """Return the absolute path of the version's folder."""
        return str(self.work / place.key)

    def walk(self) -> dict[str, int]:
        """Walk the root, links not followed."""
        found: dict[str, int] = {}
        for path in sorted(self.work.iterdir()) if self.work.is_dir() else ():
            if path.name.startswith(".") or path.name in names.RESERVED:
                continue
            if path.is_dir() and not path.is_symlink():
                found |= {f"{path.name}/{key}": size for key, size in _sizes(path).items()}
            else:
                found[path.name] = _size(path)
        return found

    def files(self, place: Place) -> dict[str, int]:
        """Walk the folder, links not followed."""
        return _sizes(self._plain_folder(place.key))

    def sha256(self, place: Place, path: str) -> str:
        """Hash the file."""
        return file_sha256(self.work / place.key / path)

    def retire(self, place: Place) -> None:
        """Rename the manifest; its time says since when."""
        folder = self._plain_folder(place.key)
        os.utime(folder / FILE_NAME)
        (folder / FILE_NAME).rename(folder / RETIRED)
        sync_file(folder)

    def remove(self, place: Place) -> None:
        """Rename the folder away, then delete it."""
        self._workplace.discard(self._plain_folder(place.key))

    def leftovers(self) -> list[Leftover]:
        """Return what lies in the staging folder, and retired versions."""
        found = self._workplace.leftovers()
        now = time.time()
        for place, _ in self._marked(RETIRED, None, None):
            try:
                since = (self.work / place.key / RETIRED).lstat().st_mtime
            except _ABSENT:
                continue
            found.append(Leftover(kind="retired", key=place.key, age_s=max(0.0, now - since)))
        return found

    def remove_leftover(self, leftover: Leftover) -> None:
        """Delete it; a retired version is renamed away first."""
        if leftover.kind != "retired":
            self._workplace.remove_leftover(leftover)
        elif (self.work / leftover.key / RETIRED).exists():
            self.remove(Place(*leftover.key.split("/")))

    def exclusive(self, what: str) -> AbstractContextManager[None]:
        """Hold the lock of a file in the store."""
        return self._workplace.exclusive(what)

    def catalog(self) -> Path:
        """Return the path of the catalog itself."""
        return self.work / names.CATALOG

    def replace_catalog(self, write: Callable[[Path], None]) -> None:
        """Have it written in the staging folder and rename it into place."""
        with self.exclusive("catalog"):
            partial = self._workplace.new("catalog")
            partial.mkdir()
            try:
                write(partial / names.CATALOG)
                sync_file(partial / names.CATALOG)
                (partial / names.CATALOG).replace(self.catalog())
            finally:
                shutil.rmtree(partial, ignore_errors=True)

    def pull_responses(self) -> None:
        """Do nothing: they lie in the store."""

    def push_responses(self) -> None:
        """Do nothing: they lie in the store."""

    def _wait_for_winner(self, place: Place) -> None:
        """Wait a moment until this machine sees the version that another has published, if it is one."""
        for _ in range(_LOOKS):
            if place in self.versions(place.dataset, place.name):
                return
            time.sleep(_PAUSE_S)

    def _marked(self, file: str, dataset: str | None, name: str | None) -> Iterator[tuple[Place, str]]:
        """Yield the versions with this file in their folder, by data set, name and folder name."""
        for d in [dataset] if dataset else self._folders("", names.is_dataset):
            for n in [name] if name else self._folders(d, names.is_artifact):
                for v in self._folders(f"{d}/{n}", names.is_version):
                    place = Place(d, n, v)
                    try:
                        status = os.lstat(f"{self.work}/{place.key}/{file}")
                    except _ABSENT:
                        continue
                    if stat.S_ISREG(status.st_mode):
                        yield place, f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"

    def _folders(self, key: str, wanted: Callable[[str], bool]) -> list[str]:
        try:
            with os.scandir(self._plain_folder(key)) as entries:
                return sorted(e.name for e in entries if wanted(e.name) and e.is_dir(follow_symlinks=False))
        except _ABSENT:
            return []

    def _plain_folder(self, key: str) -> Path:
        """Return the path of a folder, no part of which below the root is a link."""
        path = self.work
        for part in key.split("/") if key else ():
            path /= part
            if path.is_symlink():
                raise _leads_out(path)
        return path

    def _read_plain(self, path: Path) -> bytes:
        self._plain_folder(path.parent.relative_to(self.work).as_posix().removeprefix("."))
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise _leads_out(path) from error
            raise
        with os.fdopen(descriptor, "rb") as file:
            return file.read()


def _leads_out(path: Path) -> StoreError:
    return StoreError(
        f"{path} is a link", found="it may lead out of the store", expected="plain folders and files", do="remove it"
    )


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, on the disk for good."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_file(path.parent)


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


def _has_files(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except _ABSENT:
        return False


def _sizes(root: Path) -> dict[str, int]:
    """Return the path below the folder and the size of every file in it."""
    found = {}
    for folder, below, files in os.walk(root):
        links = [name for name in below if (Path(folder) / name).is_symlink()]
        for name in files + links:
            path = Path(folder) / name
            found[path.relative_to(root).as_posix()] = _size(path)
    return found


def _size(path: Path) -> int:
    """Return the size of a plain file; -1 of anything else, such as a link."""
    status = path.lstat()
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


def _let_read(folder: Path) -> None:
    """Let whoever may read the manifest read all files: some libraries write theirs for their owner alone."""
    mode = stat.S_IMODE((folder / FILE_NAME).stat().st_mode)
    for path in folder.rglob("*"):
        if path.is_file() and stat.S_IMODE(path.stat().st_mode) != mode:
            path.chmod(mode)
