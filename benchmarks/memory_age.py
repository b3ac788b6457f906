"""What an old memory costs: one checkpoint, served with memories of several ages, on validation targets.

    python -m benchmarks.memory_age [--store STORE] [--dataset DATASET]

A checkpoint is trained on the events before a day that lies ``CHECKPOINT_AGE`` days before the first validation target;
its gate is fitted on targets before that day, too. Then every day of the validation part is served as a night would
serve it: the targets of the day are ranked with a memory of the events before it (0), or before so many days earlier.
Histories are as new in every row: they are read at serving. ``checkpoint`` is the memory that the checkpoint was saved
with. Protocol gts, full ranking, macro over domains; events of the test part are cut off first. Rows differ by more
than chance where the paired bootstrap over users says so.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import torch

from semacdr import sequences
from semacdr.dataset import Embeddings, Split, Training
from semacdr.embeddings.embed import rewhiten
from semacdr.model.checkpoint import LoadedModel, load_checkpoint
from semacdr.model.gate import AT_FIT, UP_TO_DATE
from semacdr.model.histories import SECONDS_PER_DAY, Events, IntArray, Queries, queries_of_targets, read_events
from semacdr.model.ranking import hit, macro, ndcg, rank_targets
from semacdr.model.scorer import Scoring
from semacdr.progress import Progress
from semacdr.settings import DuckDbSettings
from semacdr.store import Store
from semacdr.tables import Part, table_files
from semacdr.training import Run, train

AGES_DAYS = (0, 7, 30, 60, 90)
CHECKPOINT_AGE_DAYS = 90
SEED, RESAMPLES, CUT = 0, 2_000, 10


def old_checkpoint(store: Path, dataset: str, before_s: int, folder: Path) -> LoadedModel:
    """Train on the events before a time."""
    opened = Store(store)
    inputs = {name: opened.get(dataset, name).path for name in ("items", "embeddings")}
    log = opened.get(dataset, "interactions").scan().filter(pl.col("timestamp_s") < before_s).collect()
    for name in ("interactions", "sequences", "embeddings", "checkpoint"):
        (folder / name).mkdir()
    log.write_parquet(folder / "interactions" / "interactions.parquet")
    # The whole log but its last thousandth is fitted at last.
    split = Split(validation_quantile=0.9, test_quantile=0.999)
    sequences.build(split, folder / "interactions", folder / "sequences", DuckDbSettings(threads=1))
    rewhiten(Embeddings(), inputs["embeddings"], folder / "sequences", folder / "embeddings")
    inputs |= {name: folder / name for name in ("sequences", "embeddings")}
    train(Training(), split, inputs, folder / "checkpoint", Run(1), Progress())
    return load_checkpoint(folder / "checkpoint")


def nights(queries: Queries) -> Iterator[tuple[int, IntArray]]:
    """Yield each day's first second, and which targets lie in it."""
    day = queries.time_s // SECONDS_PER_DAY
    for one in np.unique(day):
        yield int(one) * SECONDS_PER_DAY, np.flatnonzero(day == one)


def ranks(model: LoadedModel, events: Events, queries: Queries, age_days: int | None, *, support: str) -> IntArray:
    """Return the rank of each target, with memories of an age; None: the checkpoint's."""
    assert model.scoring is not None
    found = np.zeros(len(queries), np.int64)
    boost_SN = model.scoring.gate.cold_boost_SN.clone()
    if age_days is not None:
        model.scoring.gate.cold_boost_SN[AT_FIT] = boost_SN[UP_TO_DATE]
    for start_s, chosen in nights(queries):
        scoring = model.scoring
        if age_days is not None:
            known = events.kept(events.time_s < start_s - age_days * SECONDS_PER_DAY)
            scoring = Scoring.of(scoring.experts, scoring.memory.with_events(known), scoring.gate)
            if support == "fit":
                scoring = replace(scoring, bucket=model.scoring.bucket)
        asked = Queries(**{name: value[chosen] for name, value in vars(queries).items()})
        scorer = replace(model, scoring=scoring).scorer(events, asked)
        found[chosen] = rank_targets(scorer, events, asked, model.vocabulary, seed=SEED).rank
    model.scoring.gate.cold_boost_SN.copy_(boost_SN)
    return found


def interval(new: IntArray, old: IntArray, queries: Queries) -> tuple[float, float, float]:
    """Return the gain in macro NDCG@10, and its 95 % interval by the paired bootstrap over users."""
    gain = ndcg(new, CUT) - ndcg(old, CUT)
    rng, users = np.random.default_rng(SEED), int(queries.user.max()) + 1
    drawn = []
    for _ in range(RESAMPLES):
        weight = np.bincount(rng.integers(users, size=users), minlength=users)[queries.user]
        domains = [queries.domain == domain for domain in np.unique(queries.domain)]
        drawn.append(np.mean([np.average(gain[one], weights=weight[one]) for one in domains]))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return macro(gain, queries.domain), float(low), float(high)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("store"))
    parser.add_argument("--dataset", default="amazon-food-kitchen")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = Store(arguments.store).get(arguments.dataset, "sequences").path
    with tempfile.TemporaryDirectory(prefix="semacdr-memory-") as name:
        parts = pl.read_parquet(table_files(table, "sequences"), columns=["timestamps_s", "parts"])
        validation = parts.explode("timestamps_s", "parts").filter(pl.col("parts") == Part.VALIDATION)
        first_s = int(validation["timestamps_s"].min())  # type: ignore[arg-type]
        before_s = first_s - CHECKPOINT_AGE_DAYS * SECONDS_PER_DAY
        model = old_checkpoint(arguments.store, arguments.dataset, before_s, Path(name))
    events = read_events(table, model.vocabulary).up_to(Part.VALIDATION)
    queries = queries_of_targets(events, Part.VALIDATION)
    place = f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, seed {SEED}"
    print(f"{place}; {len(queries):,} targets of {len(list(nights(queries)))} days")
    print("| memory, days old | HR@10 / NDCG@10 | a fresh one's gain in NDCG@10 |\n| --- | --- | --- |")
    for support in ("memory", "fit"):
        fresh = ranks(model, events, queries, 0, support=support)
        gains = []
        for age in (*AGES_DAYS, None):
            found = fresh if age == 0 else ranks(model, events, queries, age, support=support)
            gain, low, high = interval(fresh, found, queries)
            gains.append(low)
            values = [macro(of(found, CUT), queries.domain) for of in (hit, ndcg)]
            shown = "checkpoint's" if age is None else age
            print(
                f"| {shown} ({support}) | {values[0]:.4f} / {values[1]:.4f} | {gain:+.4f} [{low:+.4f}, {high:+.4f}] |",
                flush=True,
            )
    print(
        json.dumps(
            {"benchmark": "memory_age", "value": round(min(gains[2:]), 4), "bar": 0, "holds": min(gains[2:]) > 0}
        )
    )


if __name__ == "__main__":
    main()
