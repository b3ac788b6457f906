"""A data set's TOML from its files: names and first records tell which field is which, and a person looks at it."""

from __future__ import annotations

import glob
import json
import math
import os
import re
import statistics
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
from pydantic import ValidationError

from semacdr.dataset import DatasetConfig, Filters, Source, config_error
from semacdr.errors import ConfigError, DataError, close_names, examples
from semacdr.interactions.events import UNITS_PER_SECOND
from semacdr.interactions.records import DELIMITERS, default_delimiter, field_names, first_records
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


def describe(
    toml: Path,
    name: str,
    logs: Mapping[str, Sequence[str]],
    items: Mapping[str, Sequence[str]],
    given: Mapping[str, Sequence[str]],
) -> str:
    """Return the text of a data set's TOML.

    Args:
        toml: where it will lie; its paths are relative to that.
        name: of the data set.
        logs: domain -> paths or patterns of its interactions.
        items: the same of its items.
        given: our column -> its fields, where they are known; of a file that which it has counts.

    Raises:
        ConfigError: a pattern matches no file, there is no record, a column is none of ours, no field looks like one
            that is needed, no file has a field that is given, the times have no known form, or something cannot be
            called so.
        DataError: a file is broken, or of another kind.
    """
    if unknown := sorted(given.keys() - NAMES.keys()):
        raise ConfigError(f"--column: no column {unknown[0]!r}", expected=close_names(unknown[0], NAMES))
    parts = [f"name = {_quoted(name)}"]
    for domain in dict.fromkeys([*logs, *items]):
        key = domain if re.fullmatch(r"[\w-]+", domain, re.ASCII) else _quoted(domain)
        parts += ["", f"[domains.{key}]", f"label = {_quoted(domain.replace('_', ' ').replace('-', ' '))}"]
        for table, patterns in (("interactions", logs.get(domain)), ("items", items.get(domain))):
            if patterns:
                parts += ["", f"[domains.{key}.{table}]", *_source(toml.parent, table, patterns, given)]
    text = "\n".join(parts) + "\n"
    try:
        text.encode()
        config = DatasetConfig.model_validate(tomllib.loads(text))
    except UnicodeEncodeError as error:
        raise ConfigError("a path or a field is not in UTF-8", found=f"{error.object!a:.80}", do="rename it") from error
    except ValidationError as error:
        raise config_error("what the options make", error, DatasetConfig) from error
    branches = config.domains.values()
    found = {pair for branch in branches for _, source in sources(branch) for pair in source.columns.items()}
    for column, fields in given.items():
        if missing := [field for field in fields if (column, field) not in found]:
            tables = [table for table in COLUMNS if column in COLUMNS[table]]
            raise ConfigError(
                f"--column {column}={missing[0]}: no file has the field",
                expected=f"a field of {' or '.join(tables)}, as the files spell it",
                do="mend --column",
            )
    return text


def _quoted(text: str) -> str:
    """Return a string as TOML has it."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _source(folder: Path, table: str, patterns: Sequence[str], given: Mapping[str, Sequence[str]]) -> Iterator[str]:
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
    path, source, records = _first_records(files, _by_name(map(str, files)))
    columns = _columns(path, table, list(dict.fromkeys(field for record in records for field in record)), given)
    yield f"files = [{', '.join(_quoted(_relative(pattern, folder)) for pattern in patterns)}]"
    if source.format != _by_name(patterns):
        yield f'format = "{source.format}"'
    if source.delimiter not in {None, default_delimiter(path)}:
        yield f"delimiter = {json.dumps(source.delimiter)}"
    yield f"columns = {{ {', '.join(f'{column} = {_quoted(field)}' for column, field in columns.items())} }}"
    if table == "interactions":
        time_format = _time_format(path, [record.get(columns["timestamp"]) for record in records])
        if time_format != "seconds":
            yield f'time_format = "{time_format}"'


def _by_name(files: Iterable[str]) -> str:
    """Return the format that the names of files say."""
    files = list(files)
    try:
        return Source.model_validate({"files": files, "columns": {}}).format
    except ValidationError as error:
        raise config_error(examples(files), error, Source) from error


def _relative(pattern: str, folder: Path) -> str:
    """Return a pattern from a folder; what stands before it then is no pattern."""
    parts = Path(pattern).parts
    first = next((place for place, part in enumerate(parts) if set(part) & set("*?[")), len(parts) - 1)
    return str(Path(glob.escape(os.path.relpath(Path(*parts[:first]), folder)), *parts[first:]))


def _first_records(files: list[Path], form: str) -> tuple[Path, Source, list[dict[str, Any]]]:
    """Return the first file that has records, what it is, and they."""
    for path in files:
        # What the name does not call so may be CSV all the same.
        for source in map(partial(_as, path), ("jsonl", "csv") if form == "jsonl" else (form,)):
            records = first_records(path, source, RECORDS)
            if records and (source.format == form or len(records[0]) > 1):
                return path, source, records
    raise ConfigError(
        f"{files[0]}: no record",
        expected={"csv": "fields named in the first line, and a record", "jsonl": "one JSON object a line, or CSV"}.get(
            form, "a row"
        ),
        do="write the file so: jq -c . FILE brings JSON into lines",
    )


def _as(path: Path, form: str) -> Source:
    """Return a file as a source of a format; the delimiter is the one that cuts the first line into most fields."""

    def source(delimiter: str | None) -> Source:
        return Source.model_validate({"files": [str(path)], "format": form, "delimiter": delimiter, "columns": {}})

    if form != "csv":
        return source(None)
    widths = dict.fromkeys((default_delimiter(path), *DELIMITERS), 0)
    for delimiter in widths:
        try:
            widths[delimiter] = len(field_names(path, source(delimiter)))
        except DataError:
            continue  # quotes are in pairs where fields are cut rightly
    return source(max(widths, key=lambda delimiter: widths[delimiter]))


def _columns(path: Path, table: str, fields: list[str], given: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return our columns with their fields."""
    # RecBole's files carry the type behind a colon.
    by_name = {re.sub(r"[\W_]", "", field.split(":")[0]).lower(): field for field in reversed(fields)}
    known = {column: [field for field in given.get(column, ()) if field in fields][:1] for column in COLUMNS[table]}
    taken = {field for found in known.values() for field in found}
    columns: dict[str, str] = {}
    for column, found in known.items():
        names = NAMES[column] + (OF_ITEMS if table == "items" and column == "item_id" else ())
        guessed = [by_name[name] for name in names if name in by_name and by_name[name] not in taken]
        if found or guessed:
            columns[column] = (found or guessed)[0]
            taken.add(columns[column])
        elif column in REQUIRED[table]:
            raise ConfigError(
                f"{path}: no field looks like {column}",
                found=f"fields {', '.join(fields)}",
                expected=f"one called {', '.join(names[:4])} or the like",
                do=f"name it: --column {column}=FIELD; the first line of a CSV file has to name its fields",
            )
    return columns


def _time_format(path: Path, values: list[Any]) -> str:
    told = [str(value) for value in values if value is not None and str(value).strip()]
    numbers = [number for value in told if (number := _number(value)) is not None]
    if 2 * len(numbers) > len(told):
        number, accepted = statistics.median_low(numbers), Filters()
        for unit, per_second in {"seconds": 1, **UNITS_PER_SECOND}.items():
            if accepted.min_timestamp_s <= number / per_second < accepted.max_timestamp_s:
                return unit
    elif told:
        with duckdb.connect() as connection:
            query = "select isfinite(try_cast(trim(value) as timestamptz)) from unnest($told) as told (value)"
            times = [is_time for (is_time,) in connection.execute(query, {"told": told}).fetchall()]
        if 2 * times.count(True) > len(told):
            return "iso8601"
    raise ConfigError(
        f"{path}: the times are in no form that can be read",
        found=examples(told) or "none in the first records",
        expected="seconds, milliseconds, microseconds or nanoseconds since 1970, from 1990 to 2099, or ISO 8601",
        do="name another field: --column timestamp=FIELD, or write the times anew",
    )


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
