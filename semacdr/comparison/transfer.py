"""The transfer report: what the other domains' histories give, whom they harm, and whether it is they that do it.

Gain and harm are against the target-only twin (``:alone``): the same preset, trained and asked with the events of each
domain alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from semacdr.comparison.table import KEYS, Comparison, compare, macro_means, per_target
from semacdr.statistics import Difference, paired_bootstrap
from semacdr.store import Artifact

CONTROLS = ("source-off", "source-shuffled", "source-unrelated")


@dataclass(frozen=True)
class GroupGain:
    """What a group of targets gains."""

    group: str
    num_targets: int
    difference: Difference
    helped: float
    """Share of the group's users whose value is higher than with the twin, mean over seeds."""
    harmed: float
    """Share of those whose value is lower."""


@dataclass(frozen=True)
class Report:
    """All of it, by one metric."""

    metric: str
    macro: dict[str, float]
    groups: list[GroupGain]
    controls: list[Comparison]
    """The model against its twin and against itself with each control."""


def transfer_report(evaluations: Sequence[Artifact], model: str, metric: str) -> Report:
    """Compare a model with its twin and controls.

    Args:
        evaluations: of the model, its twin, and controls.
        model: its name.
        metric: hr_10 or ndcg_10.

    Raises:
        ConfigError: the evaluations are not alike, or one is missing.
    """
    values = per_target(evaluations, metric)
    twin = f"{model}:alone"
    others = [name for name in values.columns if name not in KEYS and name != model]
    controls = compare(values, model, [twin, *(name for name in others if name != twin)], metric)
    own = next(one for one in evaluations if one.manifest.details.get("model") == model)
    groups = [_gain(name, rows, model, twin) for name, rows in _groups(values, own)]
    return Report(metric, macro_means(values), groups, controls)


def _groups(values: pl.DataFrame, evaluation: Artifact) -> list[tuple[str, pl.DataFrame]]:
    """All targets, those of each domain, and those of each group, as the model's own evaluation has them."""
    found: list[tuple[str, pl.DataFrame]] = [("all", values)]
    for (domain,), rows in values.partition_by("domain", as_dict=True).items():
        found.append((str(domain), rows))
    grouped = evaluation.scan("evaluation_ranks").select(*KEYS, "groups").unique(subset=KEYS).collect()
    flat = values.join(grouped, on=list(KEYS), how="left").explode("groups").filter(pl.col("groups").is_not_null())
    for (group,), rows in flat.partition_by("groups", as_dict=True, include_key=False).items():
        found.append((str(group), rows))
    return found


def _gain(name: str, rows: pl.DataFrame, model: str, twin: str) -> GroupGain:
    gain = (rows[model] - rows[twin]).to_numpy()
    user = rows["user_id"].rank("dense").to_numpy().astype(np.int64)
    domain = rows["domain"].rank("dense").to_numpy().astype(np.int64)
    # The sum of a user's targets, but for what adding up has rounded.
    per_user = np.bincount(user, gain)[1:].round(9)
    return GroupGain(
        name,
        rows.height,
        paired_bootstrap(gain, user, domain),
        float((per_user > 0).mean()),
        float((per_user < 0).mean()),
    )
