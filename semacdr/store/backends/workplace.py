"""The folder of this machine in which a store's processes work: drafts, rubbish, locks."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from semacdr.store.backends.base import STAGING, Leftover

_IN_USE = ".in-use"
"""In a draft's folder: locked as long as its process lives, however long that is silent."""
_LOCKS = {"catalog": ".lock", "aliases": ".aliases.lock"}


class Workplace:
    """A folder with a staging folder and locks in it.

    Args:
        root: the folder; made at the first write.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def new(self, what: str) -> Path:
        """Return a path in the staging folder that nothing else uses; its folder exists."""
        (self.root / STAGING).mkdir(parents=True, exist_ok=True)
        return self.root / STAGING / f"{what}-{os.getpid()}-{secrets.token_hex(6)}"

    def discard(self, folder: Path) -> None:
        """Rename a folder away, so that it is gone at once and whole, then delete it.

        What a network mount keeps of it for a reader that has it open is left to the next prune.
        """
        trash = self.new("trash")
        folder.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)

    @contextmanager
    def draft(self, stage: str) -> Iterator[Path]:
        """Make a folder in the staging folder and remove it when the block ends; until then it is no leftover."""
        folder = self.new(stage)
        # Not tempfile.mkdtemp: its folders are closed to others, whatever the umask.
        folder.mkdir()
        try:
            with (folder / _IN_USE).open("a") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def leftovers(self) -> list[Leftover]:
        """Return what lies in the staging folder and is of no draft that a process has open."""
        now = time.time()
        try:
            paths = [path for path in (self.root / STAGING).iterdir() if not _is_in_use(path)]
        except FileNotFoundError:
            return []
        ages = {path: newest for path in paths if (newest := _last_written(path)) is not None}
        return [
            Leftover(kind="staging", key=f"{STAGING}/{path.name}", age_s=max(0.0, now - newest))
            for path, newest in ages.items()
        ]

    def remove_leftover(self, leftover: Leftover) -> None:
        """Delete one of them; nothing happens if it is gone."""
        path = self.root / STAGING / Path(leftover.key).name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    @contextmanager
    def exclusive(self, what: str) -> Iterator[None]:
        """Hold a lock; the system frees it when its process dies.

        On a network mount it holds between machines if the mount shares locks (flock), as NFS does.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / _LOCKS[what]).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _is_in_use(folder: Path) -> bool:
    try:
        with (folder / _IN_USE).open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _last_written(path: Path) -> float | None:
    """Return when anything in a file or folder was last written; None if it is gone."""
    try:
        times = [path.lstat().st_mtime]
    except FileNotFoundError:
        return None
    for folder, _, files in os.walk(path):
        for name in files:
            try:
                times.append((Path(folder) / name).lstat().st_mtime)
            except FileNotFoundError:
                continue
    return max(times)
