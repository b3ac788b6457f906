"""Raw records of one domain in a DuckDB database, judged one by one; what does not fit into memory spills to disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from semacdr.dataset import DatasetConfig, Filters, InteractionSource, Source
from semacdr.errors import ConfigError, close_names
from semacdr.interactions.records import Advance, field_names, open_fields, open_lines
from semacdr.interactions.sources import matched_files
from semacdr.settings import DuckDbSettings
from semacdr.sql_files import read_sql

COLUMNS = {
    "interactions": ("user_id", "item_id", "timestamp", "rating"),
    "items": ("item_id", "title", "brand", "categories", "description", "price"),
}
REQUIRED = {"interactions": ("user_id", "item_id", "timestamp"), "items": ("item_id",)}


@contextmanager
def database(limits: DuckDbSettings, parent: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an empty database in a folder of its own below ``parent``; both are gone at the end.

    Raises:
        ConfigError: the memory limit is no size, or too small for the work.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=parent, prefix=".work-") as folder:
        settings: dict[str, Any] = {"memory_limit": limits.memory_limit, "temp_directory": f"{folder}/spill"}
        if limits.threads is not None:
            settings["threads"] = limits.threads
        try:
            connection = duckdb.connect(f"{folder}/work.duckdb", config=settings)
        except duckdb.Error as error:
            raise ConfigError(
                f"DuckDB does not start with memory_limit {limits.memory_limit!r}",
                found=error,
                expected="a size such as '2GB'",
                do="mend duckdb.memory_limit in the settings",
            ) from error
        try:
            connection.execute("set timezone = 'UTC'")
            yield connection
        except duckdb.OutOfMemoryException as error:
            raise ConfigError(
                "DuckDB ran out of memory", found=error, do="raise duckdb.memory_limit, or lower duckdb.threads"
            ) from error
        finally:
            connection.close()


def stage(
    connection: duckdb.DuckDBPyConnection,
    config: DatasetConfig,
    domain: str,
    table: str,
    source: Source,
    files: Mapping[int, str],
    advance: Advance,
) -> None:
    """Read every file of one source into ``interactions_raw`` or ``items_raw``.

    Raises:
        ConfigError: a mapped field is in no record of a file (of all files, for a column that may be null).
        DataError: a file is broken.
    """
    place = f"data set {config.name}, domain {domain}"
    found: set[str] = set()
    for number, file in files.items():
        path = config.folder / file
        parameters = {"file_id": number, **_times(source, config.filters)}
        if source.format == "jsonl":
            _set_paths(connection, table, source)
            open_lines(path, advance).consume(connection, "lines", partial(_stage_lines, connection, table, parameters))
        else:
            names = field_names(path, source)
            _demand(REQUIRED[table], names, source, f"{place}, {file}")
            found.update(names)
            open_fields(path, source, COLUMNS[table], advance).consume(
                connection, "fields", partial(connection.execute, read_sql(f"ingest/{table}_raw"), parameters)
            )
        if source.format == "jsonl" and _seems_missing(connection, table, REQUIRED[table], number):
            names = _json_keys(connection, path)
            if names:
                _demand(REQUIRED[table], names, source, f"{place}, {file}")
    optional = [name for name in source.columns if name not in REQUIRED[table]]
    if source.format == "jsonl":
        optional = [name for name in optional if _seems_missing(connection, table, (name,), *files)]
        found = {name for file in files.values() for name in _json_keys(connection, config.folder / file)} if optional else set()
    if found:
        _demand(optional, found, source, place)
