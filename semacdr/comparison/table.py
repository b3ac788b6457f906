"""Tables of several evaluations: means and spreads over seeds, and what separates a row from the others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from semacdr.errors import ConfigError, examples
from semacdr.model.ranking import hit, ndcg
from semacdr.statistics import Difference, holm, paired_bootstrap
from semacdr.store import Artifact

SAME = ("protocol", "candidates", "fit", "part", "ties", "candidate_seed")
"""What must be alike in all rows of a table, as their manifests say it; so must their users and items."""
KEYS = ("user_id", "domain", "item_id")
METRICS = {"hr_10": hit, "ndcg_10": ndcg}
"""Metrics that rows are compared by, at rank 10."""


@dataclass(frozen=True)
class Comparison:
    """A row against another, by one metric."""

    model: str
    against: str
    metric: str
    difference: Difference
    p_holm: float


def demand_alike(evaluations: Sequence[Artifact]) -> dict[str, object]:
    """Return the protocol that all evaluations share.

    Raises:
        ConfigError: there are none, they do not share one, or two of them rank one model.
    """
    if not evaluations:
        raise ConfigError("compare: no evaluation", do="make some with `semacdr evaluate`")
    for name in SAME:
        values = {str(one.manifest.details.get(name)): one.reference for one in reversed(evaluations)}
        if len(values) > 1:
            raise ConfigError(
                f"results of different {name} cannot share a table",
                found=examples(f"{reference}: {value}" for value, reference in values.items()),
                expected="one protocol, candidate policy, fit and tie rule",
                do="compare each kind by itself",
            )
    of_model: dict[str, str] = {}
    for one in evaluations:
        for model in one.scan("evaluation_ranks").select(pl.col("model").unique()).collect()["model"].to_list():
            if of_model.get(model, one.reference) != one.reference:
                raise ConfigError(
                    f"two evaluations of {model} cannot share a table: their figures would be taken for those of one",
                    found=f"{of_model[model]} and {one.reference}",
                    expected="one of each model",
                    do="leave one out",
                )
            of_model[model] = one.reference
    return {name: evaluations[0].manifest.details.get(name) for name in SAME}


def figures(evaluations: Sequence[Artifact], group: str = "all") -> pl.DataFrame:
    """Return model, domain, metric, mean and standard deviation over seeds (null: one seed), seeds and targets.

    Raises:
        ConfigError: the evaluations are not alike.
    """
    demand_alike(evaluations)
    rows = pl.concat(one.scan().filter(pl.col("group") == group).collect() for one in evaluations)
    return rows.group_by("model", "domain", "metric", maintain_order=True).agg(
        mean=pl.col("value").mean(),
        std=pl.col("value").std(),
        seeds=pl.col("seed").n_unique(),
        num_targets=pl.col("num_targets").first(),
    )


def per_target(evaluations: Sequence[Artifact], metric: str) -> pl.DataFrame:
    """Return user_id, domain, item_id and, for each model, its value at every target, mean over seeds.

    Raises:
        ConfigError: the evaluations are not alike, or have other targets.
    """
    demand_alike(evaluations)
    wide: pl.DataFrame | None = None
    for one in evaluations:
        means = per_seed(one, metric).group_by("model", *KEYS).agg(pl.col("value").mean())
        for (model,), rows in means.partition_by("model", as_dict=True, maintain_order=True).items():
            found = rows.select(*KEYS, pl.col("value").alias(str(model)))
            if wide is None:
                wide = found
                continue
            joined = wide.join(found, on=list(KEYS), how="inner")
            if joined.height != wide.height or joined.height != found.height:
                raise ConfigError(
                    f"{one.reference} has other targets than the rest",
                    found=f"{found.height} targets, {joined.height} of them shared",
                    expected=f"the same {wide.height}",
                    do="evaluate all of them on the same version of interactions",
                )
            wide = joined
    assert wide is not None
    return wide.sort(*KEYS)


def per_seed(evaluation: Artifact, metric: str) -> pl.DataFrame:
    """Return model, seed, user_id, domain, item_id and the value of every target."""
    ranks = evaluation.scan("evaluation_ranks").select("model", "seed", *KEYS, "rank").collect()
    return ranks.with_columns(value=METRICS[metric](ranks["rank"].to_numpy(), 10)).drop("rank")


def compare(values: pl.DataFrame, model: str, others: Sequence[str], metric: str) -> list[Comparison]:
    """Compare a model with others by ``per_target`` values; p-values are corrected for as many questions.

    Raises:
        ConfigError: one of them has no values.
    """
    for name in (model, *others):
        if name not in values.columns:
            known = [column for column in values.columns if column not in KEYS]
            raise ConfigError(f"no evaluation of {name!r} in this table", found=", ".join(known))
    user = values["user_id"].rank("dense").to_numpy().astype(np.int64)
    domain = values["domain"].rank("dense").to_numpy().astype(np.int64)
    found = [paired_bootstrap((values[model] - values[other]).to_numpy(), user, domain) for other in others]
    corrected = holm([one.p for one in found])
    return [
        Comparison(model, other, metric, difference, p)
        for other, difference, p in zip(others, found, corrected, strict=True)
    ]


def macro_means(values: pl.DataFrame) -> dict[str, float]:
    """Return each model's mean over domains of the means over targets."""
    models = [column for column in values.columns if column not in KEYS]
    return values.group_by("domain").agg(pl.col(models).mean()).select(pl.col(models).mean()).row(0, named=True)
