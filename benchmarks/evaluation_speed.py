"""Full-ranking evaluation: targets ranked in a CPU second, against users that RecTools recommends to in one.

    python -m benchmarks.evaluation_speed [--store STORE] [--dataset DATASET] [--rectools PYTHON]

One thread each, one after the other. ``sasrec-mixed`` of RecTools' sizes ranks all validation targets among every item
of their domain less the history, from items without vectors to the metrics; RecTools' ``recommend`` makes lists of 10
of all items less the history. The row of ``semacdr`` has its experts, with a fresh gate. RecTools lives in an
environment of its own: see ``benchmarks.retrieval``; without one its row is left out and its bar is not judged.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.fit_inputs import read_fit_inputs
from benchmarks.retrieval import claim, rectools_users_per_s
from benchmarks.training_speed import SAME
from semacdr.model.config import load_preset
from semacdr.model.experts import Memory
from semacdr.model.gate import ScoreGate
from semacdr.model.histories import Events
from semacdr.model.scorer import Scoring
from semacdr.training.fit import Fit, FitInputs
from semacdr.training.validation import Validation

BAR = 5.0


def targets_per_s(inputs: FitInputs, events: Events) -> float:
    """Targets of part validation that are ranked in a CPU second; the better of two rounds."""
    model = Fit(inputs, seed=0).model
    experts = inputs.config.experts
    scoring = None
    if experts:
        memory = Memory.of(inputs.events, inputs.vocabulary, inputs.titles, inputs.text)
        gate = ScoreGate.of(experts, len(inputs.vocabulary.domains))
        scoring = Scoring.of(experts, memory, gate)
    validation = Validation(inputs, events, seed=0)
    best = 0.0
    for _ in range(2):
        started = time.process_time()
        with torch.inference_mode():
            validation.rank(validation.scorer(model, scoring))
        best = max(best, len(validation.queries) / (time.process_time() - started))
    return best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("store"))
    parser.add_argument("--dataset", default="amazon-food-kitchen")
    parser.add_argument("--rectools", type=Path, help="Python of an environment with rectools[torch].")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    inputs, events = read_fit_inputs(arguments.store, arguments.dataset)
    ours = targets_per_s(replace(inputs, config=load_preset("sasrec-mixed", SAME)), events)
    print(f"| sasrec-mixed (RecTools' sizes) | {ours:.0f} targets/CPU s |")
    print(f"| semacdr | {targets_per_s(inputs, events):.0f} targets/CPU s |")
    if arguments.rectools:
        theirs = rectools_users_per_s(arguments.rectools, events)
        print(f"| RecTools 0.19, recommend | {theirs:.0f} users/CPU s |")
        claim("evaluation_against_rectools", ours / theirs, BAR, holds=ours / theirs >= BAR)


if __name__ == "__main__":
    main()
