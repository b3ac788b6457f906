"""What the catalog costs in a store of many versions: rebuilding it, and asking it.

    python -m benchmarks.store_catalog [--versions 10000] [--quick]

The store has the pipeline's artifacts in three data sets, with real manifests and lineage; their tables are hard
links to tiny files. Prints a table and one JSON line; ``--quick`` makes 2,000 versions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

from semacdr.manifest import FileRecord, Manifest, environment, file_sha256, fingerprint, write_manifest
from semacdr.store import Store, rebuild_catalog
from semacdr.tables import CONTRACT_VERSIONS

VERSIONS, QUICK_VERSIONS = 10_000, 2_000
DATASETS = ("amazon-food-kitchen", "books", "films")
REBUILD_BAR_S, QUERY_BAR_S = 10.0, 0.2
_REPEATS = 5
INPUTS: dict[str, tuple[str, ...]] = {
    "interactions": (),
    "items": (),
    "sequences": ("interactions",),
    "embeddings": ("items", "sequences"),
    "checkpoint": ("sequences", "items", "embeddings"),
}
QUERIES = {
    "artifacts": "select * from artifacts",
    "artifacts of one name": "select version, created_at, ndcg_10, inputs from artifacts where name = 'checkpoint'",
    "lineage_tree of one": "select * from lineage_tree where artifact = (select max(artifact) from lineage)",
    "interactions (current)": "select count(*) from interactions",
    "interactions_versions, one": "select * from interactions_versions where version = '2026.01.01'",
    "interactions_versions, all": "select count(*) from interactions_versions",
    "embeddings_versions, all": "select count(*) from embeddings_versions",
}


def make_tables(folder: Path) -> dict[str, Path]:
    """Write one small file per artifact."""
    ids = {"domain": ["a", "a"], "item_id": ["i", "j"]}
    vectors = pl.Series("vector", np.eye(2, 8, dtype=np.float32), dtype=pl.Array(pl.Float32, 8))
    frames = {
        "interactions": pl.DataFrame({"user_id": ["u", "v"], **ids, "timestamp_s": [1, 2], "rating": [None, 4.5]}),
        "items": pl.DataFrame({**ids, "title": ["I", "J"]}),
        "sequences": pl.DataFrame({"user_id": ["u"], "item_ids": [["i", "j"]]}),
        "embeddings": pl.DataFrame({**ids, "view": ["agnostic"] * 2}).with_columns(vectors),
        "checkpoint": pl.DataFrame({"fit": ["train"], "epoch": [1], "loss": [0.5]}),
    }
    files = {name: folder / f"{_table(name)}.parquet" for name in frames}
    for name, frame in frames.items():
        frame.write_parquet(files[name])
    return files


def make_store(root: Path, versions: int) -> None:
    """Fill a store: every data set has each artifact once a day, made from the inputs of that day."""
    (root / ".files").mkdir(parents=True)
    files = make_tables(root / ".files")
    digests = {name: file_sha256(file) for name, file in files.items()}
    made_by = environment()
    made = 0
    while made < versions:
        day, rest = divmod(made, len(DATASETS) * len(INPUTS))
        which, number = divmod(rest, len(INPUTS))
        name = list(INPUTS)[number]
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day)
        version = f"{at:%Y.%m.%d}"
        record = FileRecord(path=files[name].name, bytes=files[name].stat().st_size, sha256=digests[name])
        manifest = Manifest(
            dataset=DATASETS[which],
            name=name,
            version=version,
            contract_version=CONTRACT_VERSIONS[name],
            stage=name,
            created_at=(at + timedelta(seconds=number)).isoformat(timespec="milliseconds"),
            fingerprint=fingerprint([which, name, day]),
            config={"domains": {str(n): {"path": f"{n}.jsonl.gz", "columns": list("abcdef")} for n in range(5)}},
            sources={"files": [{"file": f"{n}.jsonl.gz", "sha256": fingerprint(n)} for n in range(5)]},
            inputs={f"{source}@{version}": fingerprint([which, source, day]) for source in INPUTS[name]},
            rows_in=3,
            rows_out={_table(name): 2},
            dropped={"no user": 1},
            metrics={"ndcg_10": 0.5, "hr_10": 0.6},
            files=(record,),
            seconds=1.0,
            **made_by,
        )
        folder = root / DATASETS[which] / name / version
        folder.mkdir(parents=True)
        os.link(files[name], folder / files[name].name)
        write_manifest(folder, manifest)
        made += 1
    store = Store(root)
    for dataset in store.datasets():
        for name in INPUTS:
            newest = store.manifests(dataset, name)[-1]
            store.move_alias(dataset, name, "current", newest.version)


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall and CPU seconds, all threads together."""
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _table(name: str) -> str:
    return "training_history" if name == "checkpoint" else name


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=int, default=VERSIONS)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    versions = QUICK_VERSIONS if arguments.quick else arguments.versions
    load = os.getloadavg()[0]
    rows = []
    with tempfile.TemporaryDirectory(prefix="semacdr-catalog-") as folder:
        root = Path(folder) / "store"
        make_store(root, versions)
        # A new Store each time: one that has read the manifests knows them.
        rows.append(("rebuild, first", *seconds(lambda: rebuild_catalog(Store(root)))))
        rebuild_s, cpu_s = min(seconds(lambda: rebuild_catalog(Store(root))) for _ in range(3))
        rows.append(("rebuild, best of 3", rebuild_s, cpu_s))
        warm = Store(root)
        rebuild_catalog(warm)
        rows.append(("rebuild, manifests known", *seconds(lambda: rebuild_catalog(warm))))
        catalog = warm.catalog
        size = catalog.stat().st_size
        timed = {}
        for label, query in QUERIES.items():
            # A client of its own each time, as a person at a shell has.
            timed[label] = min(seconds(lambda query=query: _ask(catalog, query)) for _ in range(_REPEATS))  # type: ignore[misc]
            rows.append((label, *timed[label]))
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, load {load:.1f} before,"
        f" {versions:,} versions, DuckDB {duckdb.__version__}, catalog {size / 1e6:.1f} MB"
    )
    print("| what | wall s | CPU s |\n| --- | --- | --- |")
    for label, wall, cpu in rows:
        print(f"| {label} | {wall:.3f} | {cpu:.3f} |")
    query_s = timed["artifacts"][0]
    holds = rebuild_s <= REBUILD_BAR_S and query_s <= QUERY_BAR_S
    value, bar = [round(rebuild_s, 2), round(query_s, 3)], [REBUILD_BAR_S, QUERY_BAR_S]
    print(json.dumps({"benchmark": "store_catalog", "value": value, "bar": bar, "holds": holds}))


def _ask(catalog: Path, query: str) -> None:
    with duckdb.connect(str(catalog), read_only=True) as connection:
        connection.sql(query).to_arrow_table()


if __name__ == "__main__":
    main()
