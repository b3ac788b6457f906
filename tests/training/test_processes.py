import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from tests.processes import PROJECT, free_port

WORKER = """
import json, sys, torch
from statistics import fmean
from pathlib import Path
import torch.distributed as dist
from tests.training.test_fit import inputs_of
from semacdr.training.fit import Fit
torch.set_num_threads(1)
if int(sys.argv[3]) > 1:
    dist.init_process_group("gloo")
folder = Path(sys.argv[1])
artifacts = {name: folder / name for name in ("items", "sequences", "embeddings")}
off = {"dropout": 0.0, "id_dropout": 0.0, "alignment_weight": 0.0, "uniformity_weight": 0.0,
       "domain_alignment_weight": 0.0, "user_alignment_weight": 0.0, "warmup_steps": 0}
losses = {}
for source, negatives in (("uniform", 1024), ("batch", 1024), ("neighbours", 30)):
    fit = Fit(inputs_of(artifacts, negatives_from=source, negatives=negatives, **off), seed=0)
    losses[source] = [fmean(step.loss for step in fit.epoch()) for _ in range(4)]
if fit.share.rank == 0:
    Path(sys.argv[2]).write_text(json.dumps(losses))
if fit.share.size > 1:
    dist.destroy_process_group()
"""


AGREE = """
import json, shutil, sys, torch
from pathlib import Path
import torch.distributed as dist
from semacdr.progress import Progress
from semacdr.training.fit import Fit
from semacdr.training.loop import Plan, Score, fit_to_end
from tests.training.test_fit import inputs_of
torch.set_num_threads(1)
dist.init_process_group("gloo")
folder, output = map(Path, sys.argv[1:])
inputs = inputs_of({name: folder / name for name in ("items", "sequences", "embeddings")})
rank = dist.get_rank()
snapshot = output / f"{rank}.safetensors"

def losses(epochs, path):
    plan = Plan("train", epochs, snapshot=path)
    return [row["loss"] for row in fit_to_end(Fit(inputs, seed=0), plan, None, Progress()).history]

found = [losses(3, None), losses(1, snapshot)]
shutil.copy(snapshot, output / f"{rank}.first")
found.append(losses(2, snapshot))
if rank == 1:
    shutil.copy(output / "1.first", snapshot)
found.append(losses(3, snapshot))
scores = iter([0.3, 0.2, 0.1] if rank == 0 else [0.1, 0.2, 0.3])
plan = Plan("train", 3, patience=2)
judged = fit_to_end(Fit(inputs, seed=0), plan, lambda: Score(next(scores), 0.0), Progress())
found.append([judged.best_epoch, len(judged.history)])
(output / f"{rank}.json").write_text(json.dumps(found))
dist.destroy_process_group()
"""

TOML = """
name = "toys"
domains.a.interactions = { files = ["a.csv"], columns = { user_id = "u", item_id = "i", timestamp = "t" } }
split.max_length = 12
training.overrides = { dim = 8, max_epochs = 3, dropout = 0.0, id_dropout = 0.0, alignment_weight = 0.0, \
uniformity_weight = 0.0, domain_alignment_weight = 0.0, user_alignment_weight = 0.0 }
"""

TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
ENVIRONMENT = {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_have_the_loss_curve_of_one(wide_artifacts: dict[str, Path], tmp_path: Path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    artifacts = str(wide_artifacts["items"].parent)
    launch = [*TORCHRUN, "--standalone", "--nproc-per-node", "2"]
    for processes, start in ((1, [sys.executable]), (2, launch)):
        command = [*start, str(script), artifacts, str(tmp_path / f"{processes}.json"), str(processes)]
        subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)
    one, two = (json.loads((tmp_path / f"{processes}.json").read_text()) for processes in (1, 2))
    assert two.keys() == one.keys()
    for source, losses in one.items():
        assert two[source] == pytest.approx(losses, rel=1e-4), source
    assert one["uniform"][-1] < one["uniform"][0]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    toml = tmp_path / "dataset.toml"
    toml.write_text(TOML)
    return toml


def train_on_nodes(nodes: int, dataset: Path, inputs: Path, outputs: Path) -> Path:
    """Train by one process on each of several "nodes", whose disks are their own; return the checkpoint."""
    rendezvous = ("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--rdzv-id", "toys")
    started = []
    for node in range(nodes):
        output = outputs / str(node) / "checkpoint"
        output.mkdir(parents=True, exist_ok=True)
        command = [*TORCHRUN, "--nnodes", str(nodes), "--nproc-per-node", "1", *rendezvous, "-m", "semacdr.training"]
        command += [str(dataset), "--inputs", str(inputs), "--output", str(output)]
        started.append(subprocess.Popen(command, env=ENVIRONMENT, cwd=PROJECT, stderr=subprocess.PIPE))
    for process in started:
        _, said = process.communicate()
        assert process.returncode == 0, said.decode()
    (weights,) = outputs.glob("*/checkpoint/model.safetensors")
    assert not list(outputs.glob("*/*.snapshots*"))
    return weights.parent


def losses(checkpoint: Path) -> list[float]:
    return pl.read_parquet(checkpoint / "training_steps.parquet")["loss"].to_list()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_nodes_have_the_loss_curve_of_one(toy_artifacts: dict[str, Path], dataset: Path, tmp_path: Path):
    inputs = toy_artifacts["items"].parent
    one, two = (losses(train_on_nodes(n, dataset, inputs, tmp_path / str(n))) for n in (1, 2))
    assert len(one) > 10
    assert two == pytest.approx(one, rel=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_processes_agree_where_to_go_on_and_when_to_end(toy_artifacts: dict[str, Path], tmp_path: Path):
    """A crash between two processes' snapshots: both start anew. Each judges another epoch best: the first decides."""
    script = tmp_path / "agree.py"
    script.write_text(AGREE)
    command = [*TORCHRUN, "--standalone", "--nproc-per-node", "2", str(script), str(toy_artifacts["items"].parent)]
    subprocess.run([*command, str(tmp_path)], check=True, capture_output=True, env=ENVIRONMENT, timeout=240)
    for rank in (0, 1):
        whole, *cut, judged = json.loads((tmp_path / f"{rank}.json").read_text())
        assert cut == [whole[:1], whole[:2], whole]
        assert judged == [1, 3]
