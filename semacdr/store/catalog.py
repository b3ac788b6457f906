"""The DuckDB catalog: views over what is published, made from the manifests alone.

Rebuilt in a temporary file and moved into place, so readers never wait and never see half of it. Written in the
storage format of DuckDB 1.4, so that older clients open it too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import polars as pl

from semacdr import tables
from semacdr.database import SQL_FOLDER
from semacdr.manifest import Manifest
from semacdr.store import names
from semacdr.store.artifact import Artifact
from semacdr.store.catalog_rows import Histories, alias_rows, artifact_rows, file_rows, lineage_rows
from semacdr.store.catalog_views import Shelf, view_sql
from semacdr.store.remote import let_read

if TYPE_CHECKING:
    from semacdr.store.store import Store

STORAGE_VERSION = "v1.4.0"
_SQL_TYPES: dict[pl.DataType, str] = {pl.Int64(): "bigint", pl.Float64(): "double"}
_PARAMETER = re.compile(r"\$(\w+)")
_PATTERN = re.compile(r"[*?\[]")


def rebuild_catalog(store: Store) -> Path:
    """Write ``catalog.duckdb`` anew from the manifests, and return its path on this machine.

    Tables: ``artifacts``, ``files``, ``lineage`` and ``aliases``. Views: one per table at ``current``,
    ``<table>_production`` at that alias and ``<table>_versions`` over all versions; ``semantics_responses`` over the
    LLM's answers; then every ``sql/catalog/*.sql`` whose needs are there.
    """
    return store.replace_catalog(lambda path: _write(store, path))


def catalog_shows(store: Store, artifacts: Iterable[Artifact]) -> bool:
    """Tell whether the catalog can be read, and has these artifacts where they lie and under all aliases of theirs.

    It has not after a crash or a full disk between a publish or a move of an alias and the rebuild, when the store was
    copied or moved, or when somebody damaged the file.
    """
    query = "select dataset, name, version, path, unnest(aliases) as alias from artifacts"
    try:
        with duckdb.connect(str(store.catalog), read_only=True) as connection:
            shown = set(connection.execute(query).fetchall())
    except duckdb.Error:
        return False
    for artifact in artifacts:
        dataset, name = artifact.manifest.dataset, artifact.manifest.name
        of_name = {row[2:] for row in shown if row[:2] == (dataset, name)}
        versions = {manifest.version for manifest in store.manifests(dataset, name)}
        aliases = {(alias, at) for alias, at in store.aliases(dataset, name).items() if at in versions}
        if {(alias, version) for version, _, alias in of_name} != aliases:
            return False
        if store.location(artifact.manifest) not in {path for _, path, _ in of_name}:
            return False
    return True


def _write(store: Store, path: Path) -> None:
    known = store.manifests()
    histories = _histories(store, known)
    connection = duckdb.connect(":memory:")
    try:
        shelf = Shelf(known, _root(store, known), let_read(connection, store.uri))
        connection.execute(f"attach '{_quoted(path)}' as catalog (storage_version '{STORAGE_VERSION}')")
        connection.execute("use catalog")
        # Each statement would be written by itself otherwise.
        connection.execute("begin")
        rows = {
            "artifacts": artifact_rows(known, histories, shelf.left_out, shelf.root),
            "files": file_rows(known),
            "lineage": lineage_rows(known),
            "aliases": alias_rows(histories),
        }
        for table, values in rows.items():
            connection.register("rows", values)
            connection.execute(f"create table {table} as select * from rows")
            connection.unregister("rows")
        for statement in _view_statements(shelf, known, histories):
            connection.execute(statement)
        literally = _PATTERN.sub(r"[\g<0>]", shelf.root)
        connection.execute(_responses_view(connection, f"{literally}/{names.RESPONSES}/*.jsonl"))
        _run_files(connection)
        connection.execute("commit")
        connection.execute("use memory")
        connection.execute("detach catalog")
    finally:
        connection.close()


def _histories(store: Store, known: list[Manifest]) -> Histories:
    return {
        (dataset, name): store.alias_histories(dataset, name)
        for dataset, name in sorted({(manifest.dataset, manifest.name) for manifest in known})
    }


def _root(store: Store, known: list[Manifest]) -> str:
    """Return where other programs find the store's files."""
    if not known:
        return store.uri
    first = known[0]
    return store.location(first).removesuffix(f"/{first.dataset}/{first.name}/{first.version}")


def _view_statements(shelf: Shelf, known: list[Manifest], histories: Histories) -> Iterator[str]:
    for artifact, schemas in tables.TABLES.items():
        versions = [manifest for manifest in known if manifest.name == artifact]
        at = {alias: [m for m in versions if _is_at(histories, m, alias)] for alias in ("current", "production")}
        for table in schemas:
            views = {table: at["current"], f"{table}_production": at["production"], f"{table}_versions": versions}
            for view, chosen in views.items():
                statement = view_sql(shelf, view, table, chosen)
                if statement:
                    yield statement


def _responses_view(connection: duckdb.DuckDBPyConnection, files: str) -> str:
    """Return the statement that makes the view over the LLM's answers; empty as long as there is no file of them."""
    columns = {
        name: _SQL_TYPES.get(column.dtype, "varchar") for name, column in tables.SemanticsResponses.columns().items()
    }
    if connection.execute("select 1 from glob(?) limit 1", [files]).fetchall():
        stored = ", ".join(f"{name}: '{sql_type}'" for name, sql_type in columns.items() if name != "journal")
        # A run that is writing has a torn last line, and a disk may have damaged others.
        source = (
            f"select parse_filename(filename) as journal, * exclude (filename) from read_json('{_quoted(files)}',"
            f" format = 'newline_delimited', ignore_errors = true, filename = true, columns = {{{stored}}})"
            " where key is not null"
        )
    else:
        source = "select " + ", ".join(f"null::{t} as {name}" for name, t in columns.items()) + " where false"
    return f"create view {tables.RESPONSES} as {source}"


def _is_at(histories: Histories, manifest: Manifest, alias: str) -> bool:
    moves = histories[manifest.dataset, manifest.name].get(alias)
    return moves is not None and moves[-1].version == manifest.version


def _run_files(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the views of ``sql/catalog``, and its macros whose views are there."""
    for file in sorted((SQL_FOLDER / "catalog").glob("*.sql")):
        connection.execute(file.read_text(encoding="utf-8"))
    listed = "select table_name from duckdb_tables() union all select view_name from duckdb_views()"
    there = {str(name) for (name,) in connection.execute(listed).fetchall()}
    for file in sorted((SQL_FOLDER / "catalog" / "macros").glob("*.sql")):
        text = file.read_text(encoding="utf-8")
        if there.issuperset(_header(text, "Needs")):
            parameters = ", ".join(_header(text, "Parameters")).replace("=", ":=").replace("$", "")
            body = _PARAMETER.sub(r"\1", text)
            connection.execute(f"create macro {file.stem}({parameters}) as table\n{body}")


def _header(text: str, label: str) -> list[str]:
    """Return what a line such as ``-- Needs: embeddings, items.`` lists."""
    line = re.search(rf"^-- {label}: (.+)\.$", text, re.MULTILINE)
    return line[1].split(", ") if line else []


def _quoted(path: Path | str) -> str:
    return str(path).replace("'", "''")
