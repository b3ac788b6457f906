"""Where a store can lie: a folder, on a local disk or a network mount, or a bucket of an S3-compatible service."""

from __future__ import annotations

from pathlib import Path

from semacdr.errors import ConfigError, close_names
from semacdr.store.backends.base import RETIRED, STAGING, Backend, Leftover, Stored
from semacdr.store.backends.local import LocalBackend

__all__ = ["RETIRED", "STAGING", "Backend", "Leftover", "Stored", "open_backend"]


def open_backend(uri: str | Path, cache: Path) -> Backend:
    """Return the backend of a path, a ``file://`` or an ``s3://bucket/prefix`` URI.

    Raises:
        ConfigError: another scheme, a URI with a user or password in it, or a question mark in a path.
    """
    scheme, separator, rest = str(uri).partition("://")
    if not separator:
        return LocalBackend(_without_question_mark(Path(uri)))
    if scheme == "file":
        if not rest.startswith("/"):
            raise ConfigError(f"store {uri}", found="a host in a file URI", expected="file:///absolute/path")
        return LocalBackend(_without_question_mark(Path(rest)))
    if scheme == "s3":
        from semacdr.store.backends.s3 import S3Backend  # noqa: PLC0415 (a local store needs no client for S3)

        return S3Backend(rest, _without_question_mark(cache))
    raise ConfigError(
        f"a store cannot lie at {scheme}://",
        found=f"scheme {scheme!r}; {close_names(scheme, ['file', 's3'])}",
        expected="a path, file:///path or s3://bucket/prefix",
        do="mend --store or SEMACDR_STORE",
    )


def _without_question_mark(folder: Path) -> Path:
    """DuckDB takes it for the beginning of parameters, and puts a database's log elsewhere."""
    if "?" in str(folder.absolute()):
        raise ConfigError(
            f"a store, or its cache, cannot lie at {folder.absolute()}",
            found="a question mark in the path",
            expected="a path that DuckDB can open a database in",
            do="name another with --store, SEMACDR_STORE or SEMACDR_CACHE",
        )
    return folder
