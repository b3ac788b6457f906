"""Raw records of one domain in a DuckDB database, judged one by one; what does not fit into memory spills to disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import duckdb

from semacdr.database import read_sql
from semacdr.dataset import DatasetConfig, Filters, InteractionSource, Source
from semacdr.errors import ConfigError, close_names
from semacdr.interactions.records import field_names, open_fields, open_lines
from semacdr.spread import Advance

COLUMNS = {
    "interactions": ("user_id", "item_id", "timestamp", "rating"),
    "items": ("item_id", "title", "brand", "categories", "description", "price"),
}
REQUIRED = {"interactions": {"user_id", "item_id", "timestamp"}, "items": {"item_id"}}


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
        ConfigError: a mapped field is in no record of a file (of all the files, where the column may be null).
        DataError: a file is broken.
    """
    optional = set(source.columns) - REQUIRED[table]
    for number, file in files.items():
        parameters = {"file_id": number, **_times(source, config.filters)}
        _stage_file(connection, table, source, config.folder / file, parameters, advance)
        if empty := _empty_columns(connection, table, [number]) & REQUIRED[table]:
            found = _fields(connection, config.folder / file, source)
            _demand(empty, found, source, f"data set {config.name}, domain {domain}, {file}")
    if empty := _empty_columns(connection, table, [*files]) & optional:
        found = set().union(*(_fields(connection, config.folder / file, source) for file in files.values()))
        _demand(empty, found, source, f"data set {config.name}, domain {domain}, {', '.join(source.files)}")


def _stage_file(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    source: Source,
    path: Path,
    parameters: Mapping[str, object],
    advance: Advance,
) -> None:
    def judge() -> None:
        connection.execute(read_sql(f"ingest/{table}_raw"), parameters)

    def read_lines() -> None:
        connection.execute(read_sql(f"ingest/json_{table}"))
        judge()
        connection.execute("drop view fields")

    if source.format == "jsonl":
        mapped = list(source.columns)
        # A JSON pointer names a field of the object whatever characters its name has.
        paths = ["/" + source.columns[name].replace("~", "~0").replace("/", "~1") for name in mapped]
        positions = {name: mapped.index(name) + 1 if name in mapped else None for name in COLUMNS[table]}
        connection.execute("set variable paths = $paths", {"paths": paths})
        connection.execute("set variable positions = $positions", {"positions": positions})
        open_lines(path, advance).consume(connection, "lines", read_lines)
    else:
        open_fields(path, source, COLUMNS[table], advance).consume(connection, "fields", judge)


def _times(source: Source, filters: Filters) -> dict[str, object]:
    if not isinstance(source, InteractionSource):
        return {}
    return {
        "time_format": source.time_format,
        "min_timestamp_s": filters.min_timestamp_s,
        "max_timestamp_s": filters.max_timestamp_s,
        "until_s": filters.until_s,
    }


def _empty_columns(connection: duckdb.DuckDBPyConnection, table: str, files: list[int]) -> set[str]:
    """Return the columns that no record of the files has a value for; none when there are no records."""
    filled = connection.execute(read_sql(f"ingest/{table}_filled"), {"file_ids": files})
    names = [column[0] for column in filled.description or []]
    counts = dict(zip(names, filled.fetchall()[0], strict=True))
    return {name for name, count in counts.items() if count == 0} if counts["num_records"] else set()


def _fields(connection: duckdb.DuckDBPyConnection, path: Path, source: Source) -> set[str]:
    if source.format != "jsonl":
        return set(field_names(path, source))
    found: set[str] = set()

    def read_keys() -> None:
        found.update(name for (name,) in connection.execute(read_sql("ingest/json_keys")).fetchall())

    open_lines(path, lambda _: None).consume(connection, "lines", read_keys)
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
        do="mend the columns of this source in the data set's TOML",
    )
