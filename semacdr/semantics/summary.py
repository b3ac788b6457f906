"""What the manifest says of an audit: rates per rule, lengths, worst leaks, traits, tokens and speed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import polars as pl

from semacdr.dataset import Audit
from semacdr.errors import MAX_EXAMPLES
from semacdr.semantics.audit import action_of
from semacdr.semantics.record import Record
from semacdr.tables import AuditRule, View

_LEAKS = (AuditRule.BRAND_LEAK.value, AuditRule.CATEGORY_LEAK.value, AuditRule.TITLE_LEAK.value)
_DUPLICATES = (AuditRule.DUPLICATE.value, AuditRule.NEAR_DUPLICATE.value)
_PAIR = ("domain", "item_id")
_AGNOSTIC_ALONE = frozenset({AuditRule.SAME_TEXT, AuditRule.PROTECTED_TRAIT, *_LEAKS})
_QUANTILES = {"min": 0.0, "p10": 0.1, "median": 0.5, "p90": 0.9, "max": 1.0}


def summarize(findings: pl.DataFrame, written: pl.DataFrame, num_judged: int, config: Audit) -> dict[str, Any]:
    """Return the summary of an audit, as JSON values.

    Args:
        findings: rows of ``semantics_audit``.
        written: the items whose texts could be read, with specific and agnostic.
        num_judged: texts that were asked for or imported, those that could not be read included.
        config: the data set's rules.
    """
    counts = Counter(findings["rule"])
    of_view = {rule: num_judged // 2 if rule in _AGNOSTIC_ALONE else num_judged for rule in AuditRule}
    return {
        "judged_texts": num_judged,
        "rules": {
            rule.value: {
                "action": action_of(rule, config).value,
                "findings": counts[rule.value],
                "share": _share(counts[rule.value], of_view[rule]),
            }
            for rule in AuditRule
        },
        "lengths": {view.value: _lengths(written[view.value]) for view in View},
        "worst_leaks": _worst_leaks(findings),
        "protected_traits": _traits(findings),
        "leaking_words": _common_words(findings),
    }


def rates(findings: pl.DataFrame, written: pl.DataFrame) -> dict[str, float]:
    """Return the figures of the catalog: shares of the texts that could be read."""
    agnostic = findings.filter(pl.col("view") == View.AGNOSTIC.value)
    leaking = agnostic.filter(pl.col("rule").is_in(_LEAKS)).unique(_PAIR).height
    traits = agnostic.filter(pl.col("rule") == AuditRule.PROTECTED_TRAIT.value).height
    repeating = findings.filter(pl.col("rule").is_in(_DUPLICATES)).height
    return {
        "leak_rate": _share(leaking, written.height),
        "protected_trait_rate": _share(traits, written.height),
        "duplicate_rate": _share(repeating, 2 * written.height),
    }


def spending(records: Sequence[Record]) -> dict[str, Any]:
    """Return the tokens of the answers in use, and how fast they came while at least one was awaited."""
    generated = [record for record in records if record.calls and record.source == "generated"]
    busy_s = _busy_s(generated)
    completion = sum(record.completion_tokens for record in records)
    return {
        "answers": len(records),
        "prompt_tokens": sum(record.prompt_tokens for record in records),
        "completion_tokens": completion,
        "spent_tokens": sum(record.spent_tokens for record in records),
        "busy_s": round(busy_s, 1),
        "tokens_per_s": round(sum(r.completion_tokens for r in generated) / busy_s, 1) if busy_s else 0.0,
        "items_per_s": round(len(generated) / busy_s, 2) if busy_s else 0.0,
    }


def _busy_s(records: Sequence[Record]) -> float:
    """Return how long at least one answer was awaited: many are asked at once, and over many runs."""
    spans = []
    for record in records:
        if record.created_at:
            end = datetime.fromisoformat(record.created_at).timestamp()
            spans.append((end - record.seconds, end))
    busy, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return busy


def _share(count: int, total: int) -> float:
    return round(count / total, 4) if total else 0.0


def _lengths(texts: pl.Series) -> dict[str, dict[str, int]]:
    measures = {"words": texts.str.count_matches(r"\w+"), "chars": texts.str.len_chars()}
    return {
        unit: {name: int(lengths.quantile(at, "nearest") or 0) for name, at in _QUANTILES.items()}
        for unit, lengths in measures.items()
    }


def _worst_leaks(findings: pl.DataFrame) -> list[dict[str, Any]]:
    leaks = findings.filter(pl.col("rule").is_in(_LEAKS)).sort(
        "value", "domain", "item_id", "rule", descending=[True, False, False, False]
    )
    worst = leaks.unique(_PAIR, keep="first", maintain_order=True).head(MAX_EXAMPLES)
    return [
        {"item": f"{domain}/{item_id}", "rule": rule, "words": detail, "text": text}
        for domain, item_id, rule, detail, text in worst.select(*_PAIR, "rule", "detail", "text").iter_rows()
    ]


def _common_words(findings: pl.DataFrame) -> dict[str, int]:
    details = findings.filter(pl.col("rule").is_in(_LEAKS))["detail"]
    return dict(Counter(word for detail in details for word in detail.split()).most_common(2 * MAX_EXAMPLES))


def _traits(findings: pl.DataFrame) -> dict[str, int]:
    details = findings.filter(pl.col("rule") == AuditRule.PROTECTED_TRAIT.value)["detail"]
    return dict(sorted(Counter(part.partition(":")[0] for detail in details for part in detail.split(", ")).items()))
