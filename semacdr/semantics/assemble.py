"""Makes the ``semantics`` table: imported texts, then generated ones, then the item's own words."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import structlog

from semacdr.dataset import DatasetConfig
from semacdr.manifest import Facts
from semacdr.semantics.fallback import agnostic_fallback, specific_fallback
from semacdr.semantics.imports import Imported, import_digests, read_imports
from semacdr.semantics.items import read_items, with_keys
from semacdr.semantics.models import ModelIdentity, identify
from semacdr.semantics.prompt import load_prompt
from semacdr.semantics.responses import Record, Responses
from semacdr.settings import LlmSettings
from semacdr.tables import Semantics, TextSource, View

log = structlog.get_logger()

_TEXTS = {
    "key": pl.String,
    "specific": pl.String,
    "agnostic": pl.String,
    "source": pl.String,
    "model": pl.String,
    "prompt": pl.String,
    "fallback_reason": pl.String,
    "prompt_tokens": pl.Int64,
    "completion_tokens": pl.Int64,
}


def answers_digest(config: DatasetConfig, llm: LlmSettings, items: Path, responses: Responses) -> dict[str, Any]:
    """Return what outside the store's artifacts shapes the table: the answers in the cache, and the import files.

    Two runs with the same digest, items and config write the same table.
    """
    open_items, _, _ = _sort_out(config, llm, items)
    digests = sorted(f"{record.key}:{record.digest}" for record in responses.scan(open_items["key"]))
    return {
        "answers": len(digests),
        "answers_sha256": hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        "imports": import_digests(config),
    }


def assemble(config: DatasetConfig, llm: LlmSettings, items: Path, responses: Responses, output: Path) -> Facts:
    """Write ``semantics.parquet`` below ``output``; a pure function of its inputs.

    Args:
        config: the data set.
        llm: whose answers are used.
        items: folder of the ``items`` artifact.
        responses: the answers there are.
        output: an existing folder.

    Raises:
        ConfigError: a setting, prompt or import file is wrong.
    """
    open_items, imported, num_without_text = _sort_out(config, llm, items)
    with_text, _ = read_items(items)
    records = responses.get(open_items["key"])
    told = _from_answers(open_items, records)
    frame = pl.concat(
        [
            with_text.join(_from_imports(imported), on=["domain", "item_id"], how="inner"),
            open_items.join(told, on="key", how="inner").drop("key"),
            _with_own_words(open_items.join(told, on="key", how="anti"), records).drop("key"),
        ],
        how="diagonal",
    )
    table = _by_view(frame)
    table.write_parquet(output / "semantics.parquet")
    facts = Facts(
        rows_in=with_text.height + num_without_text,
        dropped={"no text": num_without_text} if num_without_text else {},
        details=_details(frame, imported, records.values(), identify(llm), config.semantics.prompt),
        seed=config.semantics.seed,
    )
    log.info(
        "semantics assembled",
        rows_in=facts.rows_in,
        rows_out=table.height,
        dropped=facts.dropped,
        sources=facts.details["items_by_source"],
    )
    return facts


def _sort_out(config: DatasetConfig, llm: LlmSettings, items: Path) -> tuple[pl.DataFrame, Imported, int]:
    """Return the items that no import covers, with their keys; the imports; the number of items without text."""
    with_text, num_without_text = read_items(items)
    imported = read_imports(config, with_text)
    uncovered = with_text.join(imported.frame, on=["domain", "item_id"], how="anti", maintain_order="left")
    keyed = with_keys(uncovered, config, identify(llm), load_prompt(config.semantics.prompt))
    return keyed, imported, num_without_text


def _from_imports(imported: Imported) -> pl.DataFrame:
    return imported.frame.with_columns(source=pl.lit(TextSource.IMPORTED.value))


def _from_answers(open_items: pl.DataFrame, records: dict[str, Record]) -> pl.DataFrame:
    rows = [
        {
            "key": record.key,
            "specific": record.specific,
            "agnostic": record.agnostic,
            "source": TextSource.GENERATED.value,
            "model": str(ModelIdentity(record.model, record.revision)),
            "prompt": record.prompt,
            "prompt_tokens": record.prompt_tokens,
            "completion_tokens": record.completion_tokens,
        }
        for key in open_items["key"].unique(maintain_order=True)
        if (record := records.get(key)) and record.accepted
    ]
    return pl.DataFrame(rows, schema=_TEXTS)


def _with_own_words(items: pl.DataFrame, records: dict[str, Record]) -> pl.DataFrame:
    specific, agnostic, reasons = [], [], []
    for row in items.iter_rows(named=True):
        specific.append(specific_fallback(row["text"]))
        agnostic.append(agnostic_fallback(row["text"], row["brand"], row["categories"]))
        record = records.get(row["key"])
        reasons.append(f"failed: {record.reason}" if record else "not asked")
    return items.with_columns(
        pl.Series("specific", specific, dtype=pl.String),
        pl.Series("agnostic", agnostic, dtype=pl.String),
        pl.lit(TextSource.FALLBACK.value).alias("source"),
        pl.Series("fallback_reason", reasons, dtype=pl.String),
    )


def _by_view(frame: pl.DataFrame) -> pl.DataFrame:
    columns = list(Semantics.columns())
    views = [frame.with_columns(text=pl.col(view.value), view=pl.lit(view.value)).select(columns) for view in View]
    return pl.concat(views).sort("domain", "item_id", "view")


def _details(
    frame: pl.DataFrame, imported: Imported, records: Iterable[Record], model: ModelIdentity, prompt: str
) -> dict[str, Any]:
    by_domain: dict[str, dict[str, int]] = {}
    for domain, source, count in frame.group_by("domain", "source").len().sort("domain", "source").iter_rows():
        by_domain.setdefault(domain, {})[source] = count
    sources = Counter(frame["source"])
    records = list(records)
    return {
        "model": str(model),
        "prompt": prompt,
        "items_by_source": {source.value: sources[source.value] for source in TextSource},
        "items_by_domain": by_domain,
        "failures": dict(sorted(Counter(record.reason for record in records if not record.accepted).items())),
        "answers": len(records),
        "spent_tokens": sum(record.spent_tokens for record in records),
        "imports": [dict(count) for count in imported.counts],
    }
