"""The evaluation stage: protocol ``gts``, full ranking, the refitted model beside the popularity baselines."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import structlog
import torch

from semacdr.errors import DataError
from semacdr.evaluation.baselines import RECENT_DAYS, SECONDS_PER_DAY, popularity, popularity_scorer
from semacdr.evaluation.metrics import COVERAGE_AT, MACRO, coverage_values, groups_of, metric_values
from semacdr.manifest import Facts
from semacdr.model.checkpoint import LoadedModel, load_checkpoint
from semacdr.model.growth import grow
from semacdr.model.histories import PART_CODE, Events, Queries, queries_of_targets, read_events
from semacdr.model.ranking import Scorer, rank_targets
from semacdr.progress import Progress
from semacdr.tables import Part, table_files

log = structlog.get_logger()

PROTOCOL, CANDIDATES, FIT = "gts", "full", "refit"
POPULARITY, RECENT_POPULARITY = "popularity", "recent-popularity"
HEADLINE = ("ndcg_10", "hr_10")


def evaluate(
    inputs: Mapping[str, Path],
    output: Path,
    seed: int,
    progress: Progress | None = None,
    threads: int | None = None,
) -> Facts:
    """Rank every test target among all items of its domain and write the ``evaluation`` artifact.

    Candidates are all items of the target's domain, cold ones included, less those that the user had before the
    target's time. Histories hold every event strictly before the target's time, test events too. Beside the
    checkpoint, under its preset's name: ``popularity`` counts all events before the test cut, ``recent-popularity``
    those of the last ``RECENT_DAYS`` before it.

    Args:
        inputs: folders of ``interactions``, ``items``, ``sequences`` and ``checkpoint``; with what ``grow`` takes,
            it learns of items that are newer than it.
        output: an empty folder.
        seed: of the training run, and of the permutation that breaks ties.
        progress: where models are reported.
        threads: of torch; None leaves torch's own choice.

    Returns:
        Facts with the macro ``ndcg_10`` and ``hr_10``, and the same of the baselines as ``popularity_ndcg_10``, ….

    Raises:
        DataError: no test targets, or items that the checkpoint does not know.
        StoreError: the checkpoint cannot be loaded.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        return _evaluate(inputs, output, seed, progress or Progress())
    finally:
        torch.set_num_threads(before)


def _evaluate(inputs: Mapping[str, Path], output: Path, seed: int, progress: Progress) -> Facts:
    loaded = load_checkpoint(inputs["checkpoint"])
    items = _read(inputs["items"], "items", ["domain", "item_id", "title"])
    if "trained_items" in inputs:
        loaded = grow(loaded, items, inputs).model
    loaded.check_items(items)
    events = read_events(inputs["sequences"], loaded.vocabulary)
    queries = queries_of_targets(events, Part.TEST)
    if len(queries) == 0:
        raise DataError(
            "sequences: there are no test targets",
            found=f"{len(events.item)} events, 0 targets in part test",
            expected="events at or after the test cut",
            do="lower split.test_quantile, or give the data set more data",
        )
    interactions = _read(inputs["interactions"], "interactions", ["domain", "item_id", "timestamp_s"])
    groups = groups_of(events, queries, events.up_to(Part.VALIDATION).support(loaded.vocabulary.num_items))
    values, ranks = [], []
    scorers = _scorers(loaded, events, queries, interactions)
    with progress.task("evaluation", len(scorers)) as task:
        for name, scorer in scorers.items():
            ranked = rank_targets(scorer, events, queries, loaded.vocabulary, seed=seed, keep=COVERAGE_AT)
            assert ranked.top is not None
            domains, bounds = loaded.vocabulary.domains, loaded.vocabulary.bounds
            rows = [
                *metric_values(ranked.rank, queries.domain, groups, domains),
                *coverage_values(ranked.top, queries.domain, bounds, domains),
            ]
            values += [{"model": name, "seed": seed, **asdict(row)} for row in rows]
            ranks.append(_rank_rows(name, seed, loaded, events, queries, ranked.rank, ranked.num_candidates))
            task.advance(1, model=name)
    _write(output, values, ranks)
    metrics = _headline(values, loaded.config.preset)
    log.info("evaluation", rows_in=len(events.item), targets=len(queries), models=len(scorers), **metrics)
    return Facts(
        rows_in=len(queries),
        details={
            "protocol": PROTOCOL,
            "candidates": CANDIDATES,
            "fit": FIT,
            "ties": "seeded permutation of each domain's items",
            "recent_days": RECENT_DAYS,
            "test_cut_s": _test_cut_s(events),
        },
        metrics=metrics,
        seed=seed,
    )


def _scorers(loaded: LoadedModel, events: Events, queries: Queries, interactions: pl.DataFrame) -> dict[str, Scorer]:
    cut_s = _test_cut_s(events)
    everything = popularity(interactions, loaded.vocabulary, before_s=cut_s)
    recent = popularity(interactions, loaded.vocabulary, before_s=cut_s, since_s=cut_s - RECENT_DAYS * SECONDS_PER_DAY)
    return {
        loaded.config.preset: loaded.scorer(events, queries),
        POPULARITY: popularity_scorer(everything, loaded.vocabulary),
        RECENT_POPULARITY: popularity_scorer(recent, loaded.vocabulary),
    }


def _test_cut_s(events: Events) -> int:
    """The first test event stands at the cut itself: the cut is a quantile of the times, the lower one."""
    return int(events.time_s[events.part == PART_CODE[Part.TEST]].min())


def _rank_rows(
    model: str,
    seed: int,
    loaded: LoadedModel,
    events: Events,
    queries: Queries,
    rank: np.ndarray,
    num_candidates: np.ndarray,
) -> pl.DataFrame:
    item_ids = loaded.vocabulary.table["item_id"]
    return pl.DataFrame(
        {
            "model": pl.Series([model]).new_from_index(0, len(queries)),
            "seed": pl.Series([seed], dtype=pl.Int64).new_from_index(0, len(queries)),
            "user_id": events.user_ids.gather(queries.user),
            "domain": [loaded.vocabulary.domains[index] for index in queries.domain],
            "item_id": item_ids.gather(queries.item - 1),
            "rank": rank,
            "num_candidates": num_candidates,
        }
    )


def _write(output: Path, values: list[dict[str, Any]], ranks: list[pl.DataFrame]) -> None:
    metrics = pl.DataFrame(values).with_columns(
        protocol=pl.lit(PROTOCOL), candidates=pl.lit(CANDIDATES), fit=pl.lit(FIT), part=pl.lit(Part.TEST.value)
    )
    metrics = metrics.select(
        "model", "protocol", "candidates", "fit", "part", "seed", "domain", "group", "metric", "value", "num_targets"
    )
    output.mkdir(parents=True, exist_ok=True)
    metrics.write_parquet(output / "evaluation.parquet")
    pl.concat(ranks).write_parquet(output / "evaluation_ranks.parquet")


def _headline(values: list[dict[str, Any]], preset: str) -> dict[str, float]:
    macro = {
        (row["model"], row["metric"]): row["value"]
        for row in values
        if row["domain"] == MACRO and row["group"] == "all"
    }
    metrics = {metric: macro[preset, metric] for metric in HEADLINE}
    for model in (POPULARITY, RECENT_POPULARITY):
        prefix = model.replace("-", "_")
        metrics |= {f"{prefix}_{metric}": macro[model, metric] for metric in HEADLINE}
    return metrics


def _read(folder: Path, table: str, columns: list[str]) -> pl.DataFrame:
    files = table_files(folder, table)
    if not files:
        raise DataError(f"{table} has no file", expected=f"{table}.parquet in {folder}", do="run ingest again")
    return pl.concat(pl.read_parquet(file, columns=columns, hive_partitioning=False) for file in files)
