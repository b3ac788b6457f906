"""Answers that were made elsewhere, taken into the response cache: ``semacdr semantics import``.

Two kinds of file: Parquet as in ``semantics.imports``, and the JSONL that OpenAI's batch API and vLLM's ``run_batch``
write. A batch is held to the rules of a run's own answers, Parquet to those of ``imports.py``. What is accepted is kept
under the item's text, whatever model and prompt the data set names, with the model's name and with the file's as its
revision.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import structlog

from semacdr.dataset import DatasetConfig, Import
from semacdr.errors import MAX_EXAMPLES, ConfigError, DataError, examples
from semacdr.manifest import file_sha256
from semacdr.semantics.accept import Texts
from semacdr.semantics.audit import audit
from semacdr.semantics.batch import BatchAnswer, read_batch
from semacdr.semantics.imports import import_key, read_file, with_import_keys
from semacdr.semantics.items import read_items
from semacdr.semantics.judge import Judge
from semacdr.semantics.prompt import Prompt, load_prompt
from semacdr.semantics.record import Record
from semacdr.semantics.responses import Responses
from semacdr.tables import TextSource

log = structlog.get_logger()

_ID = ["domain", "item_id"]


@dataclass(frozen=True, kw_only=True)
class TakenIn:
    """What came of a file."""

    rows: int
    accepted: int
    unchanged: int
    """Of these, kept as they are already, or of the same text as another."""
    not_taken: Mapping[str, int]
    """By reason: rejected, excluded, duplicates, unknown items."""
    examples: tuple[str, ...]
    """Rejected items with the reason."""
    findings: Mapping[str, int]
    """Texts that the audit of a run will find wanting, by rule."""


def take_in(config: DatasetConfig, items: Path, responses: Responses, source: Import) -> TakenIn:
    """Put the answers of a file into the response cache, from where the next run takes them.

    Args:
        config: the data set that they are for.
        items: folder of its ``items`` artifact.
        responses: where they are kept.
        source: the file, who wrote it, its domains' names and what is left out.

    Raises:
        ConfigError: the file is missing, of neither kind, or names domains that are not known.
        DataError: nothing in it is accepted.
        StoreError: answers cannot be kept.
    """
    prompt = load_prompt(config.semantics.prompt)
    with_text, _ = read_items(items)
    path = config.folder / source.file
    if path.suffix == ".jsonl":
        found = _from_batch(config, prompt, with_text, path)
    else:
        found = _from_parquet(config, with_text, source)
    if not found.texts:
        raise DataError(
            f"{path.name}: nothing to take in",
            found=", ".join(f"{reason} {count}" for reason, count in found.not_taken.items()) or "no rows",
            expected="texts of items that the data set has",
            do=f"look at {examples(found.examples)}" if found.examples else "check the item ids and domains",
        )
    revision = f"{path.name} sha256:{file_sha256(path)[:12]}"
    known = responses.get(import_key(row["domain"], row["text_hash"]) for row in found.items)
    records = {
        record.key: record
        for row, texts, answer in zip(found.items, found.texts, found.answers, strict=True)
        if not _is_kept(record := _record(row, texts, answer, source.model, revision, prompt), known.get(record.key))
    }
    responses.put(*records.values())
    responses.close()
    taken = TakenIn(
        rows=found.rows,
        accepted=len(found.texts),
        unchanged=len(found.texts) - len(records),
        not_taken=found.not_taken,
        examples=found.examples,
        findings=_findings(config, prompt, found, source.model),
    )
    log.info("answers taken in", file=path.name, rows=taken.rows, accepted=taken.accepted, not_taken=taken.not_taken)
    return taken


@dataclass(frozen=True, kw_only=True)
class _Found:
    rows: int
    items: list[dict[str, Any]]
    texts: list[Texts]
    answers: list[BatchAnswer | None]
    not_taken: Mapping[str, int]
    examples: tuple[str, ...]


def _from_parquet(config: DatasetConfig, items: pl.DataFrame, source: Import) -> _Found:
    imported = read_file(config, source, items)
    (count,) = imported.counts
    rows = imported.frame.join(items, on=_ID, how="inner", maintain_order="left").rows(named=True)
    left = {name.replace("_", " "): count[name] for name in ("excluded", "duplicates", "unknown_items") if count[name]}
    return _Found(
        rows=count["rows"],
        items=rows,
        texts=[Texts(row["specific"], row["agnostic"], row["fields"]) for row in rows],
        answers=[None] * len(rows),
        not_taken={**left, **count["rejected"]},
        examples=imported.examples,
    )


def _from_batch(config: DatasetConfig, prompt: Prompt, items: pl.DataFrame, path: Path) -> _Found:
    keyed = with_import_keys(items)
    by_id = {f"{row['domain']}/{row['item_id']}": row for row in keyed.iter_rows(named=True)}
    # Items of one text share one request; any of them stands for it.
    by_id |= {row["key"]: row for row in keyed.unique("key", keep="first").iter_rows(named=True)}
    judge = Judge(prompt, config.semantics.audit)
    taken: dict[str, tuple[dict[str, Any], Texts, BatchAnswer]] = {}
    not_taken: Counter[str] = Counter()
    shown: list[str] = []
    num_rows = 0
    for answer in read_batch(path):
        num_rows += 1
        item = by_id.get(answer.custom_id)
        if item is None:
            not_taken["unknown items"] += 1
        elif item["key"] in taken:
            not_taken["duplicates"] += 1
        else:
            verdict: Texts | str = "refused by the server"
            if not answer.error:
                verdict = judge.verdict(answer.text, answer.finish_reason, item["title"], item["text"])
            if isinstance(verdict, Texts):
                taken[item["key"]] = (item, verdict, answer)
            else:
                not_taken[verdict] += 1
                shown.append(f"{item['domain']}/{item['item_id']}: {verdict}")
    if num_rows == 0:
        raise ConfigError(
            f"{path} is no batch output", found="no answers", expected="one JSON object a line", do="check the file"
        )
    return _Found(
        rows=num_rows,
        items=[item for item, _, _ in taken.values()],
        texts=[texts for _, texts, _ in taken.values()],
        answers=[answer for _, _, answer in taken.values()],
        not_taken=dict(sorted(not_taken.items())),
        examples=tuple(shown[:MAX_EXAMPLES]),
    )


def _is_kept(record: Record, before: Record | None) -> bool:
    return before is not None and (before.model, before.digest) == (record.model, record.digest)


def _record(
    row: Mapping[str, Any], texts: Texts, answer: BatchAnswer | None, model: str, revision: str, prompt: Prompt
) -> Record:
    return Record(
        key=import_key(row["domain"], row["text_hash"]),
        status="ok",
        model=model,
        revision=revision,
        prompt=prompt.reference if answer else "",
        text_hash=row["text_hash"],
        specific=texts.specific,
        agnostic=texts.agnostic,
        fields=texts.fields,
        raw=answer.text if answer else json.dumps(texts[:2], ensure_ascii=False),
        prompt_tokens=answer.prompt_tokens if answer else 0,
        completion_tokens=answer.completion_tokens if answer else 0,
        finish_reason=answer.finish_reason if answer else None,
        calls=0,
        # To the microsecond: of two imports the later one wins.
        created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        source=TextSource.IMPORTED.value,
    )


def _findings(config: DatasetConfig, prompt: Prompt, found: _Found, model: str) -> dict[str, int]:
    rows = [
        {**row, "specific": texts.specific, "agnostic": texts.agnostic, "source": "imported", "model": model}
        for row, texts in zip(found.items, found.texts, strict=True)
    ]
    names = ("domain", "item_id", "title", "brand", "categories", "text", "text_hash")
    columns = dict.fromkeys((*names, "specific", "agnostic", "source", "model"), pl.String)
    written = pl.DataFrame([{name: row[name] for name in columns} for row in rows], schema=columns)
    none = pl.DataFrame(schema=dict.fromkeys(("domain", "item_id", "reason", "raw", "source", "model"), pl.String))
    findings = audit(written, none, config.semantics.audit, prompt)
    return dict(sorted(Counter(findings["rule"]).items()))
