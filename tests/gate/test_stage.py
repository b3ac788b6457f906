from types import SimpleNamespace

import pytest

from semacdr.dataset import Gate
from semacdr.gate import stage
from semacdr.gate.stage import Side
from tests.gate.test_figures import ranks


@pytest.mark.parametrize(("shared", "told"), [(22, True), (21, True), (11, True), (10, False), (1, False)])
def test_of_few_targets_half_must_have_been_ranked_by_both(shared: int, told: bool, monkeypatch: pytest.MonkeyPatch):
    now = ranks(*((f"u{number}", "films", f"i{number}", 1) for number in range(22)))
    then = ranks(*((f"u{number}", "films", f"i{number}", 1) for number in range(22 - shared, 44 - shared)))
    of_side = {"now": now, "then": then}
    monkeypatch.setattr(stage, "_ranks", lambda _, evaluation: of_side[evaluation.reference])
    evaluations = {name: SimpleNamespace(reference=name) for name in of_side}
    candidate = Side({"evaluation": evaluations["now"]})
    (check,) = stage._compared(Gate(), 0, "ndcg_10", candidate, Side({}), evaluations["then"])
    assert check.passed == told
    assert (check.value is not None) == told
    assert (f"{shared} of 22 test targets were ranked by both: too few to tell" in check.reason) != told
