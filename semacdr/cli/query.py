"""The command ``sql``: a query on the catalog."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import click
import duckdb

from semacdr.cli.options import STORE_OPTION, open_store
from semacdr.errors import ConfigError, StoreError
from semacdr.store import Store
from semacdr.store.remote import let_read

_LOOKS = {
    duckdb.StatementType.CALL,
    duckdb.StatementType.CREATE,
    duckdb.StatementType.EXPLAIN,
    duckdb.StatementType.MULTI,
    duckdb.StatementType.PRAGMA,
    duckdb.StatementType.SELECT,
    duckdb.StatementType.SET,
}
"""The catalog is opened to be read; others than these could write beside it, into the files of the store."""
_COPIES = re.compile(r"\b(copy|export)\b", re.IGNORECASE)
"""EXPLAIN ANALYZE does what it explains, and a COPY of a PIVOT is several statements."""


@click.command()
@click.argument("query")
@click.option("--csv", is_flag=True, help="Print CSV instead of a table.")
@STORE_OPTION
def sql(query: str, csv: bool, store: str | None) -> None:
    """Run QUERY on the store's catalog; QUERY is SQL, or the path of a .sql file.

    Views: one per table at its current version, TABLE_production, TABLE_versions over all versions, artifacts,
    files, lineage, lineage_tree, aliases, metrics. Macros: similar_items(item_id, k), history(user_id),
    recommendations_for(user_id), as_of(name, ts).

    \b
    semacdr sql "from artifacts"
    semacdr sql "select view, source, count(*) from semantics group by all"
    semacdr sql "from similar_items('B00004SPEU', 10)"
    semacdr sql sql/examples/nearest_items.sql --csv
    """
    opened = open_store(store)
    catalog = opened.catalog
    if not catalog.exists():
        raise StoreError(
            f"no catalog in {opened.uri}",
            do="run `semacdr run DATASET` or `semacdr catalog rebuild`, or name another --store",
        )
    text = _read(Path(query)) if query.endswith(".sql") and " " not in query else query
    with _opened(catalog) as connection:
        let_read(connection, opened.uri)
        # Or the name of a variable of ours would be a table.
        connection.execute("set python_enable_replacements = false")
        with contextlib.suppress(duckdb.Error):
            _warn_of_another_place(connection, opened)
        try:
            statements = connection.extract_statements(text)
            _refuse_what_writes(statements)
            for statement in statements:
                result = connection.sql(statement.query)
                if result is not None:
                    # A list or a struct has no place in a CSV but as its text.
                    shown = result.select("columns(*)::varchar").pl().write_csv() if csv else f"{result}\n"
                    click.echo(shown, nl=False)
        except duckdb.Error as error:
            raise ConfigError(
                "DuckDB refuses the query", found=error, do="`semacdr sql 'show tables'` lists the views"
            ) from error


def _opened(catalog: Path) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(str(catalog), read_only=True)
    except duckdb.Error as error:
        raise StoreError(
            f"the catalog {catalog} cannot be opened",
            found=str(error).splitlines()[0],
            do="close what has it open for writing, or make it anew: `semacdr catalog rebuild`",
        ) from error


def _warn_of_another_place(connection: duckdb.DuckDBPyConnection, store: Store) -> None:
    """A copied or moved store has the catalog of where it was, whose views read the files there."""
    there = connection.execute("select path from artifacts limit 1").fetchall()
    if there and "://" not in there[0][0] and not Path(there[0][0]).resolve().is_relative_to(store.root.resolve()):
        click.secho(
            f"the catalog reads {there[0][0]}, which is not in {store.uri}: `semacdr catalog rebuild` makes it anew",
            fg="yellow",
            err=True,
        )


def _refuse_what_writes(statements: list[duckdb.Statement]) -> None:
    if not statements:
        raise ConfigError(
            "no query", expected="SQL, or the path of a .sql file", do='such as: semacdr sql "from artifacts"'
        )
    if writing := [str(one.type).rpartition(".")[2] for one in statements if _may_write(one)]:
        raise ConfigError(
            "`semacdr sql` looks and does not write",
            found=", ".join(writing),
            expected="queries",
            do="use --csv for a file, or another client of DuckDB on the catalog",
        )


def _may_write(statement: duckdb.Statement) -> bool:
    holds_others = statement.type in {duckdb.StatementType.EXPLAIN, duckdb.StatementType.MULTI}
    return statement.type not in _LOOKS or (holds_others and _COPIES.search(statement.query) is not None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"no query in {path}", found=error, expected="SQL in UTF-8", do="name a file that exists, or give SQL"
        ) from error
