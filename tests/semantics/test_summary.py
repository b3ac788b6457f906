from __future__ import annotations

import polars as pl
import pytest

from flows.pages import audit_markdown
from semacdr.dataset import Audit
from semacdr.semantics.audit import audit
from semacdr.semantics.prompt import load_prompt
from semacdr.semantics.record import Record
from semacdr.semantics.summary import rates, spending, summarize

NONE = pl.DataFrame(schema=dict.fromkeys(("domain", "item_id", "reason", "raw", "source", "model"), pl.String))
NAMES = ("item_id", "title", "brand", "categories", "specific", "agnostic")
ITEMS = [
    ("i1", "Acme Oak Spoon", "Acme", "Kitchen > Spoons", "an oak spoon", "acme people who like oak and spoons"),
    ("i2", "Steel Pan", None, None, "a pan of steel", "people who want lasting things for calm evenings"),
    ("i3", "Iron Pan", None, None, "a pan of iron", "People who want lasting things, for calm evenings!"),
    ("i4", "Iron Pot", None, None, "a pot of iron", "people who want lasting things for calm mornings"),
    ("i5", "Tea", None, None, "a mild tea", "für Menschen die ruhige Abende und die Familie lieben"),
]


@pytest.fixture(scope="module")
def written() -> pl.DataFrame:
    rows = [dict(zip(NAMES, row, strict=True)) for row in ITEMS]
    frame = pl.DataFrame(rows, schema=dict.fromkeys(NAMES, pl.String))
    return frame.with_columns(
        domain=pl.lit("kitchen"), text=pl.col("title"), text_hash=pl.col("title"), source=pl.lit("generated"),
        model=pl.lit("m"),
    )  # fmt: skip


def test_audit_finds_leaks_duplicates_and_language(written: pl.DataFrame):
    findings = audit(written, NONE, Audit(), load_prompt("dual-view@1")).filter(view="agnostic")
    assert findings.select("item_id", "rule", "action", "detail").rows() == [
        ("i1", "brand_leak", "warn", "acme"),
        ("i1", "category_leak", "warn", "spoons"),
        ("i1", "title_leak", "warn", "acme oak spoons"),
        ("i3", "duplicate", "warn", "kitchen/i2"),
        ("i4", "near_duplicate", "warn", "kitchen/i2: people who want lasting things for calm evenings"),
        ("i5", "language", "fallback", "de"),
    ]


def test_summary_says_rates_lengths_and_worst_leaks(written: pl.DataFrame):
    findings = audit(written, NONE, Audit(), load_prompt("dual-view@1"))
    assert rates(findings, written) == {"leak_rate": 0.2, "protected_trait_rate": 0.0, "duplicate_rate": 0.2}
    summary = summarize(findings, written, 10, Audit())
    assert summary["rules"]["title_leak"] == {"action": "warn", "findings": 1, "share": 0.2}
    assert summary["lengths"]["specific"]["words"] == {"min": 3, "p10": 3, "median": 4, "p90": 4, "max": 4}
    assert summary["worst_leaks"][0]["item"] == "kitchen/i1"
    page = audit_markdown("semantics@1", {"leak_rate": 0.2}, {"audit": summary, "texts_by_source": {"generated": 10}})
    assert "| title_leak | warn | 1 | 20.0% |" in page
    assert "| leak_rate | 0.2 |" in page


def test_audit_of_nothing_is_empty(written: pl.DataFrame):
    findings = audit(written.clear(), NONE, Audit(), load_prompt("dual-view@1"))
    assert findings.is_empty()
    assert summarize(findings, written.clear(), 0, Audit())["lengths"]["agnostic"]["words"]["max"] == 0


def test_spending_counts_the_time_in_which_anything_was_awaited():
    def record(second: int, seconds: float, source: str = "generated") -> Record:
        return Record(
            key="k", status="ok", model="m", revision="", prompt="p@1", text_hash="h", prompt_tokens=10,
            completion_tokens=30, calls=1, spent_tokens=40, seconds=seconds, source=source,
            created_at=f"2026-01-01T00:00:{second:02}+00:00",
        )  # fmt: skip

    spent = spending([record(10, 5), record(12, 5), record(40, 2), record(41, 30, "imported")])
    assert (spent["busy_s"], spent["spent_tokens"], spent["completion_tokens"]) == (9, 160, 120)
    assert (spent["tokens_per_s"], spent["items_per_s"]) == (10, 0.33)
