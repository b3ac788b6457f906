"""What Prefect costs when nothing is left to do: ``semacdr run`` against bare stages, and a deployment's start.

    python -m benchmarks.orchestration --store STORE [--dataset amazon-food-kitchen-mini] [--quick]

STORE is a copy of a store in which a run of the data set is complete. Prints a table and one JSON line. ``--quick``
leaves the server out.
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

from benchmarks.prefect_server import BIN, prefect_server

OVERHEAD_BAR_S = 10.0
FIRST_TASK_BAR_S = 20.0
NO_OP_BAR_CPU_S = 30.0

BARE = """
import sys
from semacdr.dataset import load_dataset
from semacdr.pipeline import STAGES, Context, run_stage
from semacdr.settings import load_settings
from semacdr.store import Store
settings = load_settings(store=sys.argv[2])
context = Context(
    dataset=load_dataset(sys.argv[1], settings.datasets), settings=settings, store=Store(settings.store, settings.cache)
)
before = len(context.store.manifests())
for stage in STAGES:
    run_stage(stage, context)
sys.exit(len(context.store.manifests()) - before)
"""


def timed(*command: str) -> tuple[float, float]:
    """Run a program; return its wall and CPU seconds."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - started, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def seconds_to_first_task(dataset: str, store: Path) -> float:
    """Return the time from a run's creation to its first task, with a worker that has run one before."""
    with (
        tempfile.TemporaryDirectory(prefix="semacdr-orchestration-") as folder,
        prefect_server(Path(folder), store) as server,
        server.worker(),
    ):
        for _ in range(2):
            run_id = server.start_run("pipeline/nightly", {"dataset": dataset, "refresh": []})
            run = server.wait(run_id)
        assert run["state_type"] == "COMPLETED", run["state"]
        created, first = (datetime.fromisoformat(str(t)) for t in (run["created"], server.first_task_at(run_id)))
    return (first - created).total_seconds()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--dataset", default="amazon-food-kitchen-mini")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    where = (arguments.dataset, "--store", str(arguments.store))
    subprocess.run([str(BIN / "semacdr"), "run", *where], check=True, stdout=subprocess.DEVNULL)
    load = os.getloadavg()[0]
    bare = timed(sys.executable, "-c", BARE, arguments.dataset, str(arguments.store))
    full = timed(str(BIN / "semacdr"), "run", *where)
    overhead = full[1] - bare[1]
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, load {load:.1f} before, {arguments.dataset}, cached")
    print("| | wall s | CPU s |\n| --- | --- | --- |")
    print(f"| the stages, called bare | {bare[0]:.1f} | {bare[1]:.1f} |")
    print(f"| `semacdr run`, its summary included | {full[0]:.1f} | {full[1]:.1f} |")
    value, holds = {"overhead_cpu_s": round(overhead, 1), "no_op_cpu_s": round(full[1], 1)}, overhead < OVERHEAD_BAR_S
    holds = holds and full[1] < NO_OP_BAR_CPU_S
    bar = {"overhead_cpu_s": OVERHEAD_BAR_S, "no_op_cpu_s": NO_OP_BAR_CPU_S}
    if not arguments.quick:
        first = seconds_to_first_task(arguments.dataset, arguments.store)
        print(f"| run created to its first task, warm worker | {first:.1f} | |")
        value["first_task_s"], bar["first_task_s"] = round(first, 1), FIRST_TASK_BAR_S
        holds = holds and first < FIRST_TASK_BAR_S
    print(json.dumps({"benchmark": "orchestration", "value": value, "bar": bar, "holds": holds}))


if __name__ == "__main__":
    main()
