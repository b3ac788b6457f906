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
        ConfigError: another scheme, or a URI with a user or password in it.
    """
    scheme, separator, rest = str(uri).partition("://")
    if not separator:
        return LocalBackend(Path(uri))
    if scheme == "file":
        if not rest.startswith("/"):
            raise ConfigError(f"store {uri}", found="a host in a file URI", expected="file:///absolute/path")
        return LocalBackend(Path(rest))
    if scheme == "s3":
        from semacdr.store.backends.s3 import S3Backend  # noqa: PLC0415 (a local store needs no client for S3)

        return S3Backend(rest, cache)
    raise ConfigError(
        f"a store cannot lie at {scheme}://",
        found=f"scheme {scheme!r}; {close_names(scheme, ['file', 's3'])}",
        expected="a path, file:///path or s3://bucket/prefix",
        do="mend --store or SEMACDR_STORE",
    )
