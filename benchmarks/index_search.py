"""The index of a million vectors: recall, speed against exact search, build time and memory.

    python -m benchmarks.index_search [--vectors 1000000] [--quick]

Synthetic vectors of unit length around some thousand centres. The index stage builds in a process of its own; then its
searches are timed against FAISS's exact search over the same vectors, one thread each, batches of the same queries.
``--quick`` takes 200,000 vectors, which prove nothing of a million.
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
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import faiss
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from semacdr.dataset import Index
from semacdr.index import build, load_index
from semacdr.progress import Progress
from semacdr.tables import View

VECTORS, WIDTH, CENTRES, QUERIES = 1_000_000, 384, 5_000, 512
RECALL_BAR, SPEED_BAR, BUILD_BAR_S, MEMORY_BAR_MIB = 0.98, 10.0, 300.0, 2048
_BATCH = 50_000


def fill(folder: Path, count: int) -> None:
    """Write an ``embeddings`` artifact of one domain and view."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CENTRES, WIDTH)).astype(np.float32)
    names = [("domain", pa.string()), ("item_id", pa.string()), ("view", pa.string())]
    schema = pa.schema([*names, ("vector", pa.list_(pa.float32(), WIDTH))])
    with pq.ParquetWriter(folder / "embeddings.parquet", schema) as writer:
        for start in range(0, count, _BATCH):
            rows = min(_BATCH, count - start)
            vectors = centres[rng.integers(CENTRES, size=rows)] + rng.normal(size=(rows, WIDTH)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            columns = [
                pa.array(["d"] * rows),
                pa.array([f"i{number:09}" for number in range(start, start + rows)]),
                pa.array(["specific"] * rows),
                pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), WIDTH),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def build_alone(folder: Path) -> None:
    """Build, and print what it took."""
    started = time.process_time()
    facts = build(folder, folder / "index", Index(), Progress())
    built = {"cpu_s": time.process_time() - started, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
    # Nothing is mapped but libraries, so that nearly all of the peak is anonymous.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    built["file_mib"] = int(status["RssFile"].split()[0]) // 1024
    print(json.dumps(facts.details["indexes"]["d/specific"] | built))


def seconds_a_query(search: Callable[[NDArray[np.float32], int], object], queries_QD: NDArray[np.float32]) -> float:
    """Return the CPU seconds of one query, of the best of three batches."""
    times = []
    for _ in range(3):
        started = time.process_time()
        search(queries_QD, 10)
        times.append((time.process_time() - started) / len(queries_QD))
    return min(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=VECTORS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.build:
        build_alone(arguments.build)
        return
    count = 200_000 if arguments.quick else arguments.vectors
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="semacdr-index-") as name:
        folder = Path(name)
        (folder / "index").mkdir()
        fill(folder, count)
        command = [sys.executable, "-m", "benchmarks.index_search", "--build", str(folder)]
        built = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        faiss.omp_set_num_threads(1)
        vectors = pl.read_parquet(folder / "embeddings.parquet", columns=["vector"])["vector"].to_numpy()
        queries_QD = np.ascontiguousarray(vectors[:: count // QUERIES][:QUERIES])
        exact = faiss.IndexFlatIP(WIDTH)
        exact.add(vectors)
        exact_s = seconds_a_query(exact.search, queries_QD)
        ours_s = seconds_a_query(load_index(folder / "index", "d", View.SPECIFIC).search, queries_QD)
    place = f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, load {load:.1f} before"
    print(f"{place}, {count:,} x {WIDTH}, {built['kind']}, {built['probed']} lists of {built['lists']}")
    print("| | |\n| --- | --- |")
    print(f"| recall@10, recall@100 | {built['recall_10']:.4f}, {built['recall_100']:.4f} |")
    print(f"| a query, exact and ours | {exact_s * 1e3:.2f} ms, {ours_s * 1e3:.2f} ms of CPU |")
    print(
        f"| build | {built['cpu_s']:.0f} s of CPU, {built['mib']:,} MiB at most, {built['file_mib']:,} of them files |"
    )
    value = [built["recall_10"], round(exact_s / ours_s, 1), round(built["cpu_s"], 1), built["mib"]]
    fast_enough = value[0] >= RECALL_BAR and value[1] >= SPEED_BAR
    holds = count >= VECTORS and fast_enough and value[2] <= BUILD_BAR_S and value[3] <= MEMORY_BAR_MIB
    bar = [RECALL_BAR, SPEED_BAR, BUILD_BAR_S, MEMORY_BAR_MIB]
    print(json.dumps({"benchmark": "index_search", "value": value, "bar": bar, "holds": holds}))


if __name__ == "__main__":
    main()
