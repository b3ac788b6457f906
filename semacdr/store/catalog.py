"""The DuckDB catalog: views over what is published, made from the manifests alone.

Rebuilt in a temporary file and moved into place, so readers never wait and never see half of it. Written in the
storage format of DuckDB 1.4, so that older clients open it too.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl
import pyarrow.parquet as pq

from semacdr import tables
from semacdr.database import SQL_FOLDER
from semacdr.manifest import Manifest, canonical_json

if TYPE_CHECKING:
    from semacdr.store.store import Store

STORAGE_VERSION = "v1.4.0"


def rebuild_catalog(store: Store) -> Path:
    """Write ``catalog.duckdb`` anew from the manifests, and return its path.

    Views: one per table at ``current``, ``<table>_versions`` over all versions, and the tables ``artifacts`` and
    ``lineage``; then every ``sql/catalog/*.sql``.
    """
    with store.lock():
        partial = store.root / f".catalog.{os.getpid()}.duckdb"
        partial.unlink(missing_ok=True)
        try:
            _write(store, partial)
            partial.replace(store.catalog)
        finally:
            partial.unlink(missing_ok=True)
    return store.catalog


def _write(store: Store, path: Path) -> None:
    known = store.manifests()
    aliases = {
        (dataset, name): store.aliases(dataset, name)
        for dataset, name in sorted({(manifest.dataset, manifest.name) for manifest in known})
    }
    connection = duckdb.connect(":memory:")
    try:
        connection.execute(f"attach {_quote(path)} as catalog (storage_version {_quote(STORAGE_VERSION)})")
        connection.execute("use catalog")
        connection.register("artifact_rows", _artifact_rows(store, known, aliases).to_arrow())
        connection.register("lineage_rows", _lineage_rows(known).to_arrow())
        connection.execute("create table artifacts as select * from artifact_rows")
        connection.execute("create table lineage as select * from lineage_rows")
        for artifact, schemas in tables.TABLES.items():
            versions = [manifest for manifest in known if manifest.name == artifact]
            for table in schemas if versions else ():
                current = [m for m in versions if aliases[m.dataset, artifact].get("current") == m.version]
                _create_view(connection, store, table, current, table)
                _create_view(connection, store, f"{table}_versions", versions, table)
        for file in sorted((SQL_FOLDER / "catalog").glob("*.sql")):
            connection.execute(file.read_text(encoding="utf-8"))
        connection.execute("use memory")
        connection.execute("detach catalog")
    finally:
        connection.close()


def _create_view(
    connection: duckdb.DuckDBPyConnection, store: Store, view: str, versions: list[Manifest], table: str
) -> None:
    """A view cannot take parameters, so paths and names stand in its text, quoted by us."""
    parts = []
    for manifest in versions:
        folder = store.root / manifest.dataset / manifest.name / manifest.version
        files = tables.table_files(folder, table)
        if not files:
            continue
        listed = ", ".join(_quote(file) for file in files)
        parts.append(
            f"select {_quote(manifest.dataset)} as dataset, {_quote(manifest.version)} as version,"
            f" {_columns(files[0])} from read_parquet([{listed}], hive_partitioning = false)"
        )
    if parts:
        connection.execute(f"create view {view} as " + " union all by name ".join(parts))


def _columns(file: Path) -> str:
    """List a file's columns, fixed-size vectors cast back: Parquet gives them as lists of any length."""
    names = []
    for column in pq.read_schema(file):
        size = getattr(column.type, "list_size", 0)
        names.append(f'"{column.name}"::float[{size}] as "{column.name}"' if size else f'"{column.name}"')
    return ", ".join(names)


def _artifact_rows(store: Store, known: list[Manifest], aliases: dict[tuple[str, str], dict[str, str]]) -> pl.DataFrame:
    rows = [
        {
            "dataset": m.dataset,
            "name": m.name,
            "version": m.version,
            "aliases": [a for a, version in aliases[m.dataset, m.name].items() if version == m.version],
            "stage": m.stage,
            "created_at": m.created_at,
            "rows_in": m.rows_in,
            "rows_out": sum(m.rows_out.values()),
            "dropped": sum(m.dropped.values()),
            "dropped_by_reason": canonical_json(m.dropped),
            "bytes": sum(file.bytes for file in m.files),
            "seconds": m.seconds,
            "ndcg_10": m.metrics.get("ndcg_10"),
            "hr_10": m.metrics.get("hr_10"),
            "metrics": canonical_json(m.metrics),
            "inputs": list(m.inputs),
            "config": canonical_json(m.config),
            "details": canonical_json(m.details),
            "fingerprint": m.fingerprint,
            "code_commit": m.code_commit,
            "seed": m.seed,
            "path": str(store.root / m.dataset / m.name / m.version),
        }
        for m in known
    ]
    schema: dict[str, Any] = {
        "dataset": pl.String,
        "name": pl.String,
        "version": pl.String,
        "aliases": pl.List(pl.String),
        "stage": pl.String,
        "created_at": pl.String,
        "rows_in": pl.Int64,
        "rows_out": pl.Int64,
        "dropped": pl.Int64,
        "dropped_by_reason": pl.String,
        "bytes": pl.Int64,
        "seconds": pl.Float64,
        "ndcg_10": pl.Float64,
        "hr_10": pl.Float64,
        "metrics": pl.String,
        "inputs": pl.List(pl.String),
        "config": pl.String,
        "details": pl.String,
        "fingerprint": pl.String,
        "code_commit": pl.String,
        "seed": pl.Int64,
        "path": pl.String,
    }
    frame = pl.DataFrame(rows, schema=schema)
    return frame.with_columns(pl.col("created_at").str.to_datetime(time_zone="UTC"))


def _lineage_rows(known: list[Manifest]) -> pl.DataFrame:
    rows = [
        {"dataset": m.dataset, "artifact": m.reference, "input": reference, "input_fingerprint": digest}
        for m in known
        for reference, digest in m.inputs.items()
    ]
    return pl.DataFrame(rows, schema=dict.fromkeys(("dataset", "artifact", "input", "input_fingerprint"), pl.String))


def _quote(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"
