"""Raw records of one domain as DuckDB reads them, and the check that the fields which the TOML names are there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import duckdb

from semacdr.database import read_sql
from semacdr.dataset import DatasetConfig, Source
from semacdr.errors import ConfigError, close_names
from semacdr.interactions.records import DELIMITERS, field_names, open_fields, open_lines
from semacdr.spread import Advance

COLUMNS = {
    "interactions": ("user_id", "item_id", "timestamp", "rating"),
    "items": ("item_id", "title", "brand", "categories", "description", "price"),
}
REQUIRED = {"interactions": {"user_id", "item_id", "timestamp"}, "items": {"item_id"}}


def read_records(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    source: Source,
    files: Mapping[int, Path],
    advance: Advance,
    use: Callable[[], object],
) -> None:
    """Call ``use``, which reads the view ``fields`` once: the records of all the files as text.

    Raises:
        DataError: a file is broken.
    """
    if source.format != "jsonl":
        open_fields(files, source, COLUMNS[table], advance).consume(connection, "fields", use)
        return
    mapped = list(source.columns)
    # A JSON pointer names a field of the object whatever characters its name has.
    paths = ["/" + source.columns[name].replace("~", "~0").replace("/", "~1") for name in mapped]
    positions = {name: mapped.index(name) + 1 if name in mapped else None for name in COLUMNS[table]}
    connection.execute("set variable paths = $paths", {"paths": paths})
    connection.execute("set variable positions = $positions", {"positions": positions})

    def use_lines() -> None:
        connection.execute(read_sql("ingest/json_records"))
        connection.execute(read_sql(f"ingest/json_{table}"))
        use()
        connection.execute("drop view fields")

    open_lines(files, advance).consume(connection, "lines", use_lines)


def demand_fields(
    connection: duckdb.DuckDBPyConnection,
    config: DatasetConfig,
    domain: str,
    table: str,
    source: Source,
    files: Mapping[int, Path],
    filled: Mapping[int, set[str]],
) -> None:
    """Check that the fields of columns without any value exist.

    Args:
        connection: reads the files again.
        config: the data set.
        domain: which of its domains.
        table: which table the source fills.
        source: where its records come from.
        files: by number.
        filled: the columns that have a value, of each file with records.

    Raises:
        ConfigError: a mapped field is in no record of a file (of all the files, where the column may be null).
    """
    for number, columns in filled.items():
        if empty := REQUIRED[table] - columns:
            path = files[number]
            place = f"data set {config.name}, domain {domain}, {os.path.relpath(path, config.folder)}"
            _demand(empty, _fields(connection, path, source), source, place)
    if filled and (empty := set(source.columns) - REQUIRED[table] - set().union(*filled.values())):
        found = set().union(*(_fields(connection, path, source) for path in files.values()))
        _demand(empty, found, source, f"data set {config.name}, domain {domain}, {', '.join(source.files)}")


def _fields(connection: duckdb.DuckDBPyConnection, path: Path, source: Source) -> set[str]:
    if source.format != "jsonl":
        return set(field_names(path, source))
    found: set[str] = set()

    def read_keys() -> None:
        found.update(name for (name,) in connection.execute(read_sql("ingest/json_keys")).fetchall())

    open_lines({0: path}, lambda _: None).consume(connection, "lines", read_keys)
    return found


def _demand(columns: set[str], found: set[str], source: Source, place: str) -> None:
    """Check that the fields of the columns are among those found; a file of nothing readable has none to compare."""
    missing = sorted(name for name in columns if source.columns[name] not in found)
    if not missing or not found:
        return
    raise ConfigError(
        f"{place}: no record has the field of {', '.join(missing)}",
        found=f"fields {', '.join(sorted(found)[:20])}",
        expected=", ".join(
            f"{source.columns[name]!r} ({close_names(source.columns[name], found)})" for name in missing
        ),
        do="mend the columns of this source in the data set's TOML" + _other_delimiter(found, source),
    )


def _other_delimiter(found: set[str], source: Source) -> str:
    """Advise another delimiter where the only field that a CSV file has can be cut by it."""
    for delimiter in DELIMITERS:
        if source.format == "csv" and len(found) == 1 and delimiter in (name := next(iter(found))):
            return f", or set delimiter = {json.dumps(delimiter)}: {name!r} is one field now"
    return ""
