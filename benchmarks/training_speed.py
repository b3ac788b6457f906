"""Training speed: sequences per CPU second of SASRec here and in RecTools, and what SemaCDR costs beside SASRec.

    python -m benchmarks.training_speed [--store STORE] [--dataset DATASET] [--epochs 2] [--quick]

All runs train on the same events, one thread each, one after the other. Those beside RecTools have its width, length,
batch and number of negatives; the two presets are compared as they are. RecTools lives in an environment of its own,
with pandas 2: ``pip install "rectools[torch]==0.19.0" "pandas<3"``; without one, named by --rectools, its row is left
out and its bar is not judged.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.fit_inputs import MAX_LENGTH, read_fit_inputs
from benchmarks.rectools import run_rectools
from semacdr.model.config import load_preset
from semacdr.model.histories import Events
from semacdr.training.fit import Fit, FitInputs

BATCH, DIM, BLOCKS, HEADS, NEGATIVES, DROPOUT = 128, 64, 2, 2, 128, 0.2
RECTOOLS_BAR, SEMACDR_BAR = 5.0, 2.0
SAME = {
    "dim": DIM, "num_blocks": BLOCKS, "num_heads": HEADS, "dropout": DROPOUT, "batch_users": BATCH,
    "loss": "sampled", "negatives": NEGATIVES,
}  # fmt: skip

RECTOOLS = """
import json, sys, time
import pandas as pd, torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
torch.set_num_threads(1)
frame = pd.read_parquet(sys.argv[1])
length, batch, dim, blocks, heads, negatives, epochs = map(int, sys.argv[2:9])
frame[Columns.Weight] = 1.0
dataset = Dataset.construct(frame)
def seconds(epochs):
    model = SASRecModel(session_max_len=length, batch_size=batch, n_factors=dim, n_blocks=blocks, n_heads=heads,
                        n_negatives=negatives, loss="sampled_softmax", dropout_rate=float(sys.argv[9]), epochs=epochs,
                        verbose=0, deterministic=False)
    cpu, wall = time.process_time(), time.monotonic()
    model.fit(dataset)
    return time.process_time() - cpu, time.monotonic() - wall
one, more = seconds(1), seconds(1 + epochs)
print(json.dumps({"cpu_s": (more[0] - one[0]) / epochs, "wall_s": (more[1] - one[1]) / epochs}))
"""


@dataclass(frozen=True)
class Row:
    """Seconds of one epoch."""

    name: str
    cpu_s: float
    wall_s: float


def main() -> None:
    """Measure, print a table and one line of JSON per claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("store"))
    parser.add_argument("--dataset", default="amazon-food-kitchen")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rectools", type=Path, help="Python of an environment with rectools[torch].")
    parser.add_argument("--quick", action="store_true", help="One epoch each.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    epochs = 1 if arguments.quick else arguments.epochs
    inputs, _ = read_fit_inputs(arguments.store, arguments.dataset)
    rows = [_ours(name, inputs, epochs, {}) for name in ("sasrec-mixed", "semacdr")]
    if arguments.rectools:
        rows.append(_ours("sasrec-mixed", inputs, epochs, SAME))
        rows.append(_rectools(arguments.rectools, inputs.events, epochs))
    sequences = int((inputs.events.offsets[1:] > inputs.events.offsets[:-1]).sum())
    print(f"{'':22}{'CPU s/epoch':>12}{'wall s/epoch':>14}{'users/CPU s':>13}")
    for row in rows:
        print(f"{row.name:22}{row.cpu_s:12.2f}{row.wall_s:14.2f}{sequences / row.cpu_s:13.0f}")
    cost = rows[1].cpu_s / rows[0].cpu_s
    _claim("semacdr_over_sasrec_mixed", cost, SEMACDR_BAR, holds=cost <= SEMACDR_BAR)
    if arguments.rectools:
        gain = rows[3].cpu_s / rows[2].cpu_s
        _claim("sasrec_mixed_against_rectools", gain, RECTOOLS_BAR, holds=gain >= RECTOOLS_BAR)


def _claim(name: str, ratio: float, bar: float, *, holds: bool) -> None:
    print(json.dumps({"benchmark": name, "ratio": round(ratio, 2), "bar": bar, "holds": holds}))


def _ours(preset: str, inputs: FitInputs, epochs: int, overrides: dict[str, object]) -> Row:
    fit = Fit(FitInputs(**{**vars(inputs), "config": load_preset(preset, overrides)}), seed=0)
    fit.epoch()
    cpu_s, wall_s = time.process_time(), time.monotonic()
    for _ in range(epochs):
        fit.epoch()
    name = f"{preset} (same)" if overrides else preset
    return Row(name, (time.process_time() - cpu_s) / epochs, (time.monotonic() - wall_s) / epochs)


def _rectools(python: Path, events: Events, epochs: int) -> Row:
    sizes = (MAX_LENGTH, BATCH, DIM, BLOCKS, HEADS, NEGATIVES, epochs, DROPOUT)
    return Row("rectools", **run_rectools(python, RECTOOLS, events, sizes))


if __name__ == "__main__":
    main()
