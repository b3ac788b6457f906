"""Serving: encoding, one user's list, the batch against RecTools, and the batch's memory.

    python -m benchmarks.retrieval [--store STORE] [--dataset DATASET] [--rectools PYTHON] [--users 1000000] [--quick]

All on one thread, one after the other; the index has a script of its own (``index_search``). The store must hold a
finished run. RecTools lives in an environment of its own:
``pip install "rectools[torch]==0.19.0" "pandas<3" "pyarrow<20"``; without one its row is left out and its bar is not
judged. Its model and ours (``sasrec-mixed``) have the same sizes there and no experts; ours makes a list for each
domain, or one over all as RecTools does. ``--quick``: fewer texts, and 100,000 users, who prove nothing of a million.
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
from semacdr.model.checkpoint import LoadedModel
from semacdr.model.config import load_preset
from semacdr.model.growth import TRAINED_ON
from semacdr.model.histories import Events, events_of, queries_at
from semacdr.model.present_scorer import PresentScorer
from semacdr.model.vocabulary import Vocabulary
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
from semacdr.training.fit import Fit, FitInputs

ENCODING_BAR, ONE_USER_BAR_MS, RECTOOLS_BAR, MEMORY_BAR = 1.0, 10.0, 10.0, 1.25
TOP_K, CALLS, BATCH_USERS, PRODUCT_USERS, MANY = 10, 200, 2_000, 128, 1_000_000

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
    recommender = Recommender(serving, Recommendations(top_k=TOP_K), last_s(sequences) + 1)
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


def users_per_s(name: str, lister: Lister, sequences: pl.DataFrame) -> float:
    """Users whose lists of all domains are made in a CPU second, after the last event; the better of two rounds."""
    asked, now_s = sequences.head(BATCH_USERS), last_s(sequences) + 1
    model = lister.model
    events = events_of(asked, model.vocabulary)
    user, domain = np.divmod(np.arange(len(model.vocabulary.domains) * asked.height), len(model.vocabulary.domains))
    queries = queries_at(events, user, domain, np.full_like(user, now_s))
    rank_users(lister, asked.head(50), now_s, TOP_K)
    seconds = {"all": np.inf, "transformer": np.inf, "product": np.inf}
    for _ in range(2):
        moments = [time.process_time()]
        rank_users(lister, asked, now_s, TOP_K)
        moments.append(time.process_time())
        vector_QD = model.user_states(events, queries).vector_QD
        moments.append(time.process_time())
        for part_QD in vector_QD[: asked.height].split(PRODUCT_USERS):
            torch.mm(part_QD, model.items.vector_RD.T)
        moments.append(time.process_time())
        seconds = {part: min(seconds[part], taken) for part, taken in zip(seconds, np.diff(moments), strict=True)}
    rate = float(asked.height / seconds["all"])
    of_user = {part: f"{1e6 * taken / asked.height:.0f}" for part, taken in seconds.items()}
    print(
        f"| batch, {name} | {rate:.0f} users/CPU s: {of_user['all']} us each, of them {of_user['transformer']} the "
        f"transformer; their vectors times all items' alone {of_user['product']} |"
    )
    return rate


def last_s(sequences: pl.DataFrame) -> int:
    """The time of the last event."""
    return int(sequences["timestamps_s"].list.max().max())  # type: ignore[arg-type]


def batch(serving: Serving, sequences: pl.DataFrame, store: Path, dataset: str, rectools: Path | None) -> None:
    """Users a CPU second: the published model, and one of RecTools' sizes beside RecTools."""
    users_per_s(serving.lister.model.config.preset, serving.lister, sequences)
    inputs, events = read_fit_inputs(store, dataset)
    rates = {"lists_of_domains": users_per_s("sasrec-mixed", untrained(inputs, inputs.vocabulary), sequences)}
    vocabulary, sequences = in_one_domain(inputs.vocabulary, sequences)
    rates["one_list"] = users_per_s("sasrec-mixed, one list over all", untrained(inputs, vocabulary), sequences)
    if rectools:
        theirs = rectools_users_per_s(rectools, events)
        print(f"| batch, RecTools, one list over all | {theirs:.0f} users/CPU s |")
        for name, ours in rates.items():
            claim(f"batch_against_rectools_{name}", ours / theirs, RECTOOLS_BAR, holds=ours / theirs >= RECTOOLS_BAR)


def in_one_domain(vocabulary: Vocabulary, sequences: pl.DataFrame) -> tuple[Vocabulary, pl.DataFrame]:
    """The same items and histories, as if all were of one domain."""
    item_id = pl.concat_str("domain", "item_id", separator=":")
    items = vocabulary.table.select(item_id=item_id, domain=pl.lit("all"))
    lists = [name for name in sequences.columns if name != "user_id"]
    events = sequences.explode(lists).rename({"domains": "domain", "item_ids": "item_id"})
    events = events.with_columns(domains=pl.lit("all"), item_ids=item_id)
    return Vocabulary.of_items(items), events.group_by("user_id", maintain_order=True).agg(lists)


def untrained(inputs: FitInputs, vocabulary: Vocabulary) -> Lister:
    """A fresh model of RecTools' sizes, over the same items in the domains of a vocabulary."""
    config = load_preset("sasrec-mixed", SAME)
    events = replace(inputs.events, domain=vocabulary.domain_of_item[inputs.events.item])
    model = Fit(replace(inputs, config=config, vocabulary=vocabulary, events=events), seed=0).model.eval()
    loaded = LoadedModel(model, config, vocabulary, MAX_LENGTH, {}, None)
    return Lister(PresentScorer(loaded, None), np.ones(vocabulary.num_items + 1, bool))


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
