"""Scoring predictions from elsewhere as a row like any other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from semacdr.comparison.evaluate import alias_of
from semacdr.comparison.inputs import FLOOR_INPUTS, one_at_a_time, prepare, row_folder
from semacdr.comparison.rows import Row, known_rows
from semacdr.errors import ConfigError
from semacdr.evaluation.predictions import read_predictions
from semacdr.evaluation.results import Run, described, headline, metric_rows, rank_rows, write_tables
from semacdr.evaluation.task import Setting
from semacdr.leaks import as_json, check_candidates, check_split
from semacdr.manifest import Facts, file_sha256, fingerprint
from semacdr.model.config import preset_names
from semacdr.pipeline import Context
from semacdr.store import Artifact, Draft, rebuild_catalog

STAGE, REVISION = "score", 3


@dataclass(frozen=True)
class Predictions:
    """One model's predictions, a file for each seed."""

    name: str
    files: Sequence[Path]
    setting: Setting


def score(context: Context, predictions: Predictions) -> Artifact:
    """Check and score predictions, and publish an ``evaluation`` artifact.

    Raises:
        ConfigError: the name is one of ours.
        DataError: a file misses targets, or ranks what is no candidate.
    """
    name, setting, store = predictions.name, predictions.setting, context.store
    # A preset with switches has an alias of its own: semacdr-alone is that of semacdr:alone.
    switched = tuple(f"{preset}-" for preset in preset_names())
    if name.partition(":")[0] in known_rows() or Row(name, None).slug.startswith(switched):
        raise ConfigError(
            f"{name!r} is the name of a model of SemaCDR, or would be taken for one",
            expected="no name of ours, and none that begins with a preset's and a hyphen",
            do="give the predictions a name of their own",
        )
    if not name.strip():
        raise ConfigError("score: no name", found=repr(name), expected="what the model is called", do="give --name")
    digests = [file_sha256(file) for file in predictions.files]
    if len(set(digests)) < len(digests):
        raise ConfigError(
            "score: the same predictions are given twice",
            found=", ".join(map(str, predictions.files)),
            expected="a file for each seed",
            do="leave one out",
        )
    row = Row(name, None)
    inputs = {one: store.get(context.dataset.name, one) for one in FLOOR_INPUTS}
    config = {
        "model": name,
        "protocol": setting.protocol.value,
        "candidates": setting.candidates.value,
        "fit": setting.fit.value,
        "split": context.dataset.split.model_dump(mode="json", exclude={"protocol"}),
    }
    named = zip(predictions.files, digests, strict=True)
    sources = {"files": [{"file": file.name, "sha256": digest} for file, digest in named]}
    identity = {
        "stage": STAGE,
        "revision": REVISION,
        "config": config,
        "sources": sources,
        "inputs": {one: artifact.manifest.fingerprint for one, artifact in inputs.items()},
    }
    draft = Draft(
        dataset=context.dataset.name,
        stage=STAGE,
        fingerprint=fingerprint(identity),
        config=config,
        sources=sources,
        inputs=inputs,
    )
    folder = row_folder(context, row, setting.protocol)
    with one_at_a_time(folder), store.open_draft(draft, ["evaluation"]):
        task = prepare(context, inputs, row, setting.protocol, folder).task(setting)
        leaks = [
            *check_split(task.vocabulary, task.events, task.fit_events, task.visibility, setting.fit),
            check_candidates(task.events, task.queries, task.vocabulary, task.among),
        ]
        runs = [Run(name, seed, read_predictions(file, task)) for seed, file in enumerate(predictions.files)]
        table = pl.concat(metric_rows(task, run) for run in runs)
        write_tables(draft.folders["evaluation"], [table], [rank_rows(task, run) for run in runs])
        facts = Facts(
            rows_in=len(task.queries),
            details={
                "model": name,
                **described(task),
                "seeds": list(range(len(runs))),
                "leaks": as_json(leaks),
            },
            metrics=headline(table, name),
        )
        published = store.publish(draft, facts, alias=alias_of(row, setting))["evaluation"]
        rebuild_catalog(store)
    return published
