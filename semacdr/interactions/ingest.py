"""The ingest stage: raw logs and item files to interactions, items and rejects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import structlog

from semacdr.database import read_sql, work_database, write_parquet
from semacdr.dataset import DatasetConfig, Domain, InteractionSource, Source
from semacdr.errors import MAX_EXAMPLES, DataError, examples
from semacdr.interactions.events import INTERACTIONS, ROWS_PER_GROUP, Events, write_events
from semacdr.interactions.sources import matched_files, sources
from semacdr.interactions.staging import demand_fields, read_records
from semacdr.interactions.text import MAX_DESCRIPTION, clean, item_text, price, text_hash
from semacdr.manifest import Facts
from semacdr.progress import Progress
from semacdr.settings import DuckDbSettings
from semacdr.spread import Advance, Shard, Spread, here

log = structlog.get_logger()

ITEMS = pa.schema(
    [
        ("domain", pa.string()),
        ("item_id", pa.string()),
        ("title", pa.string()),
        ("brand", pa.string()),
        ("categories", pa.string()),
        ("description", pa.string()),
        ("price", pa.float64()),
        ("text", pa.string()),
        ("text_hash", pa.string()),
        ("has_metadata", pa.bool_()),
        ("has_text", pa.bool_()),
    ]
)
REJECTS = pa.schema(
    [
        ("table", pa.string()),
        ("domain", pa.string()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("reason", pa.string()),
        ("record", pa.string()),
    ]
)

DESCRIBED_BY = "described_by"
"""In a manifest's details: the TOML, where it lay."""


def no_items() -> pl.DataFrame:
    """Return the table of items without a row, to look at its columns."""
    frame = pl.from_arrow(ITEMS.empty_table())
    assert isinstance(frame, pl.DataFrame)
    return frame


def ingest(
    config: DatasetConfig,
    outputs: Mapping[str, Path],
    limits: DuckDbSettings,
    progress: Progress,
    spread: Spread = here,
) -> Facts:
    """Write the accepted events, the items and the rejected records of every domain; a domain is a shard.

    Args:
        config: the data set.
        outputs: the folders of ``interactions``, ``items`` and ``rejects``.
        limits: of DuckDB, in each shard; its working files lie in the folder of ``interactions`` and are removed.
        progress: counts bytes read.
        spread: where the domains are read.

    Returns:
        Records read, rejected records by table and reason, and counts per domain.

    Raises:
        ConfigError: a pattern matches nothing, a mapped field exists in no record, or the memory limit is wrong.
        DataError: a file is broken, more records are rejected than ``filters.max_reject_share`` allows, or a domain
            has no accepted event.
    """
    # Every pattern is looked at before the first file is read.
    files = {
        domain: {table: matched_files(config, domain, source) for table, source in sources(branch)}
        for domain, branch in sorted(config.domains.items())
    }
    for folder in outputs.values():
        folder.mkdir(parents=True, exist_ok=True)
    shards = [
        Shard(domain, (config, domain, named, dict(outputs), limits), _num_bytes(config, named))
        for domain, named in files.items()
    ]
    rows_in, dropped, details = 0, dict[str, int](), dict[str, Any]()
    with progress.task("ingest", total=sum(shard.steps for shard in shards)) as task:
        for domain, done in zip(files, spread(ingest_domain, shards, task.advance), strict=True):
            for reason, count in done.rejected.items():
                dropped[reason] = dropped.get(reason, 0) + count
            rows_in += sum(done.records.values())
            details[domain] = done.details
            log.info(
                "ingested",
                dataset=config.name,
                domain=domain,
                rows_in=done.records,
                dropped=done.rejected,
                **done.details,
            )
    _join_rejects(outputs["rejects"], list(files), limits)
    return Facts(
        rows_in=rows_in,
        dropped=dict(sorted(dropped.items())),
        details={"domains": details, DESCRIBED_BY: str(config.path)},
    )


@dataclass(frozen=True)
class Ingested:
    """What one domain held."""

    records: dict[str, int]
    """By table."""
    rejected: dict[str, int]
    """By table and reason."""
    details: dict[str, Any]


def ingest_domain(
    config: DatasetConfig,
    domain: str,
    files: Mapping[str, list[str]],
    outputs: Mapping[str, Path],
    limits: DuckDbSettings,
    *,
    advance: Advance,
) -> Ingested:
    """Write one domain's events and items, and a file of its rejects that is joined to the others' later.

    Args:
        config: the data set.
        domain: which of its domains.
        files: table -> its raw files, below the data set's folder.
        outputs: as in ``ingest``.
        limits: as in ``ingest``.
        advance: takes bytes read.

    Raises:
        ConfigError, DataError: as in ``ingest``.
    """
    with work_database(limits, outputs["interactions"]) as connection:
        connection.execute(read_sql("ingest/tables"))
        connection.execute(read_sql("ingest/macros"))
        events, num_items = Events(), 0
        events_file = _part(outputs["interactions"], "interactions", domain)
        for table, source in sources(config.domains[domain]):
            numbered = _numbered(connection, table, config.folder, files[table])
            if isinstance(source, InteractionSource):
                events = write_events(connection, domain, source, config.filters, numbered, events_file, advance)
                filled = events.filled
            else:
                filled, num_items = _stage_items(connection, source, numbered, advance)
            demand_fields(connection, config, domain, table, source, numbered, filled)
        if "interactions" not in files:
            write_parquet(events_file, INTERACTIONS, [], ROWS_PER_GROUP)
        connection.execute(read_sql("ingest/duplicate_items"))
        connection.execute(read_sql("ingest/rejected"), {"domain_name": domain})
        records = {"interactions": events.records, "items": num_items}
        rejected = _judge(connection, config, domain, records)
        details = _write_items(connection, config, domain, events, events_file, outputs["items"])
        write_parquet(
            _own_rejects(outputs["rejects"], domain), REJECTS, _query(connection, "ingest/rejects", {}), ROWS_PER_GROUP
        )
    return Ingested(records, rejected, details)


def _join_rejects(folder: Path, domains: list[str], limits: DuckDbSettings) -> None:
    """Write the rejects of all domains into one file."""
    parts = [_own_rejects(folder, domain) for domain in domains]
    with work_database(limits, folder) as connection:
        connection.execute(read_sql("ingest/tables"))
        connection.execute(read_sql("ingest/rejected_elsewhere"), {"files": [str(part) for part in parts]})
        write_parquet(folder / "rejects.parquet", REJECTS, _query(connection, "ingest/rejects", {}), ROWS_PER_GROUP)
    for part in parts:
        part.unlink()


def _own_rejects(folder: Path, domain: str) -> Path:
    return folder / f".{domain}.parquet"


def _num_bytes(config: DatasetConfig, files: Mapping[str, list[str]]) -> int:
    return sum((config.folder / file).stat().st_size for named in files.values() for file in named)


def _numbered(connection: duckdb.DuckDBPyConnection, table: str, folder: Path, files: list[str]) -> dict[int, Path]:
    """Give the files of a source their numbers, by which "the first record" is meant."""
    for number, file in enumerate(files):
        connection.execute(
            "insert into files values ($table, $number, $file)", {"table": table, "number": number, "file": file}
        )
    return {number: folder / file for number, file in enumerate(files)}


def _stage_items(
    connection: duckdb.DuckDBPyConnection, source: Source, files: Mapping[int, Path], advance: Advance
) -> tuple[dict[int, set[str]], int]:
    """Fill ``items_raw``; return the columns that have a value, of each file with records, and the records."""
    read_records(connection, "items", source, files, advance, lambda: connection.execute(read_sql("ingest/items_raw")))
    counted = connection.execute(read_sql("ingest/items_filled"))
    names = [column[0] for column in counted.description or []][2:]
    rows = counted.fetchall()
    filled = {row[0]: {name for name, count in zip(names, row[2:], strict=True) if count} for row in rows}
    return filled, sum(row[1] for row in rows)


def _judge(
    connection: duckdb.DuckDBPyConnection, config: DatasetConfig, domain: str, records: Mapping[str, int]
) -> dict[str, int]:
    """Return the domain's rejected records by table and reason.

    Raises:
        DataError: there are too many of them, or no event is left.
    """
    found = connection.execute(read_sql("ingest/reject_counts"), {"domain_name": domain}).fetchall()
    place = f"data set {config.name}, domain {domain}"
    for table, count in records.items():
        reasons = [(reason, rejected, places) for name, reason, rejected, places in found if name == table]
        total = sum(rejected for _, rejected, _ in reasons)
        if count and total / count > config.filters.max_reject_share:
            raise DataError(
                f"{place}: {total} of {count} {table} records are rejected ({total / count:.1%})",
                found="\n            ".join(
                    f"{reason}: {rejected}, such as {examples(at)}" for reason, rejected, at in reasons
                ),
                expected=f"at most {config.filters.max_reject_share:.1%} (filters.max_reject_share)",
                do=_advice(config.domains[domain], [reason for reason, _, _ in reasons], whole=total == count),
            )
    branch = config.domains[domain]
    if branch.items and not records["items"]:
        raise DataError(
            f"{place}: no record of an item",
            found=f"{', '.join(branch.items.files)} is empty",
            expected="at least one record, or no items at all in the data set's TOML",
            do="mend the files, or remove this domain's items table from the TOML",
        )
    reject_counts = {f"{table}: {reason}": count for table, reason, count, _ in found}
    if branch.interactions and records["interactions"] == sum(
        count for table, _, count, _ in found if table == "interactions"
    ):
        raise DataError(
            f"{place}: no event is accepted",
            found=f"{records['interactions']} records in {', '.join(branch.interactions.files)}; "
            f"rejected {reject_counts}",
            expected="at least one event" + (f" until {config.filters.until}" if config.filters.until else ""),
            do="mend the files, or leave the domain out",
        )
    return reject_counts


def _advice(branch: Domain, reasons: list[str], *, whole: bool) -> str:
    """Return what to do about rejects; ``whole``: all records are."""
    advice = "mend the files, the columns or time_format of this domain" + ("" if whole else ", or allow more")
    if branch.interactions is None or not any(reason.startswith("timestamp") for reason in reasons):
        return advice
    return f'{advice}; time_format is "{branch.interactions.time_format}" now: is it milliseconds, or iso8601?'


def _write_items(
    connection: duckdb.DuckDBPyConnection,
    config: DatasetConfig,
    domain: str,
    events: Events,
    events_file: Path,
    output: Path,
) -> dict[str, Any]:
    tally = _Tally()
    parameters = {"events_file": str(events_file), "logged_only": config.filters.until is not None}
    batches = _query(connection, "ingest/items", parameters)
    write_parquet(_part(output, "items", domain), ITEMS, _cleaned(batches, domain, tally), ROWS_PER_GROUP)
    if tally.logged and tally.described and not tally.both:
        raise DataError(
            f"data set {config.name}, domain {domain}: no event is about an item of the item files",
            found=f"in the log {examples(tally.logged)}; in the item files {examples(tally.described)}",
            expected="one id for one item: 12 and 12.0 are two",
            do="mend item_id in the files or in the columns of this domain, or leave its items table out",
        )
    share = round(tally.events_with_text / events.accepted, 6) if events.accepted else None
    return {
        "events": events.accepted,
        "users": events.users,
        "items": tally.items,
        "items_with_text": tally.items_with_text,
        "event_share_with_text": share,
        "first_timestamp_s": events.first_timestamp_s,
        "last_timestamp_s": events.last_timestamp_s,
    }


@dataclass
class _Tally:
    """What the items of a domain are."""

    items: int = 0
    items_with_text: int = 0
    events_with_text: int = 0
    both: int = 0
    """In the log and in the item files."""
    logged: list[str] = field(default_factory=list)
    """The first few in the log alone."""
    described: list[str] = field(default_factory=list)
    """The first few in the item files."""


def _cleaned(batches: Iterable[pa.RecordBatch], domain: str, tally: _Tally) -> Iterator[pa.RecordBatch]:
    """Yield the items with clean texts; counts them in ``tally``."""
    for batch in batches:
        is_described = batch.column("has_metadata").to_numpy(zero_copy_only=False)
        described, bare = batch.filter(pa.array(is_described)), batch.filter(pa.array(~is_described))
        rows = [_item(row, domain) for row in described.to_pylist()]
        items = pa.RecordBatch.from_pylist(rows, schema=ITEMS)
        _count(tally, items, described.column("num_events").to_numpy(), bare.column("item_id"))
        if len(bare):
            # Of these nothing but the id is known: one of them stands for all.
            one = pa.RecordBatch.from_pylist([_item(bare.slice(0, 1).to_pylist()[0], domain)], schema=ITEMS)
            several = one.take(pa.array(np.zeros(len(bare), dtype=np.int64)))
            several = several.set_column(ITEMS.get_field_index("item_id"), "item_id", bare.column("item_id"))
            places = np.argsort(np.argsort(~is_described, kind="stable"))
            items = pa.concat_batches([items, several]).take(pa.array(places))
        yield items


def _count(tally: _Tally, described: pa.RecordBatch, num_events: np.ndarray, bare: pa.Array) -> None:
    """Count items with metadata and the events of each, and those of the log alone."""
    has_text = described.column("has_text").to_numpy(zero_copy_only=False)
    tally.items += len(described) + len(bare)
    tally.items_with_text += int(has_text.sum())
    tally.events_with_text += int(num_events[has_text].sum())
    tally.both += int((num_events > 0).sum())
    for names, ids in ((tally.logged, bare), (tally.described, described.column("item_id"))):
        names.extend(ids.slice(0, MAX_EXAMPLES - len(names)).to_pylist())


def _item(raw: Mapping[str, Any], domain: str) -> dict[str, Any]:
    title, brand = clean(raw["title"]), clean(raw["brand"])
    categories, description = clean(raw["categories"], joiner=" > "), clean(raw["description"])
    description = description and description[:MAX_DESCRIPTION].rstrip()
    text = item_text(title, brand, categories, description)
    return {
        "domain": domain,
        "item_id": raw["item_id"],
        "title": title,
        "brand": brand,
        "categories": categories,
        "description": description,
        "price": price(raw["price"]),
        "text": text,
        "text_hash": text_hash(text),
        "has_metadata": raw["has_metadata"],
        "has_text": text is not None,
    }


def _part(folder: Path, table: str, domain: str) -> Path:
    path = folder / table / f"domain={domain}" / "part-0.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _query(connection: duckdb.DuckDBPyConnection, name: str, parameters: Mapping[str, object]) -> pa.RecordBatchReader:
    return connection.sql(read_sql(name), params=parameters or None).to_arrow_reader(ROWS_PER_GROUP)
