"""What this machine's disk does: errors that say what to do, and writes that outlast a power cut."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from semacdr.errors import SemacdrError, StoreError
from semacdr.store.backends.base import STAGING

_PROBE_BYTES = 1 << 20
_DISK_ERRORS = {
    errno.ENOSPC: "the disk is full: free some space and run again; what is published is untouched",
    errno.EDQUOT: "the disk quota is used up: free some space and run again; what is published is untouched",
    errno.EROFS: "the file system is read-only: choose another store with --store or SEMACDR_STORE",
    errno.ENOTDIR: "a part of the path is a file: choose another store with --store or SEMACDR_STORE",
    errno.EEXIST: "a file stands where a folder should: choose another store with --store or SEMACDR_STORE",
    errno.EACCES: "no permission to write there: choose another store with --store, or mend its permissions",
    errno.EPERM: "no permission to write there: choose another store with --store, or mend its permissions",
}


@contextmanager
def disk_errors(root: Path) -> Iterator[None]:
    """Turn errors of the disk into a ``StoreError`` that says what to do."""
    try:
        yield
    except SemacdrError:
        raise
    except Exception as error:
        # Polars, DuckDB, torch and FAISS each have an error of their own for a full disk: ask the disk.
        cause = error if isinstance(error, OSError) else _probe(root)
        if cause is None or cause.errno not in _DISK_ERRORS:
            raise
        raise StoreError(
            f"the store {root} cannot be written",
            found=cause,
            expected="a folder on a local disk with free space",
            do=_DISK_ERRORS[cause.errno],
        ) from error


def sync_file(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _probe(root: Path) -> OSError | None:
    """Return what the disk answers to a small write; None if it is well."""
    try:
        with tempfile.TemporaryFile(dir=root / STAGING) as file:
            file.write(bytes(_PROBE_BYTES))
    except OSError as error:
        return error
    return None
