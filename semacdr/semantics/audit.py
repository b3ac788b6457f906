"""The audit: what the texts of an LLM are found wanting in, and which of them the item's own words must replace.

Every finding is a row of ``semantics_audit``, whatever the data set does about it. What is judged is the text as the
LLM or the import wrote it; the item's own words are not judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from semacdr.dataset import Audit, AuditAction
from semacdr.errors import DataError, examples
from semacdr.semantics.accept import MAX_CHARS, Texts, folded
from semacdr.semantics.duplicates import near_duplicates
from semacdr.semantics.prompt import Prompt
from semacdr.semantics.rules import TextRules
from semacdr.tables import AuditRule, SemanticsAudit, View

NEVER_KEPT = frozenset({AuditRule.UNANSWERED, AuditRule.CUT, AuditRule.SCHEMA, AuditRule.FORM})
"""Rules whose texts cannot stand in the table: no data set can accept them."""
MIN_JUDGED = 20
"""A share of fewer texts than these stops no run."""

_RULE_OF_REASON = {
    "cut at max_tokens": AuditRule.CUT,
    "not finished": AuditRule.CUT,
    "not JSON": AuditRule.SCHEMA,
    "not the schema": AuditRule.SCHEMA,
}
_SCHEMA = {name: pl.Float64() if name == "value" else pl.String() for name in SemanticsAudit.columns()}
_KEY = ("domain", "item_id", "view")


def audit(written: pl.DataFrame, unusable: pl.DataFrame, config: Audit, prompt: Prompt) -> pl.DataFrame:
    """Return the rows of ``semantics_audit``.

    Args:
        written: one row per item: domain, item_id, title, brand, categories, text, text_hash, and specific, agnostic,
            source, model as the LLM or an import wrote them.
        unusable: one row per item that was asked for nothing: domain, item_id, reason, raw, source, model.
        config: what each rule does.
        prompt: which language and examples there are.
    """
    rules = TextRules(prompt)
    rows: list[dict[str, Any]] = []
    for item in unusable.iter_rows(named=True):
        rule = _RULE_OF_REASON.get(item["reason"], AuditRule.UNANSWERED)
        rows += [_row(item, view, rule, item["reason"], None, item["raw"] or None) for view in View]
    for item in written.iter_rows(named=True):
        texts = Texts(item["specific"], item["agnostic"])
        seen = set()
        for view, rule, detail, value in rules.findings(texts, item):
            if (view, rule) not in seen:
                seen.add((view, rule))
                rows.append(_row(item, view, rule, detail, value, texts.of(view)))
    rows += _duplicates(written)
    for row in rows:
        row["action"] = action_of(row["rule"], config).value
    return pl.DataFrame(rows, schema=_SCHEMA).sort("domain", "item_id", "view", "rule")


def action_of(rule: str, config: Audit) -> AuditAction:
    """Return what a rule does in a data set."""
    return AuditAction.FALLBACK if rule in NEVER_KEPT else AuditAction(getattr(config, rule))


def forgiven(config: Audit) -> frozenset[AuditRule]:
    """Return the rules whose texts a data set keeps."""
    return frozenset(rule for rule in AuditRule if action_of(rule, config) is not AuditAction.FALLBACK)


def replaced(findings: pl.DataFrame) -> pl.DataFrame:
    """Return domain, item_id, view of the texts that fall back, and the first rule that says so."""
    order = {rule.value: place for place, rule in enumerate(AuditRule)}
    failing = findings.filter(pl.col("action") == AuditAction.FALLBACK.value)
    ranked = failing.sort(*_KEY, pl.col("rule").replace_strict(order, return_dtype=pl.Int64))
    return ranked.unique(_KEY, keep="first", maintain_order=True).select(*_KEY, "rule", "detail")


def check_failures(findings: pl.DataFrame, num_judged: int, config: Audit) -> float:
    """Return the share of the judged texts that fall back.

    Raises:
        DataError: it is beyond the data set's limit.
    """
    failing = replaced(findings)
    share = failing.height / num_judged if num_judged else 0.0
    if num_judged < MIN_JUDGED or share <= config.max_failure_share:
        return share
    counts = failing.group_by("rule").len().sort("len", "rule", descending=[True, False])
    shown = findings.join(failing, on=[*_KEY, "rule"], how="semi").sort("rule", *_KEY).unique("rule", keep="first")
    raise DataError(
        f"semantics: {share:.0%} of the LLM's texts are not fit to be published",
        found=f"{failing.height} of {num_judged}: "
        + ", ".join(f"{rule} {count}" for rule, count in counts.iter_rows())
        + "; such as "
        + examples(
            f"{row['domain']}/{row['item_id']} {row['view']}, {row['rule']} ({row['detail']}): {row['text'] or '':.120}"
            for row in shown.sort("rule").iter_rows(named=True)
        ),
        expected=f"at most {config.max_failure_share:.0%} (semantics.audit.max_failure_share)",
        do="use another model or prompt, or set the rule to warn, or raise the limit; answers are kept either way",
    )


def _row(
    item: Mapping[str, Any], view: View, rule: AuditRule, detail: str, value: float | None, text: str | None
) -> dict[str, Any]:
    return {
        "domain": item["domain"],
        "item_id": item["item_id"],
        "view": view.value,
        "rule": rule.value,
        "value": value,
        "detail": detail[:MAX_CHARS],
        "text": text[:MAX_CHARS] if text else None,
        "source": item["source"],
        "model": item["model"],
    }


def _duplicates(written: pl.DataFrame) -> list[dict[str, Any]]:
    """Find texts that repeat those of an earlier item; items whose own text is the same may have the same."""
    rows = []
    ordered = written.sort("domain", "item_id")
    for view in View:
        first_of: dict[str, dict[str, Any]] = {}
        for item in ordered.iter_rows(named=True):
            first = first_of.setdefault(folded(item[view.value]), item)
            if (first["domain"], first["text_hash"]) != (item["domain"], item["text_hash"]):
                detail = f"{first['domain']}/{first['item_id']}"
                rows.append(_row(item, view, AuditRule.DUPLICATE, detail, 1.0, item[view.value]))
        firsts = list(first_of.values())
        for place, earlier, likeness in near_duplicates(list(first_of)):
            item, first = firsts[place], firsts[earlier]
            if (first["domain"], first["text_hash"]) != (item["domain"], item["text_hash"]):
                detail = f"{first['domain']}/{first['item_id']}: {first[view.value]}"
                value = round(likeness, 3)
                rows.append(_row(item, view, AuditRule.NEAR_DUPLICATE, detail, value, item[view.value]))
    return rows
