from __future__ import annotations

from pathlib import Path

import polars as pl

from flows.pages import gate_markdown, group_rows, metric_rows, refusals, report_uri
from semacdr.manifest import Manifest
from semacdr.store import Artifact, Store


def manifest(name: str, **details: object) -> Manifest:
    return Manifest(
        dataset="three-domains", name=name, version="2026.11.24", contract_version=1, stage=name, created_at="",
        fingerprint="", config={}, inputs={}, rows_in=0, rows_out={}, dropped={}, details=details, files=(), seconds=0,
    )  # fmt: skip


def test_gate_names_what_was_refused_and_why():
    verdicts = {"index@1": {"passed": True, "reasons": []}, "checkpoint@2": {"passed": False, "reasons": ["fell"]}}
    checks = [
        {"artifact": "checkpoint", "check": "ndcg_10", "passed": False, "reason": "a|b: NDCG@10 fell"},
        {"artifact": "index", "check": "recall_10", "passed": True, "reason": "recall@10 1.0"},
    ]
    page = gate_markdown("gate@3", verdicts, checks)
    assert "| checkpoint@2 | **refused** |" in page
    assert r"| checkpoint | ndcg_10 | **refused** | a\|b: NDCG@10 fell |" in page
    assert "| index | recall_10 | passed | recall@10 1.0 |" in page


def test_refusal_of_what_goes_together_is_told_once():
    passed, refused = {"passed": True, "reasons": []}, {"passed": False, "reasons": ["food: fell", "kitchen: fell"]}
    verdicts = {"checkpoint@1": passed, "index@2": passed}
    verdicts |= {f"{name}@3": refused for name in ("recommendations", "user_vectors", "item_vectors")}
    told = {"recommendations": "food: fell; kitchen: fell"}
    assert refusals(verdicts, {"recommendations": "2"}) == refusals(verdicts, {}) == told
    # Somebody has overridden the gate.
    assert refusals(verdicts, {"recommendations": "3"}) == {}


class Evaluation(Artifact):
    """An evaluation whose table is given."""

    def __init__(self, value: float, models: tuple[str, ...]) -> None:
        super().__init__(manifest("evaluation"), lambda: None)
        metrics = ("hr_10", "ndcg_10", "mrr", "coverage_10")
        rows = [(model, "macro", group, m, value) for model in models for group in ("all", "cold") for m in metrics]
        columns = ["model", "domain", "group", "metric", "value"]
        self.frame = pl.DataFrame(rows, columns, orient="row").with_columns(num_targets=pl.lit(9))

    def scan(self, table: str | None = None) -> pl.LazyFrame:
        return self.frame.lazy()


def test_metrics_stand_beside_those_in_production():
    rows = metric_rows(Evaluation(0.5, ("semacdr", "popularity")), Evaluation(0.25, ("semacdr",)))
    assert [(row["model"], row["ndcg_10"], row["ndcg_10 in production"]) for row in rows] == [
        ("semacdr", 0.5, 0.25),
        ("popularity", 0.5, None),
    ]


def test_metrics_without_production_stand_alone():
    (row,) = metric_rows(Evaluation(0.5, ("semacdr",)), None)
    assert row == {"domain": "macro", "model": "semacdr", "num_targets": 9, "hr_10": 0.5, "ndcg_10": 0.5, "mrr": 0.5}


def test_groups_stand_in_rows_and_models_in_columns():
    assert group_rows(Evaluation(0.5, ("semacdr", "popularity"))) == [
        {"group": group, "num_targets": 9, "semacdr": 0.5, "popularity": 0.5} for group in ("all", "cold")
    ]


def test_report_is_found_by_a_browser(tmp_path: Path):
    report = Artifact(manifest("report"), lambda: tmp_path)
    uri = report_uri(Store(tmp_path / "a store"), report)
    assert uri == f"{tmp_path.as_uri()}/a%20store/three-domains/report/2026.11.24/report.html"
