"""A worker killed at random during nightly runs: the last run publishes what an undisturbed one does.

    python -m benchmarks.nightly_kills [--dataset amazon-food-kitchen-mini] [--kills 10] [--seed 0] [--quick] [--keep F]

A real server on PostgreSQL (Debian's package) and a real worker; SIGKILL for the worker and its run. The moments are
drawn from the whole time for which the stages of an undisturbed night are at work. All fall in one night: a run is
killed once it is in that stage, and the night's runs have been at work there for so long. The next one starts when the
slots are free, and after the last kill a run ends the night. A night that ends before its kill begins anew in a new
store. No LLM is asked (budget of no items): what it survives is measured by tests/semantics/test_chaos.py. Compares the
fingerprints of all artifacts, and the bytes of all files but those that hold times; of the table of epochs, all but the
seconds. ``--quick``: 3 kills. ``--keep``: leaves the stores in this folder.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from benchmarks.prefect_server import PrefectServer, prefect_server
from semacdr.dataset import load_dataset
from semacdr.store import Store
from tests.postgres import postgres

TIMES = r"tensorboard/|report\.html"
TRIES = 5
"""Of a run that ends as nobody wanted, such as for want of a server's answer."""


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


@dataclass
class Night:
    """The runs that end with everything published in one store."""

    store: Path
    worked_s: dict[str, float] = field(default_factory=dict)
    """By stage, in the order in which they were first at work: how long runs held its slots."""

    def has_come_to(self, moment_s: float, undisturbed: Night) -> bool:
        """Return whether the stage that is at work is where an undisturbed night is at the moment."""
        there_s = undisturbed.worked_s
        before, last = [*self.worked_s][:-1], [*self.worked_s][-1:]
        passed_s = sum(there_s.get(stage, 0) for stage in before)
        return passed_s + sum(min(self.worked_s[stage], there_s.get(stage, 0)) for stage in last) >= moment_s


def attempt(server: PrefectServer, dataset: Path, night: Night, undisturbed: Night, moment_s: float) -> str:
    """Start a worker and a run, and kill both at a moment; return how it ended: COMPLETED, killed or another way."""
    while server.slots_taken():
        time.sleep(1)
    with server.worker() as worker:
        asked: dict[str, object] = {"dataset": str(dataset), "store": str(night.store), "refresh": []}
        run_id = server.start_run("pipeline/nightly", asked)
        looked_at_s = time.monotonic()
        while (end := str(server.run(run_id)["state_type"])) in {"SCHEDULED", "PENDING", "RUNNING"}:
            stage, at_work = server.stage_of(run_id), server.slots_taken() > 0
            before_s, looked_at_s = looked_at_s, time.monotonic()
            if stage and at_work:
                night.worked_s[stage] = night.worked_s.get(stage, 0) + looked_at_s - before_s
            if night.has_come_to(moment_s, undisturbed) or worker.poll() is not None:
                end = "killed" if worker.poll() is None else "without its worker"
                break
            time.sleep(0.1)
        listed = subprocess.run(["pgrep", "--parent", str(worker.pid)], capture_output=True, text=True, check=False)
        for process in [*map(int, listed.stdout.split()), worker.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        worker.wait()
    return end


def go_on(server: PrefectServer, dataset: Path, night: Night, undisturbed: Night, moment_s: float = math.inf) -> bool:
    """Run until the night is complete, or its run was killed at a moment; return which."""
    for _ in range(TRIES):
        end = attempt(server, dataset, night, undisturbed, moment_s)
        if end in {"COMPLETED", "killed"}:
            return end == "COMPLETED"
        print(f"a run of {night.store.name} ended: {end}; once more", flush=True)
    raise RuntimeError(f"{TRIES} runs of {night.store.name} did not end well")


Contents = dict[str, list[tuple[str, dict[str, str]]]]
"""Artifact -> of each of its versions the fingerprint, and the hashes of its files but those that hold times."""


def contents(folder: Path) -> Contents:
    """Return what a store holds."""
    found: Contents = {}
    store = Store(folder)
    for artifact in (store.get(m.dataset, m.name, m.version) for m in store.manifests()):
        files = {file.path: file.sha256 for file in artifact.manifest.files if not re.match(TIMES, file.path)}
        if (epochs := artifact.path / "training_history.parquet").is_file():
            untimed = pl.read_parquet(epochs).drop("seconds").write_csv()
            files[epochs.name] = hashlib.sha256(untimed.encode()).hexdigest()
        found.setdefault(artifact.manifest.name, []).append((artifact.manifest.fingerprint, files))
    return found


def difference(quiet: Contents, killed: Contents) -> dict[str, list[str]]:
    """Return what differs: artifact -> files; none are named where fingerprints or the number of versions do."""
    found: dict[str, list[str]] = {}
    for name in quiet.keys() | killed.keys():
        one, other = quiet.get(name, []), killed.get(name, [])
        if one != other:
            pairs = zip(one, other, strict=False)
            found[name] = sorted({path for (_, a), (_, b) in pairs for path in a | b if a.get(path) != b.get(path)})
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="amazon-food-kitchen-mini")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    kills = 3 if arguments.quick else arguments.kills
    rng, load = random.Random(arguments.seed), os.getloadavg()[0]  # noqa: S311 (when to kill)
    with tempfile.TemporaryDirectory(prefix="semacdr-kills-") as name:
        folder = arguments.keep or Path(name)
        dataset = without_llm(arguments.dataset, folder)
        # A cache of its own: what an earlier training left there would be gone on with.
        more = {"SEMACDR_CACHE": str(folder / "cache")}
        quiet, nights = Night(folder / "quiet"), [Night(folder / "killed-1")]
        with (
            postgres() as url,
            prefect_server(folder, folder, PREFECT_API_DATABASE_CONNECTION_URL=url, **more) as server,
        ):
            go_on(server, dataset, quiet, quiet)
            moments = sorted(rng.uniform(0, sum(quiet.worked_s.values())) for _ in range(kills))
            print("| kill | at s | in stage | at work there for s | artifacts |\n| --- | --- | --- | --- | --- |")
            for number, moment in enumerate(moments, 1):
                while go_on(server, dataset, nights[-1], quiet, moment):
                    nights.append(Night(folder / f"killed-{len(nights) + 1}"))
                stage, seconds = next(reversed(nights[-1].worked_s.items()))
                made = len(contents(nights[-1].store))
                print(f"| {number} | {moment:.0f} | {stage} | {seconds:.0f} | {made} |", flush=True)
            go_on(server, dataset, nights[-1], quiet)
        published = contents(quiet.store)
        differences = [difference(published, contents(night.store)) for night in nights]
    differing = {name: files for found in differences for name, files in found.items()}
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, load {load:.1f} before, {arguments.dataset}, no LLM")
    print("| stage | at work, undisturbed, s | with kills, s |\n| --- | --- | --- |")
    for stage, seconds in quiet.worked_s.items():
        print(f"| {stage} | {seconds:.0f} | {sum(night.worked_s.get(stage, 0) for night in nights):.0f} |")
    equal = sorted(published.keys() - differing)
    value = {"kills": kills, "seed": arguments.seed, "nights": len(nights), "equal": equal, "differ": differing}
    print(json.dumps({"benchmark": "nightly_kills", "value": value, "bar": {"differ": {}}, "holds": not differing}))


if __name__ == "__main__":
    main()
