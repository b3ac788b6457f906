"""What each score expert is worth on validation, what the gate makes of them, and how far the texts tell the future.

    python -m benchmarks.experts [--store STORE] [--dataset DATASET] [--train]

Protocol gts, fit ``train``, full ranking, macro over domains; test targets are not read. Each column of scores ranks by
itself; then the gate, fitted on one half of the users and measured on the other, over all experts and over those that
read no written text. ``--train`` trains ``semacdr`` with all and without texts, and shows it alone and gated.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from benchmarks.fit_inputs import read_fit_inputs
from semacdr.comparison.rows import SWITCHES
from semacdr.model.config import load_preset
from semacdr.model.experts import Memory, column_names
from semacdr.model.gate import ScoreGate
from semacdr.model.histories import Events, IntArray
from semacdr.model.ranking import hit, macro, rank_targets
from semacdr.model.scorer import Scoring
from semacdr.model.semacdr import SemaCdrModel
from semacdr.progress import Progress
from semacdr.store import Store
from semacdr.training.fit import Fit, FitInputs
from semacdr.training.gate import cross_fitted_gate
from semacdr.training.loop import Plan, fit_to_end
from semacdr.training.validation import CUT, Validation

SEED = 0
WITHOUT_TEXTS = SWITCHES["no-texts"].overrides


def show(name: str, hr_10: float, ndcg_10: float, cold: float | None = None) -> None:
    """Print a row."""
    print(f"| {name} | {hr_10:.4f} / {ndcg_10:.4f} | {'' if cold is None else f'{cold:.4f}'} |", flush=True)


def columns(inputs: FitInputs, events: Events, memory: Memory) -> None:
    """Show every column of scores by itself, and HR@10 of its cold targets."""
    experts = inputs.config.experts
    validation, model = Validation(inputs, events, SEED), silent(inputs)
    names = column_names(experts)
    gate = ScoreGate.of(experts, len(inputs.vocabulary.domains))
    scorer = validation.scorer(model, Scoring.of(experts, memory, gate))
    is_cold = inputs.events.support(inputs.vocabulary.num_items)[validation.queries.item] == 0
    for column, name in enumerate(names, start=1):
        score = validation.rank(of_column(scorer.scores, column))
        ranks = rank_targets(
            of_column(scorer.scores, column), validation.events, validation.queries, inputs.vocabulary, seed=SEED
        ).rank
        cold = macro(hit(ranks[is_cold], CUT), validation.queries.domain[is_cold])
        show(name, score.hr_10, score.ndcg_10, cold)


def of_column(scores: Callable[[IntArray, int], Tensor], column: int) -> Callable[[IntArray, int], Tensor]:
    """Return a scorer by one column."""
    return lambda chosen, domain: scores(chosen, domain)[column]


def silent(inputs: FitInputs) -> SemaCdrModel:
    """Return a model whose own score says nothing."""
    return Fit(replace(inputs, config=inputs.config.model_copy(update={"max_epochs": 0})), SEED).model


def gated(name: str, inputs: FitInputs, events: Events, memory: Memory, *, train: bool) -> None:
    """Show the gate over nothing trained or, if asked, the trained score alone and gated."""
    validation = Validation(inputs, events, SEED)
    if not train:
        score = cross_fitted_gate(validation, silent(inputs), memory, SEED).score
        show(f"experts and gate, {name}", score.hr_10, score.ndcg_10)
        return
    fit = Fit(inputs, SEED)
    plan = Plan(name="train", max_epochs=inputs.config.max_epochs, patience=inputs.config.patience)
    found = fit_to_end(fit, plan, lambda: validation.score(fit.model), Progress())
    assert found.best is not None
    show(f"semacdr alone, {name}", found.best.hr_10, found.best.ndcg_10)
    score = cross_fitted_gate(validation, fit.model, memory, SEED).score
    show(f"semacdr gated, {name}", score.hr_10, score.ndcg_10)


def text_shares(store: Path, dataset: str, inputs: FitInputs, events: Events) -> None:
    """Print how many items have a written text: of all, of the cold ones, of the cold targets of validation."""
    table = Store(store).get(dataset, "semantics").scan().filter(pl.col("source") != "fallback")
    written = table.select(pl.col("domain").cast(pl.String), "item_id").unique().with_columns(is_written=True).collect()
    known = inputs.vocabulary.table.join(written, on=["domain", "item_id"], how="left", maintain_order="left")
    has_text = np.concatenate([[False], known["is_written"].fill_null(value=False).to_numpy()])
    is_cold = inputs.events.support(inputs.vocabulary.num_items) == 0
    targets = Validation(inputs, events, SEED).queries.item
    shares = [has_text[1:].mean(), has_text[1:][is_cold[1:]].mean(), has_text[targets[is_cold[targets]]].mean()]
    print("items with a written text: of all {:.0%}, of cold items {:.0%}, of cold targets {:.0%}".format(*shares))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("store"))
    parser.add_argument("--dataset", default="amazon-food-kitchen-mini")
    parser.add_argument("--train", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    inputs, events = read_fit_inputs(arguments.store, arguments.dataset)
    memory = Memory.of(inputs.events, inputs.vocabulary, inputs.titles, inputs.text)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, seed {SEED}")
    text_shares(arguments.store, arguments.dataset, inputs, events)
    print(f"| {arguments.dataset}, validation | HR@10 / NDCG@10 | HR@10 of cold targets |\n| --- | --- | --- |")
    columns(inputs, events, memory)
    without = replace(inputs, config=load_preset("semacdr", WITHOUT_TEXTS))
    for train in (False, True) if arguments.train else (False,):
        gated("all", inputs, events, memory, train=train)
        gated("without texts", without, events, memory, train=train)


if __name__ == "__main__":
    main()
