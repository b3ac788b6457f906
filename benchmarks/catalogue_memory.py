"""Whether memory grows with the catalogue beyond the tables of its items: one epoch and a full ranking, at three sizes.

    python -m benchmarks.catalogue_memory [--sizes 30000 300000 3000000]

The same 2,000 users, 40,000 events and 100 targets at every size, over a catalogue of two domains; one process for each
size. The tables: text vectors, IDs with their gradient and AdamW's two moments, and the vectors that all items are
ranked by. What is left of the peak is the rest. Without experts, which score some items at a time as the ranking does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime

import numpy as np
import polars as pl
import torch

from benchmarks.semantics_cache import peak_mib
from semacdr.model.config import load_preset
from semacdr.model.histories import Events, events_of
from semacdr.model.text_vectors import TextVectors
from semacdr.model.vocabulary import Vocabulary
from semacdr.tables import Part, View
from semacdr.training.fit import Fit, FitInputs
from semacdr.training.validation import Validation

USERS, RANKED_USERS, EVENTS_PER_USER, DIM, TEXT_DIM = 2_000, 100, 20, 32, 16
GROWTH_BAR_MIB = 256.0


def make_inputs(num_items: int) -> tuple[FitInputs, Events]:
    """Return events over a catalogue, most of which nobody has touched."""
    half = num_items // 2
    ids = pl.int_range(half, eager=True).cast(pl.String).str.zfill(8)
    items = pl.concat([pl.DataFrame({"item_id": ids}).select(domain=pl.lit(name), item_id="item_id") for name in "ab"])
    vocabulary = Vocabulary.of_items(items)
    rng = np.random.default_rng(0)
    touched = rng.integers(0, half, size=10_000)
    shape = (USERS, EVENTS_PER_USER)
    names = ids.to_numpy()[rng.choice(touched, size=shape)]
    parts = [[Part.TRAIN.value] * (EVENTS_PER_USER - 1) + [Part.VALIDATION.value]] * RANKED_USERS
    parts += [[Part.TRAIN.value] * EVENTS_PER_USER] * (USERS - RANKED_USERS)
    sequences = pl.DataFrame(
        {
            "user_id": [f"u{user:05}" for user in range(USERS)],
            "domains": np.where(rng.random(shape) < 0.5, "a", "b").tolist(),  # noqa: PLR2004 (half and half)
            "item_ids": names.tolist(),
            "timestamps_s": [[86_400 * place for place in range(EVENTS_PER_USER)]] * USERS,
            "parts": parts,
            "is_target": [[part != Part.TRAIN.value for part in one] for one in parts],
        }
    )
    events = events_of(sequences, vocabulary)
    rows = num_items + 1
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(rows, TEXT_DIM, generator=generator)
    text = {view: TextVectors(vectors, torch.arange(rows) > 0, vectors) for view in View}
    config = load_preset("semacdr", {"dim": DIM, "num_blocks": 1, "experts": []})
    inputs = FitInputs(
        config=config,
        vocabulary=vocabulary,
        text=text,
        titles=items.with_columns(title=pl.lit(None, pl.String)),
        events=events.up_to(Part.TRAIN),
        max_length=EVENTS_PER_USER,
    )
    return inputs, events


def tables_mib(num_items: int) -> float:
    """Return what the tables of the items weigh."""
    text = TEXT_DIM * (1 + 2 + 2)  # as read; centred for both views, and their copies while they are rounded
    ids = DIM * 4
    ranked = DIM + 3 + DIM  # fused vectors and their weights; the vectors once more, a column each
    return num_items * 4 * (text + ids + ranked) / 2**20


def measure(num_items: int) -> dict[str, float]:
    """Train and rank; return the peak and what it cost."""
    torch.set_num_threads(1)
    inputs, events = make_inputs(num_items)
    ready = peak_mib()
    started = time.process_time()
    fit = Fit(inputs, seed=0)
    fit.epoch()
    trained, trained_s = peak_mib(), time.process_time() - started
    started = time.process_time()
    Validation(inputs, events, seed=0).score(fit.model)
    return {
        "items": num_items,
        "ready_mib": ready,
        "trained_mib": trained,
        "ranked_mib": peak_mib(),
        "epoch_cpu_s": round(trained_s, 1),
        "ranking_cpu_s": round(time.process_time() - started, 1),
        "tables_mib": round(tables_mib(num_items)),
    }


def main() -> None:
    """Measure each size in a process of its own, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[30_000, 300_000, 3_000_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    rows = []
    for size in arguments.sizes:
        command = [sys.executable, "-m", "benchmarks.catalogue_memory", "--one", str(size)]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    print("| items | before | after training | after ranking | tables | epoch CPU s | ranking CPU s |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        print("| " + " | ".join(f"{value:,}" for value in (
            row["items"], row["ready_mib"], row["trained_mib"], row["ranked_mib"], row["tables_mib"],
            row["epoch_cpu_s"], row["ranking_cpu_s"],
        )) + " |")  # fmt: skip
    rest = [row["ranked_mib"] - row["tables_mib"] for row in rows]
    growth = rest[-1] - rest[0]
    claim = {"benchmark": "catalogue_memory", "rest_mib": rest, "value": growth, "bar": GROWTH_BAR_MIB}
    print(json.dumps({**claim, "holds": growth <= GROWTH_BAR_MIB}))


if __name__ == "__main__":
    main()
