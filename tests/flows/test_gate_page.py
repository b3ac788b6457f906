from __future__ import annotations

from flows.gate import gate_markdown


def test_page_names_what_was_refused_and_why():
    verdicts = {"index@1": {"passed": True, "reasons": []}, "checkpoint@2": {"passed": False, "reasons": ["fell"]}}
    checks = [
        {"artifact": "checkpoint", "check": "ndcg_10", "passed": False, "reason": "a|b: NDCG@10 fell"},
        {"artifact": "index", "check": "recall_10", "passed": True, "reason": "recall@10 1.0"},
    ]
    page = gate_markdown("gate@3", verdicts, checks)
    assert "| checkpoint@2 | **refused** |" in page
    assert "| checkpoint | ndcg_10 | **refused** | a b: NDCG@10 fell |" in page
    assert "| index | recall_10 | passed | recall@10 1.0 |" in page
