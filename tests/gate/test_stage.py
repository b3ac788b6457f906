from types import SimpleNamespace

import polars as pl
import pytest

from semacdr.dataset import Gate
from semacdr.gate import stage
from semacdr.gate.stage import Side
from tests.gate.test_figures import ranks


@pytest.mark.parametrize(("shared", "told"), [(22, True), (21, True), (11, True), (10, False), (1, False)])
def test_of_few_targets_half_must_have_been_ranked_by_both(shared: int, told: bool, monkeypatch: pytest.MonkeyPatch):
    now = ranks(*((f"u{number}", "films", f"i{number}", 1) for number in range(22)))
    then = ranks(*((f"u{number}", "films", f"i{number}", 1) for number in range(22 - shared, 44 - shared)))
    monkeypatch.setattr(stage, "_ranks", lambda *_: now)
    candidate = Side({"evaluation": SimpleNamespace(reference="now"), "checkpoint": SimpleNamespace()})
    (check,) = stage._compared(Gate(), 0, "ndcg_10", candidate, then, SimpleNamespace(reference="then"))
    assert check.passed == told
    assert (check.value is not None) == told
    assert (f"{shared} of 22 test targets were ranked by both: too few to tell" in check.reason) != told


def test_the_best_of_late_is_ranked_by_its_own_model(monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[str, str]] = []

    def of_model(checkpoint: SimpleNamespace, evaluation: SimpleNamespace) -> pl.DataFrame:
        asked.append((checkpoint.reference, evaluation.reference))
        return ranks(*((f"u{number}", "films", f"i{number}", 1) for number in range(40)))

    monkeypatch.setattr(stage, "_ranks", of_model)
    sides = [
        Side({name: SimpleNamespace(reference=f"{side} {name}") for name in names})
        for side, names in (
            ("new", ("checkpoint", "evaluation")),
            ("old", ("checkpoint", "evaluation", "best_checkpoint", "best_evaluation")),
        )
    ]
    checks = list(stage._of_checkpoint(Gate(), 0, *sides))
    assert [check.check for check in checks] == ["ndcg_10", "ndcg_10_best"]
    assert ("old best_checkpoint", "old best_evaluation") in asked
    assert ("old checkpoint", "old best_evaluation") not in asked


@pytest.mark.parametrize(("confidence", "rank"), [(1.0, 3_000), (1.0, 1), (0.8, 3_000)])
def test_a_drop_that_is_entirely_sure_is_refused(monkeypatch: pytest.MonkeyPatch, confidence: float, rank: int):
    now, then = (ranks(*((f"u{n}", "films", f"i{n}", of) for n in range(40))) for of in (rank, 1))
    monkeypatch.setattr(stage, "_ranks", lambda *_: now)
    candidate = Side({"evaluation": SimpleNamespace(reference="now"), "checkpoint": SimpleNamespace()})
    config = Gate(confidence=confidence)
    (check,) = stage._compared(config, 0, "ndcg_10", candidate, then, SimpleNamespace(reference="then"))
    assert check.passed == (rank == 1)
