"""What ``make demo`` costs and scores: a first run on an empty store and a second on the same, set-up left out.

    python -m benchmarks.demo [--dataset amazon-food-kitchen-mini] [--quick]

Prints seconds per stage, the test metrics beside the baselines, and one JSON line. ``--quick`` changes
nothing: it is short.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from semacdr.dataset import load_dataset
from semacdr.store import Store

FIRST_RUN_BAR_S = 15 * 60
SECOND_RUN_BAR_S = 2 * 60


def run(dataset: str, store: Path) -> tuple[float, float]:
    """Run the pipeline as a user does; return wall and CPU seconds."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    program = Path(sys.executable).with_name("semacdr")
    subprocess.run([str(program), "run", dataset, "--store", str(store)], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - started, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="amazon-food-kitchen-mini")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    name = load_dataset(arguments.dataset).name
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="semacdr-demo-") as folder:
        first, second = run(arguments.dataset, Path(folder)), run(arguments.dataset, Path(folder))
        store = Store(Path(folder))
        manifests = {m.stage: m for m in store.manifests(name)}
        metrics = store.get(name, "evaluation").scan().filter(pl.col("group") == "all").collect()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {manifests['ingest'].hardware}, load {load:.1f} before, seed 0, {name}")
    print("| stage | wall s |\n| --- | --- |")
    for stage, manifest in manifests.items():
        print(f"| {stage} | {manifest.seconds:.1f} |")
    print(f"| first run, in all | {first[0]:.0f} (CPU {first[1]:.0f}) |")
    print(f"| second run, in all | {second[0]:.0f} (CPU {second[1]:.0f}) |")
    shown = metrics.filter(pl.col("metric").is_in(["hr_10", "ndcg_10", "mrr"]))
    table = shown.pivot("metric", index=["model", "domain"], values="value")
    setting = metrics.select("protocol", "candidates", "fit", "part").row(0)
    print("\nprotocol {}, candidates {}, fit {}, part {}".format(*setting))
    print("| model | domain | HR@10 | NDCG@10 | MRR |\n| --- | --- | --- | --- | --- |")
    for row in table.iter_rows(named=True):
        print(f"| {row['model']} | {row['domain']} | {row['hr_10']:.4f} | {row['ndcg_10']:.4f} | {row['mrr']:.4f} |")
    holds = first[0] <= FIRST_RUN_BAR_S and second[0] <= SECOND_RUN_BAR_S
    bar = [FIRST_RUN_BAR_S, SECOND_RUN_BAR_S]
    print(json.dumps({"benchmark": "demo", "value": [round(first[0]), round(second[0])], "bar": bar, "holds": holds}))


if __name__ == "__main__":
    main()
