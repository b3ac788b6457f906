"""Makes ``semantics`` and ``semantics_audit``: imported texts, then generated ones, then the item's own words.

The answers in the cache are judged here, by the data set's rules of today: one that was kept as failed for a rule that
the data set now accepts is used, and costs no call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import structlog

from semacdr.dataset import AuditAction, DatasetConfig
from semacdr.manifest import Facts
from semacdr.semantics.accept import Texts, cleaned, read_answer
from semacdr.semantics.audit import audit, check_failures, replaced
from semacdr.semantics.fallback import agnostic_fallback, specific_fallback
from semacdr.semantics.imports import Imported, import_digests, read_imports
from semacdr.semantics.items import read_item_ids, read_items, with_keys
from semacdr.semantics.lexicon import words_digest
from semacdr.semantics.models import ModelIdentity, identify
from semacdr.semantics.prompt import Prompt, load_prompt
from semacdr.semantics.responses import Record, Responses
from semacdr.semantics.structured import FIELD_TYPES, FIELDS, field_columns
from semacdr.semantics.summary import rates, spending, summarize
from semacdr.settings import LlmSettings
from semacdr.tables import Semantics, TextSource, View

log = structlog.get_logger()

_ID = ["domain", "item_id"]
_ANSWERS: dict[str, pl.DataType] = {
    "key": pl.String(),
    "specific": pl.String(),
    "agnostic": pl.String(),
    "source": pl.String(),
    "model": pl.String(),
    "prompt": pl.String(),
    "reason": pl.String(),
    "raw": pl.String(),
    "prompt_tokens": pl.Int64(),
    "completion_tokens": pl.Int64(),
    "fields": pl.String(),
}


def answers_digest(config: DatasetConfig, llm: LlmSettings, items: Path, responses: Responses) -> dict[str, Any]:
    """Return what outside the store's artifacts shapes the table: answers, import files, the audit's word lists.

    Two runs with the same digest, items and config write the same table.
    """
    with_text = read_item_ids(items, *(("title",) if config.semantics.imports else ()))
    open_items, imported = _sort_out(config, llm, with_text, responses)
    count, digest = responses.digest(open_items["key"])
    return {
        "answers": count,
        "answers_sha256": digest,
        "words_sha256": words_digest(),
        "imports": import_digests(config),
        "imported": imported.frame.height,
        "imported_sha256": imported.digest,
    }


def assemble(config: DatasetConfig, llm: LlmSettings, items: Path, responses: Responses, output: Path) -> Facts:
    """Write ``semantics.parquet`` and ``semantics_audit.parquet`` below ``output``; a pure function of its inputs.

    Args:
        config: the data set.
        llm: whose answers are used.
        items: folder of the ``items`` artifact.
        responses: the answers there are.
        output: an existing folder.

    Raises:
        ConfigError: a setting, prompt or import file is wrong.
        DataError: more of the LLM's texts are unfit than the data set allows.
    """
    prompt = load_prompt(config.semantics.prompt)
    with_text, num_without_text = read_items(items)
    open_items, imported = _sort_out(config, llm, with_text, responses)
    records = responses.get(open_items["key"])
    answers = _read_again(records, prompt)
    told = open_items.join(answers, on="key", how="inner", maintain_order="left")
    from_imports = with_text.join(imported.frame, on=_ID, how="inner", maintain_order="left")
    written = pl.concat(
        [from_imports.with_columns(source=pl.lit(TextSource.IMPORTED.value)), told.filter(pl.col("reason").is_null())],
        how="diagonal",
    )
    unusable = told.filter(pl.col("reason").is_not_null())
    unasked = open_items.join(answers, on="key", how="anti", maintain_order="left")

    findings = audit(written, unusable, config.semantics.audit, prompt)
    num_judged = 2 * (written.height + unusable.height)
    failure_share = check_failures(findings, num_judged, config.semantics.audit)
    table = _table(written, unusable, unasked, findings)
    table.write_parquet(output / "semantics.parquet")
    findings.write_parquet(output / "semantics_audit.parquet")

    spent = spending(list(records.values()))
    summary = summarize(findings, written, num_judged, config.semantics.audit)
    facts = Facts(
        rows_in=with_text.height + num_without_text,
        dropped={"no text": num_without_text} if num_without_text else {},
        details={
            "model": str(identify(llm)),
            "prompt": config.semantics.prompt,
            **_sources(table),
            "failures": dict(sorted(Counter(unusable["reason"]).items())),
            "answers": spent["answers"],
            "spent_tokens": spent["spent_tokens"],
            "imports": [dict(count) for count in imported.counts],
            "audit": {**summary, "failure_share": round(failure_share, 4), "spending": spent},
        },
        metrics={
            **rates(findings, written),
            "failure_share": round(failure_share, 4),
            **({name: spent[name] for name in ("tokens_per_s", "items_per_s")} if spent["busy_s"] else {}),
        },
        seed=config.semantics.seed,
    )
    _report(facts, table, findings)
    return facts


def _sort_out(
    config: DatasetConfig, llm: LlmSettings, with_text: pl.DataFrame, responses: Responses
) -> tuple[pl.DataFrame, Imported]:
    """Return the items that no import covers, with their keys; and the imports."""
    imported = read_imports(config, with_text, responses)
    uncovered = with_text.join(imported.frame, on=_ID, how="anti", maintain_order="left")
    return with_keys(uncovered, config, identify(llm), load_prompt(config.semantics.prompt)), imported


def _read_again(records: Mapping[str, Record], prompt: Prompt) -> pl.DataFrame:
    """Return one row per answer: its texts, or the reason why it has none."""
    rows = []
    for record in records.values():
        verdict = _texts_of(record, prompt)
        texts = verdict if isinstance(verdict, Texts) else None
        rows.append(
            {
                "key": record.key,
                "specific": texts.specific if texts else None,
                "agnostic": texts.agnostic if texts else None,
                "fields": texts.fields if texts else None,
                "reason": None if texts else str(verdict),
                "raw": record.raw,
                "source": TextSource.GENERATED.value,
                "model": str(ModelIdentity(record.model, record.revision)),
                "prompt": record.prompt,
                "prompt_tokens": record.prompt_tokens,
                "completion_tokens": record.completion_tokens,
            }
        )
    return pl.DataFrame(rows, schema=_ANSWERS)


def _texts_of(record: Record, prompt: Prompt) -> Texts | str:
    if record.accepted:
        return Texts(record.specific or "", record.agnostic or "", record.fields)
    reason = record.reason or "no answer"
    if not record.raw:
        return reason
    verdict = read_answer(record.raw, record.finish_reason, prompt.schema)
    if isinstance(verdict, str):
        return reason
    texts = cleaned(verdict)
    # Half of a surrogate pair can be kept in no table.
    return texts if all(_is_unicode(text) for text in texts[:2]) else reason


def _is_unicode(text: str) -> bool:
    return text == text.encode(errors="replace").decode()


def _table(
    written: pl.DataFrame, unusable: pl.DataFrame, unasked: pl.DataFrame, findings: pl.DataFrame
) -> pl.DataFrame:
    columns = [name for name in Semantics.columns() if name not in FIELD_TYPES]
    failed = replaced(findings).with_columns(fallback_reason="rule: " + pl.col("rule")).drop("rule", "detail")
    written = written.with_columns(**field_columns(written["fields"].to_list()))
    views = pl.concat([written.with_columns(view=pl.lit(view.value), said=pl.col(view.value)) for view in View])
    kept = views.join(failed, on=[*_ID, "view"], how="anti")
    replaced_rows = views.join(failed, on=[*_ID, "view"], how="inner")
    without = pl.concat(
        [
            unusable.with_columns(fallback_reason="failed: " + pl.col("reason")),
            unasked.with_columns(fallback_reason=pl.lit("not asked")),
        ],
        how="diagonal_relaxed",
    )
    own = pl.concat(
        [replaced_rows, *(without.with_columns(view=pl.lit(view.value)) for view in View)], how="diagonal_relaxed"
    )
    kept = kept.with_columns(text=pl.col("said"), fallback_reason=pl.lit(None, dtype=pl.String))
    both = pl.concat([kept, _with_own_words(own)], how="diagonal_relaxed")
    lacking = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in FIELD_TYPES.items() if name not in both.columns]
    return both.with_columns(lacking).select(*columns, *FIELDS).sort("domain", "item_id", "view")


def _with_own_words(rows: pl.DataFrame) -> pl.DataFrame:
    texts = [
        specific_fallback(row["text"])
        if row["view"] == View.SPECIFIC.value
        else agnostic_fallback(row["text"], row["brand"], row["categories"])
        for row in rows.iter_rows(named=True)
    ]
    return rows.with_columns(
        pl.Series("text", texts, dtype=pl.String),
        pl.lit(TextSource.FALLBACK.value).alias("source"),
        pl.lit(None, dtype=pl.String).alias("model"),
        pl.lit(None, dtype=pl.String).alias("prompt"),
    )


def _sources(table: pl.DataFrame) -> dict[str, Any]:
    """Count texts and items by source; an item counts under its LLM's as long as that wrote one of its texts."""
    written = pl.col("source").filter(pl.col("source") != TextSource.FALLBACK.value).first()
    by_item = table.group_by(_ID).agg(written.fill_null(TextSource.FALLBACK.value))
    by_domain: dict[str, dict[str, int]] = {}
    for domain, source, count in by_item.group_by("domain", "source").len().sort("domain", "source").iter_rows():
        by_domain.setdefault(domain, {})[source] = count
    items, texts = Counter(by_item["source"]), Counter(table["source"])
    return {
        "items_by_source": {source.value: items[source.value] for source in TextSource},
        "items_by_domain": by_domain,
        "texts_by_source": {source.value: texts[source.value] for source in TextSource},
    }


def _report(facts: Facts, table: pl.DataFrame, findings: pl.DataFrame) -> None:
    log.info(
        "semantics assembled",
        rows_in=facts.rows_in,
        rows_out=table.height,
        dropped=facts.dropped,
        sources=facts.details["items_by_source"],
    )
    warned = findings.filter(pl.col("action") != AuditAction.ACCEPT.value)
    counts = warned.group_by("action", "rule").len().sort("action", "rule")
    if not warned.is_empty():
        found = {f"{rule} ({action})": count for action, rule, count in counts.iter_rows()}
        log.warning("semantics audited", **facts.metrics, found=found)
