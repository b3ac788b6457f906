"""What publishing a version costs beside writing its data, in a store that holds many already.

Run: python -m benchmarks.store_publish [--quick]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import polars as pl

from semacdr import manifest as manifests
from semacdr.manifest import Facts, Manifest, fingerprint
from semacdr.store import Draft, Store

BAR_S = 0.2
ROUNDS = 20
NAMES = ("interactions", "items", "semantics", "embeddings", "checkpoint")
FRAME = pl.DataFrame({"user_id": ["u"], "domain": ["a"], "item_id": ["i"], "timestamp_s": [1], "rating": [1.0]})


def fill(store: Store, template: Manifest, count: int) -> None:
    """Write manifests of versions that were published long ago, as many of each name."""
    for number in range(count):
        name = NAMES[number % len(NAMES)]
        version = f"{2000 + number // 1000}.01.01.{1 + number % 1000}"
        update = {"name": name, "version": version, "fingerprint": fingerprint(number)}
        folder = store.root / "data" / name / version
        folder.mkdir(parents=True)
        manifests.write_manifest(folder, template.model_copy(update=update))


def publish(store: Store, key: object) -> tuple[float, float]:
    """Publish a version and return the seconds of CPU of all but writing the data, and of writing it."""
    draft = Draft(dataset="data", stage="s", fingerprint=fingerprint(key), config={}, sources={}, inputs={})
    started = time.process_time()
    with store.open_draft(draft, ["interactions"]):
        before = time.process_time()
        FRAME.write_parquet(draft.folders["interactions"] / "interactions.parquet")
        written = time.process_time() - before
        store.publish(draft, Facts())
    return time.process_time() - started - written, written


def main() -> None:
    """Publish with a store object that is new each time, as each run of the pipeline has one, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    sizes = (0, 1_000) if parser.parse_args().quick else (0, 1_000, 10_000)
    medians = {}
    print("| versions in the store | CPU s a publish, median | worst | writing the data |")
    print("| ---: | ---: | ---: | ---: |")
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            publish(Store(Path(folder)), "first")
            store = Store(Path(folder))
            fill(store, store.manifests()[0], size)
            costs = [publish(Store(Path(folder)), number) for number in range(ROUNDS)]
        medians[size] = statistics.median(cost for cost, _ in costs)
        worst, data = max(cost for cost, _ in costs), statistics.median(data for _, data in costs)
        print(f"| {size:,} | {medians[size]:.3f} | {worst:.3f} | {data:.3f} |")
    value = max(medians.values())
    print(json.dumps({"benchmark": "store_publish", "value": value, "bar": BAR_S, "holds": value < BAR_S}))


if __name__ == "__main__":
    main()
