"""Texts that were written elsewhere, taken in by the same rules as those of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from semacdr.dataset import DatasetConfig, Import
from semacdr.errors import ConfigError, close_names, examples
from semacdr.manifest import file_sha256
from semacdr.semantics.accept import Texts, accept

COLUMNS = ("item_id", "domain", "specific", "agnostic")
_SCHEMA = {"domain": pl.String, "item_id": pl.String, "specific": pl.String, "agnostic": pl.String, "model": pl.String}


@dataclass(frozen=True)
class Imported:
    """What all import files of a data set bring."""

    frame: pl.DataFrame
    """One row per item: domain, item_id, specific, agnostic, model."""
    counts: tuple[Mapping[str, Any], ...]
    """Per file: rows, accepted, excluded, duplicates, unknown items, rejected by reason."""


def read_imports(config: DatasetConfig, items: pl.DataFrame) -> Imported:
    """Return the accepted texts of the data set's import files; of two for one item the first stays.

    Args:
        config: the data set.
        items: those that have text; rows for any other item are counted as unknown.

    Raises:
        ConfigError: a file is missing or no Parquet, lacks a column, or names a domain that is not known.
    """
    kept = pl.DataFrame(schema=_SCHEMA)
    counts = []
    for source in config.semantics.imports:
        frame, count = _read(config, source, items, kept)
        kept = pl.concat([kept, frame])
        counts.append(count)
    return Imported(kept, tuple(counts))


def import_digests(config: DatasetConfig) -> list[dict[str, str | None]]:
    """Return the sha256 of each import file and of its exclude list."""
    return [
        {
            "file": source.file,
            "sha256": file_sha256(_existing(config, source.file)),
            "exclude_sha256": file_sha256(_existing(config, source.exclude)) if source.exclude else None,
        }
        for source in config.semantics.imports
    ]


def _read(
    config: DatasetConfig, source: Import, items: pl.DataFrame, taken: pl.DataFrame
) -> tuple[pl.DataFrame, dict[str, Any]]:
    id_columns = ["domain", "item_id"]
    rows = _in_our_domains(config, source, _parquet(_existing(config, source.file)))
    included = rows.join(_excluded(config, source), on=id_columns, how="anti")
    unique = included.unique(id_columns, keep="first", maintain_order=True).join(taken, on=id_columns, how="anti")
    known = unique.join(items.select(*id_columns, "title"), on=id_columns, how="inner", maintain_order="left")
    accepted: list[tuple[str, str, str, str, str]] = []
    rejected: Counter[str] = Counter()
    for domain, item_id, specific, agnostic, title in known.select(
        *id_columns, "specific", "agnostic", "title"
    ).iter_rows():
        verdict = accept(Texts(specific or "", agnostic or ""), title)
        if isinstance(verdict, str):
            rejected[verdict] += 1
        else:
            accepted.append((domain, item_id, *verdict, source.model))
    return pl.DataFrame(accepted, schema=_SCHEMA, orient="row"), {
        "file": source.file,
        "model": source.model,
        "rows": rows.height,
        "accepted": len(accepted),
        "excluded": rows.height - included.height,
        "duplicates": included.height - unique.height,
        "unknown_items": unique.height - known.height,
        "rejected": dict(sorted(rejected.items())),
    }


def _existing(config: DatasetConfig, name: str) -> Path:
    path = config.folder / name
    if not path.is_file():
        raise ConfigError(
            f"semantics.imports: no file {name!r}",
            found=f"nothing at {path}",
            do="correct semantics.imports in the data set's TOML; paths start from its folder",
        )
    return path


def _parquet(path: Path) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path, hive_partitioning=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ConfigError(f"semantics.imports: {path} is no Parquet file", found=f"{error!s:.200}") from error
    wrong = [name for name in COLUMNS if frame.schema.get(name) != pl.String]
    if wrong:
        raise ConfigError(
            f"semantics.imports: {path} lacks text columns",
            found=", ".join(f"{name}: {dtype}" for name, dtype in frame.schema.items()),
            expected=f"{', '.join(COLUMNS)}, all of them strings; wrong or missing: {', '.join(wrong)}",
        )
    return frame.select(COLUMNS)


def _in_our_domains(config: DatasetConfig, source: Import, rows: pl.DataFrame) -> pl.DataFrame:
    ours = {name: source.domains.get(name, name) for name in rows["domain"].unique().drop_nulls()}
    unknown = sorted(name for name, our_name in ours.items() if our_name not in config.domains)
    if unknown or rows["domain"].null_count():
        raise ConfigError(
            f"semantics.imports: {source.file} has domains that the data set does not",
            found=examples(unknown) or "rows without domain",
            expected=close_names(unknown[0], config.domains) if unknown else "a domain in every row",
            do="name them in the domains of this import: its name = our name",
        )
    return rows.with_columns(pl.col("domain").replace(ours))


def _excluded(config: DatasetConfig, source: Import) -> pl.DataFrame:
    pairs: list[tuple[str, str]] = []
    lines = _existing(config, source.exclude).read_text(encoding="utf-8").splitlines() if source.exclude else []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        domain, tab, item_id = line.partition("\t")
        if not tab or not item_id or domain not in config.domains:
            raise ConfigError(
                f"semantics.imports: {source.exclude}, line {number}",
                found=f"{line:.80}",
                expected=f"domain, tab, item id; {close_names(domain, config.domains)}",
            )
        pairs.append((domain, item_id))
    return pl.DataFrame(pairs, schema={"domain": pl.String, "item_id": pl.String}, orient="row")
