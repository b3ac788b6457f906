"""The files of a bucket for DuckDB and pyarrow, which read ``s3://`` paths through an fsspec file system."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import duckdb

if TYPE_CHECKING:
    from obstore.fsspec import FsspecStore


def open_filesystem(uri: str) -> FsspecStore | None:
    """Return what reads the files of a store; None for a folder, which needs nothing.

    Endpoint, region and keys come from the ``AWS_*`` variables.
    """
    if not uri.startswith("s3://"):
        return None
    from obstore.fsspec import FsspecStore  # noqa: PLC0415 (a local store needs no client for S3)

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    return FsspecStore("s3", client_options={"allow_http": endpoint.startswith("http://")})


def let_read(connection: duckdb.DuckDBPyConnection, uri: str) -> FsspecStore | None:
    """Let a connection read the files of a store, wherever it lies."""
    filesystem = open_filesystem(uri)
    if filesystem is not None:
        connection.register_filesystem(filesystem)
    return filesystem
