"""From ranks to the tables of the ``evaluation`` artifact."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from semacdr.evaluation.metrics import MACRO, coverage_values, groups_of, metric_values
from semacdr.evaluation.task import CANDIDATE_SEED, Task
from semacdr.model.histories import Queries
from semacdr.model.ranking import Ranks, Scorer, rank_targets
from semacdr.tables import Candidates

RANKS_KEPT = {Candidates.FULL: 100, Candidates.SAMPLED_999: 1_000}
"""First candidates of each target that predictions hold."""
HEADLINE = ("ndcg_10", "hr_10")
TIES = "seeded permutation of each domain's items"


@dataclass(frozen=True)
class Run:
    """One model of one seed, ranked."""

    model: str
    seed: int
    ranks: Ranks


def rank(task: Task, model: str, seed: int, scorer: Scorer) -> Run:
    """Rank a task's targets; the seed breaks ties."""
    keep = RANKS_KEPT[task.setting.candidates]
    ranks = rank_targets(scorer, task.events, task.queries, task.vocabulary, seed=seed, keep=keep, among_QC=task.among)
    return Run(model, seed, ranks)


def metric_rows(task: Task, run: Run) -> pl.DataFrame:
    """Return a run's rows of the table ``evaluation``."""
    domains, bounds = task.vocabulary.domains, task.vocabulary.bounds
    groups = groups_of(task.events, task.queries, task.support_Q)
    assert run.ranks.top is not None
    values = [
        *metric_values(run.ranks.rank, task.queries.domain, groups, domains, task.setting.candidates),
        *coverage_values(run.ranks.top, task.queries.domain, bounds, domains),
    ]
    rows = pl.DataFrame([{"model": run.model, "seed": run.seed, **asdict(value)} for value in values])
    return rows.select(
        "model",
        protocol=pl.lit(task.setting.protocol.value),
        candidates=pl.lit(task.setting.candidates.value),
        fit=pl.lit(task.setting.fit.value),
        part=pl.lit(task.part.value),
        seed="seed",
        domain="domain",
        group="group",
        metric="metric",
        value="value",
        num_targets="num_targets",
    )


def rank_rows(task: Task, run: Run) -> pl.DataFrame:
    """Return a run's rows of the table ``evaluation_ranks``."""
    item_ids = task.vocabulary.table["item_id"]
    masks = groups_of(task.events, task.queries, task.support_Q)
    names = [name for name in masks if name != "all"]
    groups = [[name for name in names if masks[name][query]] for query in range(len(task.queries))]
    return _targets(task).select(
        model=pl.lit(run.model),
        seed=pl.lit(run.seed, pl.Int64),
        user_id="user_id",
        domain="domain",
        item_id=item_ids.gather(task.queries.item - 1),
        rank=pl.Series(run.ranks.rank),
        num_candidates=pl.Series(run.ranks.num_candidates),
        groups=pl.Series(groups, dtype=pl.List(pl.String)),
    )


def prediction_rows(task: Task, run: Run) -> pl.DataFrame:
    """Return the first candidates of every target: user_id, domain, rank, item_id."""
    assert run.ranks.top is not None
    item_ids = task.vocabulary.table["item_id"]
    top = pl.Series("item_index", run.ranks.top.tolist(), dtype=pl.List(pl.Int64))
    rows = (
        _targets(task)
        .with_columns(top)
        .explode("item_index")
        .with_columns(rank=pl.int_range(1, pl.len() + 1).over("user_id", "domain"))
    )
    rows = rows.filter(pl.col("item_index") > 0)
    return rows.select("user_id", "domain", "rank", item_id=item_ids.gather(rows["item_index"] - 1))


def write_tables(output: Path, metrics: Iterable[pl.DataFrame], ranks: Iterable[pl.DataFrame]) -> None:
    """Write both tables."""
    output.mkdir(parents=True, exist_ok=True)
    pl.concat(metrics).write_parquet(output / "evaluation.parquet")
    pl.concat(ranks).write_parquet(output / "evaluation_ranks.parquet")


def headline(metrics: pl.DataFrame, model: str) -> dict[str, float]:
    """Return a model's macro figures, means over its seeds."""
    chosen = metrics.filter(pl.col("model") == model, pl.col("domain") == MACRO, pl.col("group") == "all")
    means = chosen.group_by("metric").agg(pl.col("value").mean())
    values = dict(means.iter_rows())
    return {name: values[name] for name in HEADLINE}


def described(task: Task) -> dict[str, Any]:
    """Return what a result has to say of its protocol, for the manifest."""
    sampled = task.setting.candidates is Candidates.SAMPLED_999
    return {
        "protocol": task.setting.protocol.value,
        "candidates": task.setting.candidates.value,
        "fit": task.setting.fit.value,
        "part": task.part.value,
        "ties": TIES,
        "candidate_seed": CANDIDATE_SEED if sampled else None,
    }


def _targets(task: Task) -> pl.DataFrame:
    queries: Queries = task.queries
    domains = pl.Series(task.vocabulary.domains)
    return pl.DataFrame(
        {"user_id": task.events.user_ids.gather(queries.user), "domain": domains.gather(queries.domain)}
    )
