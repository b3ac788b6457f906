"""A data set's TOML from its files: names and first records tell which field is which, and a person looks at it."""

from __future__ import annotations

import csv
import glob
import itertools
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from semacdr.dataset import DatasetConfig, Source, config_error
from semacdr.errors import ConfigError, close_names
from semacdr.interactions.records import DELIMITERS, broken, default_delimiter, first_block, first_rows
from semacdr.interactions.sources import sources
from semacdr.interactions.staging import COLUMNS, REQUIRED

RECORDS = 200
"""Of a file that are looked at."""
NAMES: Mapping[str, tuple[str, ...]] = {
    "user_id": ("userid", "user", "uid", "reviewerid", "customerid", "customer", "visitorid", "memberid", "accountid"),
    "item_id": (
        "itemid", "item", "iid", "parentasin", "asin", "productid", "product", "movieid", "filmid", "bookid", "isbn",
        "trackid", "songid", "artistid", "gameid", "articleid", "newsid", "videoid", "businessid", "sku", "gmapid",
    ),
    "timestamp": (
        "timestamp", "unixreviewtime", "unixtime", "time", "ts", "datetime", "eventtime", "createdat", "date",
    ),
    "rating": ("rating", "overall", "stars", "score"),
    "title": ("title", "name", "movietitle", "productname", "itemname", "headline"),
    "brand": ("brand", "maker", "manufacturer", "publisher", "author", "authors", "artist", "developer"),
    "categories": ("categories", "category", "genres", "genre", "tags", "class", "shelf", "subject"),
    "description": ("description", "plot", "summary", "overview", "abstract", "about"),
    "price": ("price", "cost", "listprice"),
}  # fmt: skip
"""Our column -> names of fields that mean it, letters and digits only, the likeliest first."""
OF_ITEMS = ("id",)
"""In a file of items, this is the item's, too."""
_UNITS = ((1e11, "seconds"), (1e14, "milliseconds"), (1e17, "microseconds"), (float("inf"), "nanoseconds"))
"""Numbers below are times in this unit, from 1973 on."""


def describe(
    toml: Path,
    name: str,
    logs: Mapping[str, Sequence[str]],
    items: Mapping[str, Sequence[str]],
    given: Mapping[str, str],
) -> str:
    """Return the text of a data set's TOML.

    Args:
        toml: where it will lie; its paths are relative to that.
        name: of the data set.
        logs: domain -> paths or patterns of its interactions.
        items: the same of its items.
        given: our column -> its field, where that is known; it counts in the files that have the field.

    Raises:
        ConfigError: a pattern matches no file, a column is none of ours, no field looks like one that is needed, the
            field given is in no file, the times have no known form, or data set or domains cannot be called so.
        DataError: a file is broken, or of another kind.
    """
    if unknown := sorted(given.keys() - NAMES.keys()):
        raise ConfigError(f"--column: no column {unknown[0]!r}", expected=close_names(unknown[0], NAMES))
    parts = [f"name = {json.dumps(name)}"]
    for domain in dict.fromkeys([*logs, *items]):
        parts += ["", f"[domains.{domain}]", f"label = {json.dumps(domain.replace('_', ' ').replace('-', ' '))}"]
        for table, patterns in (("interactions", logs.get(domain)), ("items", items.get(domain))):
            if patterns:
                parts += ["", f"[domains.{domain}.{table}]", *_source(toml.parent, table, patterns, given)]
    text = "\n".join(parts) + "\n"
    try:
        config = DatasetConfig.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            "a domain cannot be called so", found=", ".join([*logs, *items]), expected="letters, digits, '_' and '-'"
        ) from error
    except ValidationError as error:
        raise config_error("what the options make", error, DatasetConfig) from error
    found = {
        pair for domain in config.domains.values() for _, source in sources(domain) for pair in source.columns.items()
    }
    if unused := given.items() - found:
        raise ConfigError(
            f"no file has the field {min(unused)[1]!r}",
            expected="a field of the files, as they spell it",
            do="mend --column",
        )
    return text


def _source(folder: Path, table: str, patterns: Sequence[str], given: Mapping[str, str]) -> Iterable[str]:
    """Yield the lines of a source."""
    matched = [path for pattern in patterns for path in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207 (as ingest)
    files = [path for name in matched if (path := Path(name)).is_file()]
    if not files:
        raise ConfigError(
            f"no file matches {', '.join(patterns)}",
            found=f"a folder, {matched[0]}" if matched else f"nothing from {Path.cwd()}",
            expected="a path, or a pattern in quotes",
            do="mend --log or --items",
        )
    try:
        form = named_form = Source.model_validate({"files": patterns, "columns": {}}).format
    except ValidationError as error:
        raise config_error(", ".join(patterns), error, Source) from error
    path = files[0]
    delimiter, records = _first_records(path, form)
    if form == "jsonl" and not records:
        # Its name does not say so, but it may be CSV.
        form = "csv"
        delimiter, records = _first_records(path, form)
    fields = list(dict.fromkeys(field for record in records for field in record))
    columns = _columns(path, table, fields, given)
    yield f"files = [{', '.join(json.dumps(os.path.relpath(pattern, folder)) for pattern in patterns)}]"
    if form != named_form:
        yield f'format = "{form}"'
    if delimiter != default_delimiter(path):
        yield f"delimiter = {json.dumps(delimiter)}"
    yield f"columns = {{ {', '.join(f'{column} = {json.dumps(field)}' for column, field in columns.items())} }}"
    if table == "interactions":
        time_format = _time_format(path, [record.get(columns["timestamp"]) for record in records])
        if time_format != "seconds":
            yield f'time_format = "{time_format}"'


def _first_records(path: Path, form: str) -> tuple[str, list[dict[str, Any]]]:
    """Return the delimiter, and the first records."""
    if form == "parquet":
        return default_delimiter(path), first_rows(path, RECORDS)
    lines = first_block(path, lines=form == "jsonl").decode(errors="replace").splitlines(keepends=True)
    if form == "csv":
        counts = (
            {delimiter: lines[0].count(delimiter) for delimiter in (default_delimiter(path), *DELIMITERS)}
            if lines
            else {}
        )
        delimiter = max(counts, key=lambda one: counts[one], default=default_delimiter(path))
        try:
            rows = csv.DictReader(lines, delimiter=delimiter)
            # Fields beyond the header have no name.
            records = [{name: value for name, value in row.items() if name} for row in itertools.islice(rows, RECORDS)]
            return delimiter, records or [dict.fromkeys(rows.fieldnames or [])]
        except csv.Error as error:
            raise broken(path, "CSV", error) from error
    records = []
    for line in lines[:RECORDS]:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return default_delimiter(path), records


def _columns(path: Path, table: str, fields: list[str], given: Mapping[str, str]) -> dict[str, str]:
    """Return our columns with their fields."""
    # RecBole's files carry the type behind a colon.
    by_name = {re.sub(r"[\W_]", "", field.split(":")[0]).lower(): field for field in reversed(fields)}
    columns: dict[str, str] = {}
    for column in COLUMNS[table]:
        names = NAMES[column] + (OF_ITEMS if table == "items" and column == "item_id" else ())
        taken = set(columns.values())
        found = [by_name[name] for name in names if name in by_name and by_name[name] not in taken]
        if given.get(column) in fields:
            columns[column] = given[column]
        elif found:
            columns[column] = found[0]
        elif column in REQUIRED[table]:
            raise ConfigError(
                f"{path}: no field looks like {column}",
                found=f"fields {', '.join(fields)}" if fields else "no record",
                expected=f"one called {', '.join(names[:4])} or the like",
                do=f"name it: --column {column}=FIELD; the first line of a CSV file has to name its fields",
            )
    return columns


def _time_format(path: Path, values: list[Any]) -> str:
    told = [value for value in values if value is not None and value != ""]
    if not told:
        return "seconds"
    try:
        number = sorted(float(value) for value in told)[len(told) // 2]
    except (TypeError, ValueError):
        try:
            datetime.fromisoformat(str(told[0]))
        except ValueError as error:
            raise ConfigError(
                f"{path}: the times are in no form that can be read",
                found=told[0],
                expected="seconds, milliseconds, microseconds or nanoseconds since 1970, or ISO 8601",
                do="name another field: --column timestamp=FIELD, or write the times anew",
            ) from error
        return "iso8601"
    return next(unit for limit, unit in _UNITS if abs(number) < limit)
