"""The evaluation stage: the checkpoint beside the popularity floors, full ranking, the data set's own protocol."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl
import structlog
import torch

from semacdr.dataset import Protocol
from semacdr.evaluation.floors import FLOORS, choose
from semacdr.evaluation.results import described, headline, metric_rows, rank, rank_rows, write_tables
from semacdr.evaluation.task import Setting, Task
from semacdr.leaks import as_json, check_candidates, check_split
from semacdr.manifest import Facts
from semacdr.model.checkpoint import load_checkpoint
from semacdr.model.growth import grow
from semacdr.model.histories import read_events
from semacdr.model.ranking import Scorer
from semacdr.model.titles import read_titles
from semacdr.progress import Progress
from semacdr.tables import Candidates, FitOn

log = structlog.get_logger()

BASELINES = ("popularity", "recent-popularity")


def evaluate(
    protocol: Protocol,
    inputs: Mapping[str, Path],
    output: Path,
    seed: int,
    progress: Progress | None = None,
    threads: int | None = None,
) -> Facts:
    """Rank every test target among all items of its domain and write the ``evaluation`` artifact.

    Args:
        protocol: by which the sequences were split and the checkpoint, of the fit ``refit``, was trained.
        inputs: folders of ``items``, ``sequences`` and ``checkpoint``; with what ``grow`` takes, it learns of items
            that are newer than it.
        output: an empty folder.
        seed: of the training run, and of the permutation that breaks ties.
        progress: where models are reported.
        threads: of torch; None leaves torch's own choice.

    Returns:
        Facts with the macro ``ndcg_10`` and ``hr_10``, and the same of the baselines as ``popularity_ndcg_10``, ….

    Raises:
        DataError: no test targets, items that the checkpoint does not know, or a leak.
        StoreError: the checkpoint cannot be loaded.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        return _evaluate(protocol, inputs, output, seed, progress or Progress())
    finally:
        torch.set_num_threads(before)


def _evaluate(protocol: Protocol, inputs: Mapping[str, Path], output: Path, seed: int, progress: Progress) -> Facts:
    loaded = load_checkpoint(inputs["checkpoint"])
    items = read_titles(inputs["items"])
    if "trained_embeddings" in inputs:
        loaded = grow(loaded, items, inputs).model
    loaded.check_items(items)
    setting = Setting(protocol, Candidates.FULL, FitOn.REFIT)
    task = Task(setting, loaded.vocabulary, items, read_events(inputs["sequences"], loaded.vocabulary))
    leaks = [
        *check_split(task.vocabulary, task.events, task.fit_events, task.visibility, setting.fit),
        check_candidates(task.events, task.queries, task.vocabulary, task.among),
    ]
    chosen = {name: choose(name, task, seed).choice for name in BASELINES}
    scorers: dict[str, Scorer] = {loaded.config.preset: loaded.scorer(task.events, task.queries)}
    scorers |= {name: FLOORS[name].scorer(task, choice, seed) for name, choice in chosen.items()}
    runs = []
    with progress.task("evaluation", len(scorers)) as shown:
        for name, scorer in scorers.items():
            runs.append(rank(task, name, seed, scorer))
            shown.advance(1, model=name)
    rows = pl.concat(metric_rows(task, run) for run in runs)
    write_tables(output, [rows], [rank_rows(task, run) for run in runs])
    metrics = headline(rows, loaded.config.preset)
    for name in BASELINES:
        metrics |= {f"{name.replace('-', '_')}_{key}": value for key, value in headline(rows, name).items()}
    log.info("evaluation", rows_in=len(task.events.item), targets=len(task.queries), models=len(runs), **metrics)
    return Facts(
        rows_in=len(task.queries),
        details={**described(task), "chosen": chosen, "leaks": as_json(leaks)},
        metrics=metrics,
        seed=seed,
    )
