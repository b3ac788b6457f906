"""Evaluating one row of a table: fit it for every seed, rank its targets, publish an ``evaluation`` artifact.

Checkpoints are kept below ``<cache>/comparison``, by what they are made from, so that a crash or another candidate
policy trains nothing twice; nothing needs that folder when no evaluation runs.
"""

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import structlog

from semacdr import training
from semacdr.comparison.inputs import (
    FLOOR_INPUTS,
    MODEL_INPUTS,
    Prepared,
    comparison_folder,
    one_at_a_time,
    prepare,
    row_folder,
)
from semacdr.comparison.rows import Row, Source
from semacdr.comparison.sources import whose, with_source
from semacdr.dataset import Training
from semacdr.errors import ConfigError
from semacdr.evaluation.floors import FLOORS, Chosen, choose
from semacdr.evaluation.results import (
    described,
    headline,
    metric_rows,
    prediction_rows,
    rank,
    rank_rows,
    write_tables,
)
from semacdr.evaluation.task import Setting, Task
from semacdr.leaks import as_json, check_candidates, check_split, lint
from semacdr.manifest import Facts, fingerprint
from semacdr.model.checkpoint import load_checkpoint
from semacdr.model.config import load_preset
from semacdr.model.ranking import Scorer
from semacdr.pipeline import Context, find_stage, refuse_broken
from semacdr.store import Artifact, Draft, rebuild_catalog
from semacdr.training.sight import rolling

log = structlog.get_logger()

STAGE, REVISION = "evaluate", 2
RECORD_FILE = "record.json"
"""Beside a checkpoint: what its training took and found."""


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    row: Row
    setting: Setting
    seeds: int = 5
    """Seeds 0 to n - 1, of training and of the order of ties."""
    predictions: Path | None = None
    """A folder for each seed's first ranks; None: they are not written."""


def alias_of(row: Row, setting: Setting) -> str:
    """Return the alias that points at a row's newest evaluation under a setting."""
    return f"{setting.protocol}-{setting.candidates}-{setting.fit}-{row.slug}"


def evaluate_row(context: Context, request: Request) -> Artifact:
    """Evaluate one row and publish it, if it is not published yet; ``current`` stays where it is.

    Raises:
        ConfigError: no seed at all, or no place for predictions.
        DataError: the protocol leaves no targets, a domain has too few items, or a leak.
    """
    if request.seeds < 1:
        raise ConfigError("evaluate: no seed", found=request.seeds, expected="at least one", do="give --seeds")
    row, store, dataset = request.row, context.store, context.dataset.name
    names = FLOOR_INPUTS if row.preset is None else MODEL_INPUTS
    inputs = {name: store.get(dataset, name) for name in names}
    refuse_broken(store, inputs)
    _make_folder(request.predictions)
    draft = _draft(context, request, inputs)
    alias = alias_of(row, request.setting)
    folder = row_folder(context, row, request.setting.protocol)
    with one_at_a_time(folder):
        known = store.find(dataset, "evaluation", draft.fingerprint)
        if known is not None and request.predictions is None:
            if store.move_alias(dataset, "evaluation", alias, known.manifest.version):
                rebuild_catalog(store)
            log.info("unchanged", artifact=known.reference, model=row.name)
            return known
        with store.open_draft(draft, ["evaluation"]):
            facts = _evaluate(context, request, inputs, folder, draft.folders["evaluation"])
            published = store.publish(draft, facts, alias=alias)["evaluation"]
            rebuild_catalog(store)
    shown = {name: round(value, 4) for name, value in facts.metrics.items()}
    log.info("evaluated", artifact=published.reference, model=row.name, setting=str(request.setting), **shown)
    return published


def _make_folder(predictions: Path | None) -> None:
    """Before seeds are trained: a folder that cannot be would cost hours."""
    try:
        if predictions is not None:
            predictions.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"evaluate: no predictions can be written into {predictions}",
            found=error.strerror,
            expected="a folder",
            do="name another with --predictions",
        ) from error


def _draft(context: Context, request: Request, inputs: Mapping[str, Artifact]) -> Draft:
    config = {
        "model": request.row.name,
        "protocol": request.setting.protocol.value,
        "candidates": request.setting.candidates.value,
        "fit": request.setting.fit.value,
        "seeds": request.seeds,
        **_trained_from(context, request),
    }
    prints = {name: artifact.manifest.fingerprint for name, artifact in inputs.items()}
    return Draft(
        dataset=context.dataset.name,
        stage=STAGE,
        fingerprint=fingerprint({"stage": STAGE, "revision": REVISION, "config": config, "inputs": prints}),
        config=config,
        sources={},
        inputs=inputs,
    )


def _trained_from(context: Context, request: Request) -> dict[str, Any]:
    row = request.row
    return {
        "preset": row.preset,
        "configuration": load_preset(row.preset, row.overrides).model_dump(mode="json") if row.preset else None,
        "overrides": dict(row.overrides),
        "texts": row.texts.value,
        "source": row.source.value,
        "split": context.dataset.split.model_dump(mode="json", exclude={"protocol"}),
        "embeddings": context.dataset.embeddings.model_dump(mode="json") if row.preset else None,
        "revision": find_stage("training").revision if row.preset else None,
    }


def _evaluate(context: Context, request: Request, inputs: Mapping[str, Artifact], folder: Path, output: Path) -> Facts:
    row, setting = request.row, request.setting
    prepared = prepare(context, inputs, row, setting.protocol, folder)
    task = prepared.task(setting)
    leaks = [
        *check_split(task.vocabulary, task.events, task.fit_events, task.visibility, setting.fit),
        check_candidates(task.events, task.queries, task.vocabulary, task.among),
    ]
    found = as_json(leaks)
    details: dict[str, Any] = {"model": row.name, **described(task), "seeds": list(range(request.seeds))}
    chosen: Chosen | None = None
    if row.preset is None:
        chosen = choose(row.name, task, seed=0)
        details |= {"chosen": chosen.choice, "tried": chosen.tried}
        selection = task.selection()
        found += as_json(
            lint(
                task.vocabulary,
                task.events,
                fit_events=selection.fit_events,
                selection_events=selection.events,
                visibility=task.visibility,
            )
        )
    trained, metrics, ranks = [], [], []
    for seed in range(request.seeds):
        if chosen is not None:
            scorer = FLOORS[row.name].scorer(task, chosen.choice, seed)
        else:
            scorer, record = _trained(context, request, inputs, prepared, task, seed)
            found += [one for one in record.pop("leaks") if one not in found]
            trained.append(record)
        run = rank(task, row.name, seed, scorer)
        metrics.append(metric_rows(task, run))
        ranks.append(_named(row, rank_rows(task, run)))
        if request.predictions is not None:
            request.predictions.mkdir(parents=True, exist_ok=True)
            rows = _named(row, prediction_rows(task, run))
            rows.write_parquet(request.predictions / f"{row.slug}-seed-{seed}.parquet")
    table = pl.concat(metrics)
    write_tables(output, [table], ranks)
    return Facts(
        rows_in=len(task.queries),
        details={**details, "trained": trained, "leaks": found},
        metrics=headline(table, row.name),
    )


def _named(row: Row, rows: pl.DataFrame) -> pl.DataFrame:
    """Call the twin's users by the names of those that they are parts of."""
    return rows if row.source is not Source.ALONE else rows.with_columns(user_id=whose(rows["user_id"]))


def _trained(
    context: Context,
    request: Request,
    inputs: Mapping[str, Artifact],
    prepared: Prepared,
    task: Task,
    seed: int,
) -> tuple[Scorer, dict[str, Any]]:
    """Return the scorer of one seed's checkpoint, trained now or before, and what training says of itself."""
    row, setting = request.row, request.setting
    assert row.preset is not None
    at_test = row.source in (Source.OFF, Source.SHUFFLED, Source.UNRELATED)
    made_from = {
        **_trained_from(context, request),
        "source": Source.REAL.value if at_test else row.source.value,
        "setting": [setting.protocol.value, setting.fit.weights.value],
        "seed": seed,
        "inputs": {name: artifact.manifest.fingerprint for name, artifact in inputs.items()},
    }
    checkpoint = comparison_folder(context) / "checkpoints" / fingerprint(made_from)[:32]
    with one_at_a_time(checkpoint):
        if not checkpoint.is_dir():
            _train(context, row, prepared, setting, checkpoint, seed)
    loaded = load_checkpoint(checkpoint)
    record = json.loads((checkpoint / RECORD_FILE).read_text(encoding="utf-8"))
    events, queries = task.events, task.queries
    if at_test:
        events, queries = with_source(events, queries, row.source, seed)
    scorer = loaded.scorer(events, queries)
    return rolling(scorer, task.events) if task.is_rolling else scorer, {"seed": seed, **record}


def _train(context: Context, row: Row, prepared: Prepared, setting: Setting, checkpoint: Path, seed: int) -> None:
    """Train into a folder beside the checkpoint's and move it there whole, with what it took."""
    unfinished = checkpoint.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    started, cpu = time.monotonic(), time.process_time()
    facts = training.train(
        Training(preset=str(row.preset), overrides=dict(row.overrides), seed=seed),
        prepared.split,
        prepared.folders,
        unfinished,
        training.Run(
            context.settings.threads,
            checkpoint.with_suffix(".snapshots"),
            training.Compute.of(
                context.settings.device, bfloat16=context.settings.bfloat16, compiled=context.settings.compile
            ),
        ),
        context.progress,
        setting.fit.weights,
    )
    record = {
        "threads": facts.details["threads"],
        "best_epoch": facts.details["best_epoch"],
        "num_parameters": facts.details["num_parameters"],
        "validation": dict(facts.metrics),
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "leaks": facts.details["leaks"],
    }
    (unfinished / RECORD_FILE).write_text(json.dumps(record), encoding="utf-8")
    unfinished.rename(checkpoint)
