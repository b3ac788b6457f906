"""Does what validation says hold in the weeks after it? Both lie before the test cut here, and nothing later is read.

    python -m benchmarks.backtest [--store STORE] [--dataset DATASET] [--back 0 1] [--seed 0]

The cuts are moved into the past: the last part ends at the real test cut, or as many events before it as ``--back``
times the part holds. ``semacdr`` without texts and its target-only twin are trained as for an evaluation under gts:
weights of ``train``, a gate fitted on the validation weeks, weights of ``refit``. NDCG@10 of each domain, and the mean:
on the validation weeks, each half of the users by the other's gate, and on the weeks after them.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import torch

from benchmarks.experts import WITHOUT_TEXTS
from benchmarks.fit_inputs import read_fit_inputs
from semacdr.comparison.sources import alone
from semacdr.model.checkpoint import encode_all_items, user_states
from semacdr.model.config import load_preset
from semacdr.model.experts import Memory
from semacdr.model.histories import Events, events_of, queries_of_targets
from semacdr.model.ranking import Scorer, macro, ndcg, rank_targets
from semacdr.model.scorer import FinalScorer, Scoring
from semacdr.progress import Progress
from semacdr.store import Store
from semacdr.tables import Part, table_files
from semacdr.training.fit import Fit, FitInputs
from semacdr.training.gate import cross_fitted_gate
from semacdr.training.loop import Plan, fit_to_end
from semacdr.training.sight import rolling
from semacdr.training.validation import CUT, Validation

LISTS = ("domains", "item_ids", "timestamps_s", "parts", "is_target")


def moved(sequences: pl.DataFrame, back: int) -> pl.DataFrame:
    """Return the ``sequences`` table as of a day at or before the test cut, its last two parts of equal size."""
    flat = sequences.explode(*LISTS).filter(pl.col("parts") != Part.TEST)
    size = int((flat["parts"] == Part.VALIDATION).sum())
    times_s = flat["timestamps_s"].sort(descending=True)
    cuts_s = [times_s[(back + parts) * size - 1] for parts in (1, 2)]
    known = flat if back == 0 else flat.filter(pl.col("timestamps_s") < times_s[back * size - 1])
    time_s = pl.col("timestamps_s")
    part = pl.when(time_s >= cuts_s[0]).then(pl.lit(Part.TEST)).when(time_s >= cuts_s[1]).then(pl.lit(Part.VALIDATION))
    parted = known.with_columns(parts=part.otherwise(pl.lit(Part.TRAIN)))
    is_first = pl.int_range(pl.len()).over("user_id", "domains", "parts") == 0
    return (
        parted.with_columns(is_target=is_first & (pl.col("parts") != Part.TRAIN))
        .group_by("user_id", maintain_order=True)
        .agg(LISTS)
    )


def show(inputs: FitInputs, events: Events, name: str, seed: int) -> dict[str, float]:
    """Train, print a row, and return its means."""
    inputs = replace(inputs, events=events.up_to(Part.TRAIN))
    fit, validation = Fit(inputs, seed), Validation(inputs, events, seed)
    plan = Plan(name="train", max_epochs=inputs.config.max_epochs, patience=inputs.config.patience)
    found = fit_to_end(fit, plan, lambda: validation.score(fit.model), Progress())
    memory = Memory.of(inputs.events, inputs.vocabulary, inputs.titles, inputs.text)
    gate = cross_fitted_gate(validation, fit.model, memory, seed)
    known = events.up_to(Part.VALIDATION)
    refit = Fit(replace(inputs, events=known), seed)
    fit_to_end(refit, Plan(name="refit", max_epochs=found.best_epoch), None, Progress())
    queries, vocabulary = queries_of_targets(events, Part.TEST), inputs.vocabulary
    with torch.inference_mode():
        items = encode_all_items(refit.model)
        states = user_states(refit.model, items, events, queries, max_length=inputs.max_length)
    scoring = Scoring.of(inputs.config.experts, memory.with_events(known), gate.gate)
    scorer = FinalScorer(states.vector_QD, items.vector_RD, events, queries, vocabulary, scoring)

    def later(asked: Scorer) -> tuple[str, float]:
        gain = ndcg(rank_targets(asked, events, queries, vocabulary, seed=seed).rank, CUT)
        mean = macro(gain, queries.domain)
        by_domain = [gain[queries.domain == domain].mean() for domain in range(len(vocabulary.domains))]
        return " ".join(f"{value:.4f}" for value in (*by_domain, mean)), mean

    (at_fit, refit_mean), (up_to_date, rolling_mean) = later(scorer), later(rolling(scorer, events))
    print(f"| {name} | {gate.score.ndcg_10:.4f} | {at_fit} | {up_to_date} |", flush=True)
    return {"validation": gate.score.ndcg_10, "refit": refit_mean, "rolling": rolling_mean}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("store"))
    parser.add_argument("--dataset", default="amazon-food-kitchen")
    parser.add_argument("--back", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    inputs, _ = read_fit_inputs(arguments.store, arguments.dataset)
    inputs = replace(inputs, config=load_preset("semacdr", WITHOUT_TEXTS))
    files = table_files(Store(arguments.store).get(arguments.dataset, "sequences").path, "sequences")
    sequences = pl.concat(pl.read_parquet(file, hive_partitioning=False) for file in files)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, seed {arguments.seed}")
    print(f"| {' '.join(inputs.vocabulary.domains)}, mean | validation | the weeks after, refit | rolling |")
    print("| --- | --- | --- | --- |")
    gains = {}
    for back in arguments.back:
        table = moved(sequences, back)
        model, twin = (
            show(inputs, events_of(one, inputs.vocabulary), f"{back} back, {name}", arguments.seed)
            for one, name in ((table, "semacdr"), (alone(table), "alone"))
        )
        gains[back] = {name: round(model[name] - twin[name], 4) for name in model}
    print(json.dumps({"benchmark": "backtest", "gain_over_alone": gains}))


if __name__ == "__main__":
    main()
