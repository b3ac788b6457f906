"""Texts that were written elsewhere, by whatever rules: refused here only for their form, a title or the schema.

The audit replaces those that guess at a trait, are of another language or copy an example.

They come from the files of ``semantics.imports``, read anew by each run, and from what ``semacdr semantics import`` has
put into the response cache (``takein.py``). A file of the data set's TOML wins over the cache; in the cache the last
import of an item wins.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import structlog

from semacdr.dataset import DatasetConfig, Import
from semacdr.errors import MAX_EXAMPLES, ConfigError, close_names, examples
from semacdr.manifest import file_sha256
from semacdr.semantics.accept import Texts, accept
from semacdr.semantics.audit import forgiven
from semacdr.semantics.prompt import Prompt, load_prompt
from semacdr.semantics.responses import Responses
from semacdr.semantics.structured import FIELD_TYPES, fields_fault, read_fields
from semacdr.tables import AuditRule, scan_files

log = structlog.get_logger()

COLUMNS = ("item_id", "domain", "specific", "agnostic")
_ID = ["domain", "item_id"]
_SCHEMA: dict[str, type[pl.DataType]] = {
    "domain": pl.String,
    "item_id": pl.String,
    "specific": pl.String,
    "agnostic": pl.String,
    "fields": pl.String,
    "model": pl.String,
    "prompt": pl.String,
    "prompt_tokens": pl.Int64,
    "completion_tokens": pl.Int64,
}


@dataclass(frozen=True)
class Imported:
    """What all import files of a data set bring."""

    frame: pl.DataFrame
    """One row per item: domain, item_id, specific, agnostic, fields (JSON), model; of a call its prompt and tokens."""
    counts: tuple[Mapping[str, Any], ...]
    """Per file: rows, accepted, excluded, duplicates, unknown items, rejected by reason."""
    examples: tuple[str, ...] = ()
    """Rejected items with the reason, a few of them."""

    @property
    def digest(self) -> str:
        """sha256 of all that a table takes from it."""
        rows = json.dumps(self.frame.rows(), ensure_ascii=False)
        return hashlib.sha256(rows.encode(errors="replace")).hexdigest()


def read_imports(config: DatasetConfig, items: pl.DataFrame, responses: Responses | None = None) -> Imported:
    """Return the accepted texts that were imported; of two for one item the first stays.

    Args:
        config: the data set.
        items: those that have text, with domain, item_id, text_hash, and title where the data set names files; rows for
            any other item are counted as unknown.
        responses: where answers that were taken in are kept; None: the data set's files alone.

    Raises:
        ConfigError: a file is missing or no Parquet, lacks a column, or names a domain that is not known.
    """
    kept = pl.DataFrame(schema=_SCHEMA)
    counts: list[Mapping[str, Any]] = []
    for source in config.semantics.imports:
        file = read_file(config, source, items, kept)
        kept = pl.concat([kept, file.frame])
        counts += file.counts
    if responses is not None:
        kept = pl.concat([kept, _from_cache(responses, items.join(kept, on=_ID, how="anti", maintain_order="left"))])
    return Imported(kept, tuple(counts))


def check_files(config: DatasetConfig) -> None:
    """Look whether the prompt and the files of imports are there.

    Raises:
        ConfigError: one is not, or the prompt is none.
    """
    load_prompt(config.semantics.prompt)
    for source in config.semantics.imports:
        _existing(config, source.file)
        if source.exclude:
            _existing(config, source.exclude)


def import_key(domain: str, text_hash: str) -> str:
    """Return under which key an imported answer is kept: whatever model and prompt it came from."""
    return hashlib.sha256(f"imported {domain} {text_hash}".encode()).hexdigest()


def with_import_keys(items: pl.DataFrame) -> pl.DataFrame:
    """Return the items with the column ``key``: where an imported answer about each is kept."""
    keys = [import_key(*pair) for pair in items.select("domain", "text_hash").iter_rows()]
    return items.with_columns(pl.Series("key", keys, dtype=pl.String))


def _from_cache(responses: Responses, items: pl.DataFrame) -> pl.DataFrame:
    imported = responses.all().filter((pl.col("source") == "imported") & (pl.col("status") == "ok"))
    columns = [name for name in _SCHEMA if name not in _ID]
    answers = imported.select("key", "created_at", *columns).collect().sort("created_at", maintain_order=True)
    answers = answers.unique("key", keep="last", maintain_order=True)
    if answers.is_empty():
        return pl.DataFrame(schema=_SCHEMA)
    keyed = with_import_keys(items.select(*_ID, "text_hash"))
    found = keyed.join(answers, on="key", how="inner", maintain_order="left")
    # What came without a call has no tokens: null, as for the files of the data set.
    of_call = pl.col("prompt_tokens") + pl.col("completion_tokens") > 0
    return (
        found.with_columns(
            pl.when(of_call).then(pl.col(name)).alias(name) for name in ("prompt_tokens", "completion_tokens")
        )
        .with_columns(pl.col("prompt").replace("", None))
        .select(*_SCHEMA)
    )


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


def read_file(
    config: DatasetConfig, source: Import, items: pl.DataFrame, taken: pl.DataFrame | None = None
) -> Imported:
    """Return the accepted texts of one import file, for items that are not yet taken."""
    prompt = load_prompt(config.semantics.prompt)
    rows = _in_our_domains(config, source, _parquet(_existing(config, source.file)))
    included = rows.join(_excluded(config, source), on=_ID, how="anti")
    unique = included.unique(_ID, keep="first", maintain_order=True)
    if taken is not None:
        unique = unique.join(taken, on=_ID, how="anti", maintain_order="left")
    known = unique.join(items.select(*_ID, "title"), on=_ID, how="inner", maintain_order="left")
    accepted: list[dict[str, Any]] = []
    rejected: Counter[str] = Counter()
    shown: list[str] = []
    left_to_audit = forgiven(config.semantics.audit)
    for row in known.iter_rows(named=True):
        verdict = _judge(row, prompt, left_to_audit)
        if isinstance(verdict, str):
            rejected[verdict] += 1
            shown.append(f"{row['domain']}/{row['item_id']}: {verdict}")
        else:
            ids = {name: row[name] for name in _ID}
            accepted.append({**ids, **verdict._asdict(), "model": source.model})
    if rows.height and rows.join(items, on=_ID, how="semi").is_empty():
        log.warning(
            "no item of an import is known: are ids written as in the log?",
            file=source.file,
            found=examples(rows["item_id"].head(MAX_EXAMPLES)),
            known=examples(items["item_id"].head(MAX_EXAMPLES)),
        )
    count = {
        "file": source.file,
        "model": source.model,
        "rows": rows.height,
        "accepted": len(accepted),
        "excluded": rows.height - included.height,
        "duplicates": included.height - unique.height,
        "unknown_items": unique.height - known.height,
        "rejected": dict(sorted(rejected.items())),
    }
    return Imported(pl.DataFrame(accepted, schema=_SCHEMA), (count,), tuple(shown[: MAX_EXAMPLES + 1]))


def _judge(row: Mapping[str, Any], prompt: Prompt, left_to_audit: Container[AuditRule]) -> Texts | str:
    fault = fields_fault(row, prompt.schema)
    if fault:
        return f"{fault}: not the schema"
    texts = Texts(row["specific"] or "", row["agnostic"] or "", read_fields(row))
    return accept(texts, row["title"], left_to_audit)


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
        frame = scan_files(path).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ConfigError(f"semantics.imports: {path} is no Parquet file", found=f"{error!s:.200}") from error
    wrong = [name for name in COLUMNS if frame.schema.get(name) != pl.String]
    if wrong:
        raise ConfigError(
            f"semantics.imports: {path} lacks text columns",
            found=", ".join(f"{name}: {dtype}" for name, dtype in frame.schema.items()),
            expected=f"{', '.join(COLUMNS)}, all of them strings; wrong or missing: {', '.join(wrong)}",
        )
    fields = [name for name in FIELD_TYPES if name in frame.columns]
    other = [name for name in fields if frame.schema[name] != FIELD_TYPES[name]]
    if other:
        raise ConfigError(
            f"semantics.imports: {path} has structured fields of other types",
            found=", ".join(f"{name}: {frame.schema[name]}" for name in other),
            expected=", ".join(f"{name}: {FIELD_TYPES[name]}" for name in other),
        )
    return frame.select(*COLUMNS, *fields)


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
