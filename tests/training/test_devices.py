from functools import partial
from pathlib import Path

import jaxtyping
import pytest
import torch

from semacdr.errors import ConfigError
from semacdr.model.histories import read_events
from semacdr.training.compute import Compute
from semacdr.training.fit import Fit
from semacdr.training.validation import Validation
from tests.training.fake_gpu import DEVICE, FakeGpu, OnGpu
from tests.training.test_fit import inputs_of

CHANGES = [
    *({"preset": name} for name in ("semacdr", "sasrec-target", "tri-cdr-like", "abxi-like")),
    {"loss": "softmax"},
    {"loss": "gbce", "negatives": 4},
    {"loss": "bce"},
    {"negatives_from": "popularity", "negatives": 4},
    {"negatives_from": "batch", "log_q": False},
    {"negatives_from": "neighbours", "negatives": 8},
    {"position": "rope+time", "block": "ligr", "domain_price": True},
    {"position": "learned"},
    {"query_time": True},
    {"profile_weight": 0.1},
    {"adapter_mixture": True},
    {"item_fusion": "concat", "sequence_fusion": "concat"},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_fit_on_a_gpu_keeps_all_on_it_and_learns_the_same(
    toy_artifacts: dict[str, Path], monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
):
    inputs = inputs_of(toy_artifacts, max_epochs=1, **change)
    expected = [step.loss for step in Fit(inputs, seed=0).epoch()]
    monkeypatch.setattr(torch.optim, "AdamW", partial(unfused, torch.optim.AdamW))
    with FakeGpu():
        fit = Fit(inputs, 0, Compute(DEVICE))
        losses = [step.loss for step in fit.epoch()]
        events = read_events(toy_artifacts["sequences"], inputs.vocabulary)
        score = Validation(inputs, events, seed=0).score(fit.model)
    assert 0 <= score.ndcg_10 <= 1
    assert losses == pytest.approx(expected, rel=1e-4)
    assert all(isinstance(value, OnGpu) for value in fit.modules.state_dict().values())


def unfused(made: type[torch.optim.AdamW], groups: list[dict[str, object]], *, fused: bool) -> torch.optim.AdamW:
    assert fused
    return made(groups, fused=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{}, {"backbone": "towers", "query_time": True}, {"loss": "bce"}])
def test_fit_in_mixed_precision_learns_nearly_the_same(toy_artifacts: dict[str, Path], change: dict[str, object]):
    inputs = inputs_of(toy_artifacts, dropout=0.0, id_dropout=0.0, **change)
    exact, mixed = Fit(inputs, 0), Fit(inputs, 0, Compute(bfloat16=True))
    found = [[step.loss for step in fit.epoch()] for fit in (exact, mixed)]
    assert found[0] != found[1]
    assert found[1] == pytest.approx(found[0], rel=0.03)
    assert all(value.dtype != torch.bfloat16 for value in mixed.modules.state_dict().values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_compiled_fit_learns_the_same(toy_artifacts: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    compiled, inputs = [], inputs_of(toy_artifacts, max_epochs=1)
    compile_module = torch.nn.Module.compile

    def traced(part: torch.nn.Module, *, dynamic: bool) -> None:
        # All of torch.compile but its C++, which takes most of a minute.
        compiled.append(type(part).__name__)
        compile_module(part, dynamic=dynamic, backend="aot_eager")

    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    # Traced sizes are symbols, which the check of shapes does not know.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    losses = [[step.loss for step in Fit(inputs, 0, Compute(compiled=on)).epoch()] for on in (False, True)]
    assert compiled == ["Projection"] * 2 + ["Block"] * inputs.config.num_blocks
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="torch sees no GPU"):
        Compute.of("cuda", bfloat16=False, compiled=False)
    assert Compute.of("auto", bfloat16=True, compiled=False) == Compute(bfloat16=True)


def test_each_process_gets_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert Compute.of("auto", bfloat16=False, compiled=False).device == torch.device("cuda", 3)
    assert Compute.of("cpu", bfloat16=False, compiled=False).device == torch.device("cpu")
