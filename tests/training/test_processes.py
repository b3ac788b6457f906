import json
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(wide_artifacts: dict[str, Path], tmp_path: Path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    artifacts = str(wide_artifacts["items"].parent)
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for processes, start in ((1, [sys.executable]), (2, launch)):
        command = [*start, str(script), artifacts, str(tmp_path / f"{processes}.json"), str(processes)]
        subprocess.run(command, check=True, capture_output=True, env=environment)
    one, two = (json.loads((tmp_path / f"{processes}.json").read_text()) for processes in (1, 2))
    assert two.keys() == one.keys()
    for source, losses in one.items():
        assert two[source] == pytest.approx(losses, rel=1e-4), source
    assert one["uniform"][-1] < one["uniform"][0]
