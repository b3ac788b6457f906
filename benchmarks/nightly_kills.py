"""A worker killed at random during nightly runs: the last run publishes what an undisturbed one does.

    python -m benchmarks.nightly_kills [--dataset amazon-food-kitchen-mini] [--kills 10] [--seed 0] [--quick]

A real server and worker; SIGKILL for the worker and its run between 2 and 40 s after the run began. No LLM is asked
(budget of no items): what it survives is measured by tests/semantics/test_chaos.py. Compares the fingerprints of all
artifacts and the bytes of all their tables. ``--quick``: 3 kills.
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


def kill_once(server: PrefectServer, dataset: Path, after_s: float) -> str:
    """Start a worker and a run, kill both after so long; return the run's state as the server saw it last."""
    with server.worker() as worker:
        run_id = server.start_run("pipeline/nightly", {"dataset": str(dataset), "refresh": []})
        while server.run(run_id)["state_type"] in {"SCHEDULED", "PENDING"}:
            time.sleep(0.2)
        time.sleep(after_s)
        listed = subprocess.run(["pgrep", "--parent", str(worker.pid)], capture_output=True, text=True, check=False)
        for process in [*listed.stdout.split(), worker.pid]:
            os.kill(int(process), signal.SIGKILL)
        worker.wait()
    return str(server.run(run_id)["state_type"])


def finish(server: PrefectServer, dataset: Path) -> float:
    """Run to the end; return its seconds."""
    started = time.monotonic()
    with server.worker():
        run = server.wait(server.start_run("pipeline/nightly", {"dataset": str(dataset), "refresh": []}))
    assert run["state_type"] == "COMPLETED", run["state"]
    return time.monotonic() - started


def contents(store: Path) -> dict[str, tuple[str, dict[str, str]]]:
    """Artifact -> fingerprint, and the hashes of its tables; other files hold times."""
    opened = Store(store)
    manifests = {m.name: m for m in opened.manifests()}
    return {
        name: (m.fingerprint, {file.path: file.sha256 for file in m.files if file.path.endswith(".parquet")})
        for name, m in manifests.items()
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
        for run in ("quiet", "killed"):
            (folder / run).mkdir()
        with prefect_server(folder / "quiet", folder / "quiet-store") as server:
            quiet_s = finish(server, dataset)
        with prefect_server(folder / "killed", folder / "killed-store") as server:
            kills = 3 if arguments.quick else arguments.kills
            states = [kill_once(server, dataset, rng.uniform(2, 40)) for _ in range(kills)]
            last_s = finish(server, dataset)
        quiet, killed = contents(folder / "quiet-store"), contents(folder / "killed-store")
    same = quiet == killed
    differing = sorted(name for name in quiet.keys() | killed.keys() if quiet.get(name) != killed.get(name))
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, load {load:.1f} before, {arguments.dataset}, no LLM")
    print(f"undisturbed {quiet_s:.0f} s; {kills} kills, seed {arguments.seed}; the run after them {last_s:.0f} s")
    print(f"states of the killed runs: {', '.join(states)}; artifacts that differ: {', '.join(differing) or 'none'}")
    print(json.dumps({"benchmark": "nightly_kills", "value": len(differing), "bar": 0, "holds": same}))


if __name__ == "__main__":
    main()
