"""A night in which nothing changed, on a large store: what it costs, and before it what each stage cost once.

    python -m benchmarks.no_op [--rows 10000000] [--folder FOLDER] [--quick]

A synthetic log of two domains goes through every stage, each a process of its own. Then everything is asked for again:
by ``semacdr run``, with the server that it starts for itself, and by the flow ``pipeline/nightly`` on a Prefect server.
``--folder`` keeps log and store; where they are there already, only the last part is measured. ``--quick``: 200,000
rows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.interaction_log import write_domains
from benchmarks.prefect_server import BIN, prefect_server
from benchmarks.scaling import SMALL, STAGE, show

BAR_CPU_S = 60.0
USERS, ITEMS, DOMAINS = 50_000, 5_000, 2
MEMORY = "2GB"
NIGHTLY = "import sys; from flows.pipeline import nightly; nightly(sys.argv[1], sys.argv[2])"
MEASURED = """
import json, resource, subprocess, sys, time
started = time.monotonic()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([used.ru_utime + used.ru_stime, time.monotonic() - started, used.ru_maxrss / 1024]))
"""


def measure(command: list[str], environment: dict[str, str] | None = None) -> tuple[float, float, float]:
    """Run a program; return CPU seconds, its children's included, wall seconds and the peak MiB of one process."""
    wrapped = [sys.executable, "-c", MEASURED, *command]
    done = subprocess.run(wrapped, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    cpu_s, wall_s, peak_mb = json.loads(done.stdout)
    return cpu_s, wall_s, peak_mb


def make(folder: Path, rows: int) -> Path:
    """Write the log and run every stage; return the TOML."""
    toml = write_domains(folder / "log", rows, USERS, ITEMS, DOMAINS)
    print("| | stage | CPU s | wall s | peak MiB | MiB made |\n| --- | --- | --- | --- | --- | --- |", flush=True)
    show(f"{rows:,} events, once", STAGE, (*SMALL, "gate", "report"), toml, folder, MEMORY)
    return toml


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    rows = 200_000 if arguments.quick else arguments.rows
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before", flush=True)
    with tempfile.TemporaryDirectory(prefix="semacdr-no-op-") as temporary:
        folder = arguments.folder or Path(temporary)
        toml = folder / "log" / "dataset.toml"
        if not toml.exists():
            make(folder, rows)
        store = folder / "store"
        published = len(list(store.rglob("manifest.json")))
        found = {"`semacdr run`": measure([str(BIN / "semacdr"), "run", str(toml), "--store", str(store)])}
        with prefect_server(Path(temporary), store) as server:
            command = [sys.executable, "-c", NIGHTLY, str(toml), str(store)]
            found["`pipeline/nightly`, its server apart"] = measure(command, server.environment)
        made = len(list(store.rglob("manifest.json"))) - published
        assert not made, f"{made} artifacts are new"
    print("| nothing changed | CPU s | wall s | peak MiB |\n| --- | --- | --- | --- |")
    for what, (cpu_s, wall_s, peak_mb) in found.items():
        print(f"| {what} | {cpu_s:.1f} | {wall_s:.1f} | {peak_mb:,.0f} |")
    most = max(cpu_s for cpu_s, _, _ in found.values())
    print(json.dumps({"benchmark": "no_op", "value": most, "bar": BAR_CPU_S, "holds": most < BAR_CPU_S}))


if __name__ == "__main__":
    main()
