"""Serving: encoding, one user's list, the batch against RecTools, and the batch's memory.

    python -m benchmarks.retrieval [--store STORE] [--dataset DATASET] [--rectools PYTHON] [--users 1000000] [--quick]

All on one thread, one after the other; the index has a script of its own (``index_search``). The store must hold a
finished run. RecTools lives in an environment of its own:
``pip install "rectools[torch]==0.19.0" "pandas<3" "pyarrow<20"``; without one its row is left out and its bar is not
judged. Its model and ours have the same sizes there and no experts; ours makes a list for each domain, RecTools one
over all. ``--quick``: fewer texts, and 100,000 users, who prove nothing of a million.
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
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import torch
from sentence_transformers import SentenceTransformer

from benchmarks.fit_inputs import MAX_LENGTH, read_fit_inputs
from benchmarks.rectools import run_rectools
from benchmarks.training_speed import BATCH, BLOCKS, DIM, HEADS, NEGATIVES, SAME
from semacdr.database import write_parquet
from semacdr.dataset import Embeddings, Recommendations, Split, Training
from semacdr.embeddings.embed import rewhiten
from semacdr.embeddings.encoders import BUNDLED, LocalEncoder, locate
from semacdr.model.checkpoint import LoadedModel, encode_all_items
from semacdr.model.config import load_preset
from semacdr.model.growth import TRAINED_ON
from semacdr.model.histories import Events
from semacdr.model.present_scorer import PresentScorer
from semacdr.progress import Progress
from semacdr.recommendations import Recommender, Run, recommend_all
from semacdr.recommendations.lists import Lister
from semacdr.recommendations.publish import rank_users
from semacdr.recommendations.serving import Serving, open_serving
from semacdr.sequences.histories import USERS_PER_GROUP
from semacdr.store import Store
from semacdr.store.lineage import made_from
from semacdr.testing.toy import Toy, write_toy
from semacdr.training import Run as TrainingRun
from semacdr.training import train
from semacdr.training.fit import Fit

ENCODING_BAR, ONE_USER_BAR_MS, RECTOOLS_BAR, MEMORY_BAR = 1.0, 10.0, 10.0, 1.25
TOP_K, CALLS, BATCH_USERS, MANY = 10, 200, 2_000, 1_000_000

RECTOOLS = """
import json, sys, time
import pandas as pd, torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
torch.set_num_threads(1)
frame = pd.read_parquet(sys.argv[1])
length, batch, dim, blocks, heads, negatives, k, users = map(int, sys.argv[2:10])
frame[Columns.Weight] = 1.0
dataset = Dataset.construct(frame)
model = SASRecModel(session_max_len=length, batch_size=batch, n_factors=dim, n_blocks=blocks, n_heads=heads,
                    n_negatives=negatives, loss="sampled_softmax", epochs=1, verbose=0, deterministic=False)
model.fit(dataset)
asked = frame[Columns.User].unique()[:users]
started = time.process_time()
model.recommend(users=asked, dataset=dataset, k=k, filter_viewed=True)
print(json.dumps({"users_per_s": len(asked) / (time.process_time() - started)}))
"""


def claim(name: str, value: float, bar: float, *, holds: bool) -> None:
    """Print a line of JSON."""
    print(json.dumps({"benchmark": name, "value": round(value, 3), "bar": bar, "holds": holds}), flush=True)


def open_store(store: Path, dataset: str) -> tuple[Serving, pl.DataFrame, pl.Series]:
    """Return what serves, the users' sequences, and the texts."""
    opened = Store(store)
    checkpoint = opened.get(dataset, "checkpoint")
    inputs = {name: opened.get(dataset, name).path for name in ("checkpoint", "items", "embeddings", "sequences")}
    inputs |= {f"trained_{name}": made_from(opened, checkpoint, name).path for name in TRAINED_ON}
    texts = opened.get(dataset, "semantics").scan().select("text").unique(maintain_order=True).collect()["text"]
    serving = open_serving(Recommendations(top_k=TOP_K), inputs)
    return serving, opened.get(dataset, "sequences").scan().collect(), texts


def encoding(texts: pl.Series, count: int) -> None:
    """Texts a CPU second, ours and sentence-transformers' own, in turns; the best of each."""
    asked = texts.sample(count, seed=0).to_list()
    ours = LocalEncoder(Embeddings(), batch_size=64)
    theirs = SentenceTransformer(locate(BUNDLED))
    theirs.max_seq_length = 256
    best = {"ours": 0.0, "sentence-transformers": 0.0}
    for _ in range(3):
        for name, before in best.items():
            started = time.process_time()
            if name == "ours":
                ours.encode(asked)
            else:
                theirs.encode(asked, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
            best[name] = max(before, count / (time.process_time() - started))
    for name, rate in best.items():
        print(f"| encode {count} texts, {name} | {rate:.0f} texts/CPU s |")
    ratio = best["ours"] / best["sentence-transformers"]
    claim("encoding_against_sentence_transformers", ratio, ENCODING_BAR, holds=ratio >= ENCODING_BAR)


def one_user(serving: Serving, sequences: pl.DataFrame) -> None:
    """CPU milliseconds of a list for one history, in the largest domain."""
    now_s = int(sequences["timestamps_s"].list.max().max()) + 1  # type: ignore[arg-type]
    recommender = Recommender(serving, Recommendations(top_k=TOP_K), now_s)
    vocabulary = serving.lister.model.vocabulary
    domain = max(zip(vocabulary.domains, vocabulary.bounds, strict=True), key=lambda pair: pair[1][1] - pair[1][0])
    columns = ("domains", "item_ids", "timestamps_s")
    times = []
    for row in sequences.select(columns).head(CALLS + 1).rows():
        history = list(zip(*row, strict=True))
        started = time.process_time()
        recommender.recommend([history], domain[0])
        times.append(1e3 * (time.process_time() - started))
    value = float(np.median(times[1:]))
    print(
        f"| one user, {domain[1][1] - domain[1][0]:,} items of {vocabulary.num_items:,} | p50 {value:.1f} ms of CPU |"
    )
    claim("recommend_one_user_p50_ms", value, ONE_USER_BAR_MS, holds=value <= ONE_USER_BAR_MS)


def users_per_s(lister: Lister, sequences: pl.DataFrame) -> float:
    """Users whose lists of all domains are made in a CPU second."""
    asked = sequences.head(BATCH_USERS)
    rank_users(lister, asked.head(50), 2_000_000_000, TOP_K)
    started = time.process_time()
    rank_users(lister, asked, 2_000_000_000, TOP_K)
    return asked.height / (time.process_time() - started)


def batch(serving: Serving, sequences: pl.DataFrame, store: Path, dataset: str, rectools: Path | None) -> None:
    """Users a CPU second: the published model, and one of RecTools' sizes beside RecTools."""
    print(f"| batch, {serving.lister.model.config.preset} | {users_per_s(serving.lister, sequences):.0f} users/CPU s |")
    inputs, events = read_fit_inputs(store, dataset)
    config = load_preset("sasrec-mixed", SAME)
    model = Fit(replace(inputs, config=config), seed=0).model.eval()
    loaded = LoadedModel(model, config, inputs.vocabulary, encode_all_items(model), MAX_LENGTH, {}, None)
    ours = users_per_s(Lister(PresentScorer(loaded, None), np.ones(inputs.vocabulary.num_items + 1, bool)), sequences)
    print(f"| batch, sasrec-mixed (RecTools' sizes) | {ours:.0f} users/CPU s |")
    if rectools:
        theirs = rectools_users_per_s(rectools, events)
        print(f"| batch, RecTools | {theirs:.0f} users/CPU s |")
        claim("batch_against_rectools", ours / theirs, RECTOOLS_BAR, holds=ours / theirs >= RECTOOLS_BAR)


def rectools_users_per_s(python: Path, events: Events) -> float:
    """The same of RecTools."""
    sizes = (MAX_LENGTH, BATCH, DIM, BLOCKS, HEADS, NEGATIVES, TOP_K, BATCH_USERS)
    return float(run_rectools(python, RECTOOLS, events, sizes)["users_per_s"])


def copies(few: pl.DataFrame, count: int) -> Iterator[pa.Table]:
    """Some users' histories under ever new names."""
    for start in range(0, count, few.height):
        ids = pl.Series("user_id", [f"u{number:09}" for number in range(start, start + few.height)])
        yield few.with_columns(ids).head(count - start).to_arrow()


def memory(users: int) -> None:
    """The most memory of the batch stage with 10,000 users and with many more, each in a process of its own."""
    peaks = {}
    with tempfile.TemporaryDirectory(prefix="semacdr-batch-") as name:
        folder = Path(name)
        made = write_toy(folder, Toy(num_users=200, items_per_domain=400, events_per_user=8))
        rewhiten(Embeddings(whitening_dim=8), made["embeddings"], made["sequences"], made["embeddings"])
        overrides = {"dim": 16, "num_blocks": 1, "max_epochs": 1}
        train(Training(overrides=overrides), Split(), made, folder / "checkpoint", TrainingRun(1), Progress())
        few = pl.read_parquet(made["sequences"] / "sequences.parquet")
        schema = few.to_arrow().schema
        for count in (10_000, users):
            (folder / f"{count}").mkdir()
            write_parquet(folder / f"{count}" / "sequences.parquet", schema, copies(few, count), USERS_PER_GROUP)
            command = [sys.executable, "-m", "benchmarks.retrieval", "--batch", str(folder), str(count)]
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            peaks[count] = json.loads(answer.splitlines()[-1])
            print(f"| batch of {count:,} users | {peaks[count]['mib']:,} MiB, {peaks[count]['cpu_s']:.0f} CPU s |")
    ratio = peaks[users]["mib"] / peaks[10_000]["mib"]
    claim(f"batch_memory_10000_to_{users}_users", ratio, MEMORY_BAR, holds=users >= MANY and ratio <= MEMORY_BAR)


def batch_alone(folder: Path, count: str) -> None:
    """Run the stage, and print what it took."""
    inputs = {name: folder / name for name in ("checkpoint", "items", "embeddings", "sequences")}
    inputs |= {f"trained_{name}": folder / name for name in TRAINED_ON} | {"sequences": folder / count}
    outputs = {name: folder / f"{count}-{name}" for name in ("recommendations", "user_vectors", "item_vectors")}
    for output in outputs.values():
        output.mkdir()
    run = Run(folder / f"{count}-shards")
    recommend_all(Recommendations(top_k=TOP_K), inputs, outputs, run, Progress())
    peak: dict[str, Any] = {"mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
    print(json.dumps(peak | {"cpu_s": time.process_time()}))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("store"))
    parser.add_argument("--dataset", default="amazon-food-kitchen")
    parser.add_argument("--rectools", type=Path, help="Python of an environment with rectools[torch].")
    parser.add_argument("--users", type=int, default=MANY)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--batch", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.batch:
        batch_alone(Path(arguments.batch[0]), arguments.batch[1])
        return
    place = f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before, one thread"
    print(f"{place}\n| | |\n| --- | --- |", flush=True)
    serving, sequences, texts = open_store(arguments.store, arguments.dataset)
    one_user(serving, sequences)
    batch(serving, sequences, arguments.store, arguments.dataset, arguments.rectools)
    encoding(texts, 256 if arguments.quick else 1_024)
    memory(100_000 if arguments.quick else arguments.users)


if __name__ == "__main__":
    main()
