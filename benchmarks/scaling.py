"""What each stage costs as users, items, domains and events grow: CPU, wall, peak memory and bytes.

    python -m benchmarks.scaling [--rows 1000000 5000000 20000000 50000000] [--shapes 5] [--memory 2GB] [--quick]

Ingest, sequences and the check of the interactions before they are published run on one-domain logs of --rows events.
The stages up to recommendations run on data sets that differ from the first in one thing: twice the events, users,
items, or domains; training sees one event in a thousand. Every stage is a process of its own; what its imports cost is
in its CPU seconds. ``--quick``: 200,000 rows, and the first of the data sets.
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

from benchmarks.interaction_log import write_domains, write_log

LARGE = ("ingest", "sequences", "check")
SMALL = ("ingest", "sequences", "semantics", "embeddings", "index", "training", "evaluation", "recommendations")
SHAPES = {
    "1,000,000 events, 20,000 users, 2,000 items, 2 domains": (1_000_000, 20_000, 2_000, 2),
    "items x 2": (1_000_000, 20_000, 4_000, 2),
    "domains x 2": (1_000_000, 20_000, 2_000, 4),
    "users x 2": (1_000_000, 40_000, 2_000, 2),
    "events x 2": (2_000_000, 20_000, 2_000, 2),
}
STAGE = """
import json, resource, sys, time
from semacdr.dataset import load_dataset
from semacdr.pipeline import Context, find_stage, run_stage
from semacdr.settings import DuckDbSettings, load_settings
from semacdr.store import Store
name, toml, folder, memory = sys.argv[1:]
places = {"store": f"{folder}/store", "cache": f"{folder}/cache"}
settings = load_settings(**places, threads=2, duckdb=DuckDbSettings(memory_limit=memory))
started = time.monotonic()
made = run_stage(find_stage(name), Context(dataset=load_dataset(toml), settings=settings, store=Store(settings.store)))
wall_s, used = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF)
size = sum(file.bytes for artifact in made.values() for file in artifact.manifest.files)
print(json.dumps([used.ru_utime + used.ru_stime, wall_s, used.ru_maxrss / 1024, size]))
"""


ALONE = """
import json, resource, sys, time
from pathlib import Path
from semacdr import interactions, sequences, tables
from semacdr.dataset import load_dataset
from semacdr.progress import Progress
from semacdr.settings import DuckDbSettings
name, toml, folder, memory = sys.argv[1:]
config, limits = load_dataset(toml), DuckDbSettings(memory_limit=memory)
out = {table: Path(folder) / table for table in ("interactions", "items", "rejects", "sequences")}
started = time.monotonic()
if name == "ingest":
    interactions.ingest(config, {table: out[table] for table in tuple(out)[:3]}, limits, Progress())
elif name == "sequences":
    sequences.build(config.split, out["interactions"], out["sequences"], limits)
else:
    tables.check("interactions", out["interactions"])
wall_s, used = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF)
made = out["sequences" if name == "sequences" else "interactions"].rglob("*.parquet")
size = sum(path.stat().st_size for path in made)
print(json.dumps([used.ru_utime + used.ru_stime, wall_s, used.ru_maxrss / 1024, size]))
"""


def measure(script: str, name: str, toml: Path, folder: Path, memory: str) -> tuple[float, float, float, float]:
    """Run one stage; return CPU seconds, wall seconds, peak MiB and the bytes of what it made."""
    command = [sys.executable, "-c", script, name, str(toml), str(folder), memory]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    cpu_s, wall_s, peak_mb, size = json.loads(done.stdout.splitlines()[-1])
    return cpu_s, wall_s, peak_mb, size


def show(what: str, script: str, stages: tuple[str, ...], toml: Path, folder: Path, memory: str) -> list[float]:
    """Print a line for each stage; return their CPU seconds."""
    spent = []
    for name in stages:
        cpu_s, wall_s, peak_mb, size = measure(script, name, toml, folder, memory)
        print(f"| {what} | {name} | {cpu_s:.1f} | {wall_s:.1f} | {peak_mb:,.0f} | {size / 2**20:,.1f} |", flush=True)
        spent.append(cpu_s)
    return spent


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000_000, 5_000_000, 20_000_000, 50_000_000])
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--shapes", type=int, default=len(SHAPES), help="how many of the data sets")
    arguments = parser.parse_args()
    sizes = [200_000] if arguments.quick else arguments.rows
    shapes = list(SHAPES.items())[: 1 if arguments.quick else arguments.shapes]
    load = os.getloadavg()[0]
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, load {load:.1f} before, {arguments.memory}")
    print("| | stage | CPU s | wall s | peak MiB | MiB made |\n| --- | --- | --- | --- | --- | --- |", flush=True)
    per_row = {}
    for rows in sizes:
        with tempfile.TemporaryDirectory(prefix="semacdr-scaling-") as name:
            toml = write_log(Path(name) / "log", rows)
            spent = show(f"{rows:,} events", ALONE, LARGE, toml, Path(name), arguments.memory)
        per_row[rows] = [round(cpu_s / rows * 1e6, 2) for cpu_s in spent]
    for what, shape in shapes:
        with tempfile.TemporaryDirectory(prefix="semacdr-scaling-") as name:
            toml = write_domains(Path(name) / "log", *shape)
            show(what, STAGE, SMALL, toml, Path(name), arguments.memory)
    print(
        json.dumps(
            {
                "benchmark": "scaling",
                "us_cpu_a_row": {stage: [v[n] for v in per_row.values()] for n, stage in enumerate(LARGE)},
            }
        )
    )


if __name__ == "__main__":
    main()
