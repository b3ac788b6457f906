"""Rows on validation, gated: what a preset is chosen by. Test targets are never read.

    python -m benchmarks.choices [--store STORE] [--dataset DATASET] [--protocol P] [--seeds 0 1 2] --row ROW --row ROW

A row is that of ``semacdr evaluate --model``, such as ``semacdr:no-texts:uniform-negatives``. Each seed trains the fit
``train`` until validation stops getting better; the gate is fitted on one half of the users and measured on the other.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from semacdr import sequences
from semacdr.comparison.rows import Source, Texts, find_row
from semacdr.dataset import Protocol, Split, Training
from semacdr.progress import Progress
from semacdr.settings import DuckDbSettings
from semacdr.store import Store
from semacdr.training import Run
from semacdr.training.stage import validate_config


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", action="append", required=True)
    parser.add_argument("--store", type=Path, default=Path("store"))
    parser.add_argument("--dataset", default="amazon-food-kitchen")
    parser.add_argument("--protocol", type=Protocol, choices=list(Protocol), default=Protocol.GTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    rows = [find_row(name) for name in arguments.row]
    for row in rows:
        if row.preset is None or row.source is not Source.REAL or row.texts is not Texts.GIVEN:
            parser.error(f"{row.name}: a preset and switches of its fields only; other rows have no validation here")
    store, split = Store(arguments.store), Split(protocol=arguments.protocol)
    names = ("interactions", "items", "embeddings", "semantics")
    inputs = {name: store.get(arguments.dataset, name).path for name in names}
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before", flush=True)
    print("| row | seed | HR@10 | NDCG@10 | CPU s |\n| --- | --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory(prefix="semacdr-choices-") as folder:
        found: dict[str, list[float]] = {}
        sequences.build(split, inputs["interactions"], Path(folder), DuckDbSettings())
        for row in rows:
            for seed in arguments.seeds:
                started = time.process_time()
                config = Training(preset=str(row.preset), overrides=dict(row.overrides), seed=seed)
                score = validate_config(config, split, inputs | {"sequences": Path(folder)}, Run(1), Progress())
                spent = time.process_time() - started
                found.setdefault(row.name, []).append(round(score.ndcg_10, 4))
                print(f"| {row.name} | {seed} | {score.hr_10:.4f} | {score.ndcg_10:.4f} | {spent:.0f} |", flush=True)
    print(json.dumps({"benchmark": "choices", "ndcg_10": found}))


if __name__ == "__main__":
    main()
