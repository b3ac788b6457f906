"""What the gate makes of a memory as old as the fit and of one that is up to date, and what showing cold items costs.

    python -m benchmarks.gate_memory [--store STORE] [--dataset DATASET] [--seed 0]

Trains ``semacdr`` without texts (fit ``train``, protocol gts). Its gate is fitted with the memory of the fit alone, or
with both, on one half of the users; the other half's validation targets are ranked. ``cold_share`` says how many cold
items are wanted in the first ten ranks, relative to the targets; "without the crowd": the gate is not told how popular
what a user took was. Test targets are not read.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.experts import WITHOUT_TEXTS
from benchmarks.fit_inputs import read_fit_inputs
from semacdr.model.config import load_preset
from semacdr.model.experts import Memory
from semacdr.model.gate import POPULARITY_FACTS, ScoreGate
from semacdr.model.histories import IntArray
from semacdr.model.ranking import hit, macro, ndcg, rank_targets
from semacdr.model.scorer import Scoring
from semacdr.progress import Progress
from semacdr.training.cold import cold_boosts
from semacdr.training.fit import Fit
from semacdr.training.gate import fit_gate, half_of_user, piloted_examples
from semacdr.training.loop import Plan, fit_to_end
from semacdr.training.sight import Sight
from semacdr.training.validation import CUT, Validation

COLD_SHARES = (0.0, 1.0, 2.0, 3.0)


def halves(validation: Validation) -> list[IntArray]:
    """Return the targets of each half of the users."""
    half_Q = half_of_user(validation.queries, np.random.default_rng(validation.seed))
    return [np.flatnonzero(half_Q == half) for half in range(2)]


def gates(validation: Validation, sights: Sequence[Sight], seed: int) -> list[ScoreGate]:
    """Return a gate for each half of the users, fitted on the other."""
    vocabulary, rng = validation.inputs.vocabulary, np.random.default_rng(seed)
    fresh = ScoreGate.of(validation.inputs.config.experts, len(vocabulary.domains))
    fitted = []
    for half in halves(validation):
        made = piloted_examples(sights, fresh, validation.events, validation.queries, half, vocabulary, rng)
        assert made is not None
        fitted.append(fit_gate(made, fresh))
    return fitted[::-1]


def without_the_crowd(sight: Sight) -> Sight:
    """Return a sight that does not know how popular what users took was."""
    facts = sight.facts.copy()
    facts[:, POPULARITY_FACTS] = 0
    return replace(sight, facts=facts)


def show(name: str, validation: Validation, sight: Sight, of_half: list[ScoreGate], share: float, seed: int) -> float:
    """Print a row; return its NDCG@10."""
    queries, bounds, both = validation.queries, validation.inputs.vocabulary.bounds, halves(validation)
    # The boosts of a half come from the targets that its gate was fitted on.
    boosts = [cold_boosts(gate, validation, sight, one, share) for gate, one in zip(of_half, both[::-1], strict=True)]

    is_of_first_Q = np.isin(np.arange(len(queries)), both[0])

    def scorer(chosen: IntArray, domain: int) -> Tensor:
        score_XQI = sight.scores(chosen, domain)
        parts = [sight.final(gate, score_XQI, queries, chosen, bounds[domain]) for gate in of_half]
        finals = [final + boost[domain] * (bucket == 0) for (final, bucket), boost in zip(parts, boosts, strict=True)]
        return torch.where(torch.from_numpy(is_of_first_Q[chosen])[:, None], *finals)

    ranks = rank_targets(scorer, validation.events, queries, validation.inputs.vocabulary, seed=seed, keep=CUT)
    assert ranks.top is not None
    is_cold = sight.support(queries.item, queries.time_s) == 0
    shown_cold = sight.support(ranks.top, queries.time_s[:, None]) == 0
    cells = [f"{macro(of(ranks.rank, CUT), queries.domain):.4f}" for of in (hit, ndcg)]
    domains = [queries.domain == domain for domain in range(len(bounds))]
    by_domain = (
        [f"{hit(ranks.rank[is_cold & one], CUT).mean():.4f}" for one in domains],
        [f"{is_cold[one].mean():.3f}" for one in domains],
        [f"{shown_cold[one].mean():.3f}" for one in domains],
        [f"{len(np.unique(ranks.top[one])):,}" for one in domains],
    )
    print(f"| {name} | {' / '.join(cells)} | " + " | ".join(" ".join(cell) for cell in by_domain) + " |", flush=True)
    return macro(ndcg(ranks.rank, CUT), queries.domain)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("store"))
    parser.add_argument("--dataset", default="amazon-food-kitchen")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    inputs, events = read_fit_inputs(arguments.store, arguments.dataset)
    inputs = replace(inputs, config=load_preset("semacdr", WITHOUT_TEXTS))
    fit, validation = Fit(inputs, arguments.seed), Validation(inputs, events, arguments.seed)
    plan = Plan(name="train", max_epochs=inputs.config.max_epochs, patience=inputs.config.patience)
    fit_to_end(fit, plan, lambda: validation.score(fit.model), Progress())
    memory = Memory.of(inputs.events, inputs.vocabulary, inputs.titles, inputs.text)
    shut = ScoreGate.of(inputs.config.experts, len(inputs.vocabulary.domains))
    scorer = validation.scorer(fit.model, Scoring.of(inputs.config.experts, memory, shut))
    sights = {"of the fit": Sight.at_fit(scorer), "up to date": Sight.up_to_date(scorer)}
    first, both = (gates(validation, seen, arguments.seed) for seen in ([sights["of the fit"]], list(sights.values())))
    place = f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{place}, seed {arguments.seed}, {len(validation.queries):,} targets; {' '.join(inputs.vocabulary.domains)}")
    print("| memory, gate fitted with, cold_share | HR@10 / NDCG@10 | cold HR@10 | cold targets | cold shown | items |")
    print("| --- | --- | --- | --- | --- | --- |")
    alike = {name: without_the_crowd(sight) for name, sight in sights.items()}
    same_for_all = gates(validation, list(alike.values()), arguments.seed)
    gains, costs, crowds = {}, {}, {}
    for memory_name, sight in sights.items():
        before = show(f"{memory_name}, of the fit, 0", validation, sight, first, 0.0, arguments.seed)
        unaware = show(
            f"{memory_name}, both without the crowd, 0",
            validation,
            alike[memory_name],
            same_for_all,
            0.0,
            arguments.seed,
        )
        values = [
            show(f"{memory_name}, both, {share:g}", validation, sight, both, share, arguments.seed)
            for share in COLD_SHARES
        ]
        gains[memory_name] = round(values[0] - before, 4)
        crowds[memory_name] = round(values[0] - unaware, 4)
        costs[memory_name] = round(values[0] - values[COLD_SHARES.index(1.0)], 4)
    record = {"gain_of_both": gains, "gain_of_the_crowd": crowds, "cost_of_cold_share_1": costs}
    print(json.dumps({"benchmark": "gate_memory", **record}))


if __name__ == "__main__":
    main()
