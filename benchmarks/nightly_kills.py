"""A worker killed at random during nightly runs: the last run publishes what an undisturbed one does.

    python -m benchmarks.nightly_kills [--dataset amazon-food-kitchen-mini] [--kills 10] [--seed 0] [--quick]

A real server on PostgreSQL (Debian's package) and a real worker; SIGKILL for the worker and its run at a random moment
of an undisturbed run's time. Each run starts when the slots of the one before it are free, and goes on where that was;
one that is done before its moment does not count, and the next begins a new store. No LLM is asked (budget of no
items): what it survives is measured by tests/semantics/test_chaos.py. Compares the fingerprints of all artifacts and
the bytes of all files that hold no times. ``--quick``: 3 kills.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.prefect_server import PrefectServer, prefect_server
from semacdr.dataset import load_dataset
from semacdr.store import Store
from tests.postgres import postgres

TIMES = r"training_history\.parquet|tensorboard/|report\.html"


def without_llm(dataset: str, folder: Path) -> Path:
    """Copy a data set with a budget of no items."""
    original, copy = load_dataset(dataset).folder, folder / "dataset"
    shutil.copytree(original, copy)
    toml = copy / "dataset.toml"
    kept = [line for line in toml.read_text().splitlines() if not re.match(r"(items|minutes) = [\d.]+$", line)]
    toml.write_text("\n".join(kept).replace("[semantics.budget]", "[semantics.budget]\nitems = 0") + "\n")
    name = load_dataset(copy).name
    text = toml.read_text().replace(f'name = "{name}"', f'name = "{name}-killed"')
    toml.write_text(text.replace('file = "../', f'file = "{original.parent}/'))
    return copy


def start(server: PrefectServer, dataset: Path, store: Path) -> str:
    """Start a nightly run; return its id."""
    return server.start_run("pipeline/nightly", {"dataset": str(dataset), "store": str(store), "refresh": []})


def kill_once(server: PrefectServer, dataset: Path, store: Path, after_s: float) -> bool:
    """Start a worker and a run, kill both after so long; return whether the run was at work."""
    while server.slots_taken():
        time.sleep(1)
    with server.worker() as worker:
        run_id = start(server, dataset, store)
        while server.run(run_id)["state_type"] in {"SCHEDULED", "PENDING"}:
            time.sleep(0.2)
        time.sleep(after_s)
        listed = subprocess.run(["pgrep", "--parent", str(worker.pid)], capture_output=True, text=True, check=False)
        for process in [*listed.stdout.split(), worker.pid]:
            os.kill(int(process), signal.SIGKILL)
        worker.wait()
    return server.run(run_id)["state_type"] == "RUNNING"


def finish(server: PrefectServer, dataset: Path, store: Path) -> float:
    """Run to the end; return its seconds."""
    started = time.monotonic()
    with server.worker():
        run = server.wait(start(server, dataset, store))
    assert run["state_type"] == "COMPLETED", run["state"]
    return time.monotonic() - started


def contents(store: Path) -> dict[str, tuple[str, dict[str, str]]]:
    """Artifact -> fingerprint, and the hashes of its files but those that hold times."""
    return {
        m.name: (m.fingerprint, {file.path: file.sha256 for file in m.files if not re.match(TIMES, file.path)})
        for m in Store(store).manifests()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="amazon-food-kitchen-mini")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    rng, load = random.Random(arguments.seed), os.getloadavg()[0]  # noqa: S311 (when to kill)
    with tempfile.TemporaryDirectory(prefix="semacdr-kills-") as name:
        folder = Path(name)
        dataset = without_llm(arguments.dataset, folder)
        stores = [folder / "killed-1"]
        published: list[str] = []
        with postgres() as url, prefect_server(folder, folder, PREFECT_API_DATABASE_CONNECTION_URL=url) as server:
            quiet_s = finish(server, dataset, folder / "quiet")
            while len(published) < (3 if arguments.quick else arguments.kills):
                after_s = rng.uniform(2, quiet_s)
                if kill_once(server, dataset, stores[-1], after_s):
                    published.append(f"{len(contents(stores[-1]))} ({stores[-1].name})")
                    print(f"killed after {after_s:.0f} s: {published[-1]} artifacts", flush=True)
                else:
                    stores.append(folder / f"killed-{len(stores) + 1}")
            last_s = finish(server, dataset, stores[-1])
        quiet, killed = contents(folder / "quiet"), [contents(store) for store in stores]
    differing = sorted({name for one in killed for name in quiet.keys() | one if quiet.get(name) != one.get(name)})
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, load {load:.1f} before, {arguments.dataset}, no LLM")
    print(f"undisturbed {quiet_s:.0f} s; the run after {len(published)} kills (seed {arguments.seed}) {last_s:.0f} s")
    print(f"artifacts after each: {', '.join(published)}; of {len(quiet)} differ: {', '.join(differing) or 'none'}")
    print(json.dumps({"benchmark": "nightly_kills", "value": len(differing), "bar": 0, "holds": not differing}))


if __name__ == "__main__":
    main()
