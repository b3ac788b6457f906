import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from semacdr.model.checkpoint import load_checkpoint
from semacdr.progress import Progress
from semacdr.training.fit import Fit, FitInputs
from semacdr.training.loop import Plan, fit_to_end
from semacdr.training.snapshot import epochs_in, load_snapshot
from semacdr.training.validation import Score
from tests.training.test_fit import inputs_of

WORKER = """
import sys, torch
from pathlib import Path
from semacdr.dataset import Split, Training
from semacdr.progress import Progress
from semacdr.training import Run, train
artifacts, output, snapshots = map(Path, sys.argv[1:])
config = Training(overrides={"dim": 8, "num_blocks": 1, "batch_users": 16, "max_epochs": 6, "patience": 6})
inputs = {name: artifacts / name for name in ("items", "sequences", "embeddings")}
train(config, Split(max_length=12), inputs, output, Run(1, snapshots), Progress())
"""


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("fit", ["train", "train-mixed", "refit"])
def test_training_killed_in_a_fit_goes_on_to_the_same_weights(toy_artifacts: dict[str, Path], tmp_path: Path, fit: str):
    artifacts = toy_artifacts["items"].parent
    command = [sys.executable, "-c", WORKER, str(artifacts)]
    subprocess.run([*command, str(tmp_path / "whole"), str(tmp_path / "none")], check=True, capture_output=True)
    snapshots = tmp_path / "snapshots"
    process = subprocess.Popen([*command, str(tmp_path / "killed"), str(snapshots)])
    while not (snapshots / f"{fit}-0.safetensors").is_file() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert (snapshots / f"{fit}-0.safetensors").is_file()
    subprocess.run([*command, str(tmp_path / "again"), str(snapshots)], check=True, capture_output=True)
    assert weights(tmp_path / "again") == weights(tmp_path / "whole")
    assert not snapshots.exists()
    load_checkpoint(tmp_path / "again")


@pytest.mark.parametrize(("stop", "source"), [(1, "uniform"), (2, "uniform"), (3, "uniform"), (2, "neighbours")])
def test_fit_cut_after_any_epoch_goes_on_as_if_it_was_not(
    wide_artifacts: dict[str, Path], tmp_path: Path, stop: int, source: str
):
    inputs = inputs_of(wide_artifacts, negatives_from=source, negatives=30)
    scores = {1: 0.1, 2: 0.3, 3: 0.2, 4: 0.25}

    def run(name: str, max_epochs: int, snapshot: Path | None) -> tuple[dict[str, torch.Tensor], object]:
        fit = Fit(inputs, seed=0)
        plan = Plan("train", max_epochs, patience=5, snapshot=snapshot, tensorboard=tmp_path / name)
        outcome = fit_to_end(fit, plan, lambda: Score(scores[round(fit.steps / steps)], 0.0), Progress())
        return fit.model.state_dict(), (outcome.best_epoch, outcome.best)

    probe = Fit(inputs, seed=0)
    probe.epoch()
    steps = probe.steps
    expected, facts = run("whole", 4, None)
    run("cut", stop, tmp_path / "snapshot.safetensors")
    found, again = run("again", 4, tmp_path / "snapshot.safetensors")
    assert again == facts == (2, Score(0.3, 0.0))
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert drawn(tmp_path / "again") == drawn(tmp_path / "whole") == (4, 4, 4 * steps)


def drawn(folder: Path) -> tuple[int, ...]:
    """Count the points of some curves in TensorBoard's files."""
    (events,) = folder.rglob("events.*")
    return tuple(events.read_bytes().count(name) for name in (b"validation/ndcg_10", b"validation/hr_10", b"step/loss"))


def cut_after_an_epoch(inputs: FitInputs, snapshot: Path) -> None:
    fit_to_end(Fit(inputs, seed=0), Plan("train", 1, snapshot=snapshot), None, Progress())


def test_snapshot_that_is_broken_is_none(wide_artifacts: dict[str, Path], tmp_path: Path):
    inputs, snapshot = inputs_of(wide_artifacts), tmp_path / "snapshot.safetensors"
    cut_after_an_epoch(inputs, snapshot)
    assert epochs_in(snapshot) == 1
    whole = snapshot.read_bytes()
    for broken in (b"", whole[:5], whole[:500], whole[:-100]):
        snapshot.write_bytes(broken)
        assert epochs_in(snapshot) == 0
    fit = Fit(inputs, seed=0)
    outcome = fit_to_end(fit, Plan("train", 2, snapshot=snapshot), None, Progress())
    assert (len(outcome.history), epochs_in(snapshot)) == (2, 2)


def test_snapshot_of_a_cpu_is_gone_on_with_on_a_gpu(wide_artifacts: dict[str, Path], tmp_path: Path):
    """No GPU is needed to see that nothing is looked for that a CPU does not leave."""
    inputs, snapshot = inputs_of(wide_artifacts), tmp_path / "snapshot.safetensors"
    cut_after_an_epoch(inputs, snapshot)
    fit = Fit(inputs, seed=0)
    fit.compute = SimpleNamespace(device=SimpleNamespace(type="cuda"))
    record, _ = load_snapshot(snapshot, fit)
    assert len(record["history"]) == 1
