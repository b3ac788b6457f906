"""The transfer report: what the other domains' histories give, whom they harm, and whether it is they that do it.

Gain and harm are against the target-only twin (``:alone``): the same preset, trained and asked with the events of each
domain alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from statistics import mean

import numpy as np
import polars as pl

from semacdr.comparison.table import KEYS, Comparison, compare, macro_means, per_seed, per_target
from semacdr.errors import ConfigError
from semacdr.statistics import Difference, FloatArray, IntArray, paired_bootstrap
from semacdr.store import Artifact

CONTROLS = ("source-off", "source-shuffled", "source-unrelated")


@dataclass(frozen=True)
class Shares:
    """Users who are better off than with the twin, or worse: the values of their targets add up to more, or to less."""

    helped: float
    """Share of users, model and twin of the same seed; mean over seeds."""
    harmed: float
    by_chance: float | None
    """What `harmed` would be if nothing but the seed differed: the share who are worse off with another seed of the
    same model, mean over pairs of seeds of the model and of the twin. None: there is one seed."""


@dataclass(frozen=True)
class GroupGain:
    """What a group of targets gains."""

    group: str
    num_targets: int
    difference: Difference
    shares: Shares


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
        ConfigError: the evaluations are not alike, one is missing, or the model and its twin share no seed.
    """
    values = per_target(evaluations, metric)
    twin = f"{model}:alone"
    others = [name for name in values.columns if name not in KEYS and name != model]
    controls = compare(values, model, [twin, *(name for name in others if name != twin)], metric)
    of_model = {str(one.manifest.details.get("model")): one for one in evaluations}
    by_seed = [_by_seed(of_model[name], metric) for name in (model, twin)]
    seeds = [name for name in by_seed[0].columns if name not in KEYS and name in by_seed[1].columns]
    if not seeds:
        raise ConfigError(
            f"{model} and {twin} share no seed",
            found=" and ".join(of_model[name].reference for name in (model, twin)),
            do="evaluate both with the same --seeds",
        )
    groups = []
    for name, members in _groups(of_model[model]):
        rows, own, alone = (one.join(members, on=list(KEYS), how="semi").sort(*KEYS) for one in (values, *by_seed))
        user_T, domain_T = (rows[key].rank("dense").to_numpy().astype(np.int64) for key in ("user_id", "domain"))
        gain = paired_bootstrap((rows[model] - rows[twin]).to_numpy(), user_T, domain_T)
        shares = count_users(own[seeds].to_numpy(), alone[seeds].to_numpy(), user_T)
        groups.append(GroupGain(name, rows.height, gain, shares))
    return Report(metric, macro_means(values), groups, controls)


def count_users(own_TS: FloatArray, alone_TS: FloatArray, user_T: IntArray) -> Shares:
    """Count who is better off with a model than with its twin, and who worse.

    Args:
        own_TS: the model's value of each target by each of S seeds.
        alone_TS: the twin's, by the same seeds.
        user_T: whose target it is.
    """
    user_T = np.unique(user_T, return_inverse=True)[1]

    def lower(less_T: FloatArray, more_T: FloatArray) -> float:
        # The sum of a user's targets, but for what adding up has rounded.
        return float((np.bincount(user_T, less_T - more_T).round(9) < 0).mean())

    pairs = [pair for one_TS in (own_TS, alone_TS) for pair in permutations(one_TS.T, 2)]
    return Shares(
        helped=mean(lower(alone_T, own_T) for own_T, alone_T in zip(own_TS.T, alone_TS.T, strict=True)),
        harmed=mean(lower(own_T, alone_T) for own_T, alone_T in zip(own_TS.T, alone_TS.T, strict=True)),
        by_chance=mean(lower(*pair) for pair in pairs) if pairs else None,
    )


def _by_seed(evaluation: Artifact, metric: str) -> pl.DataFrame:
    """A row for each target, a column for each seed."""
    return per_seed(evaluation, metric).pivot("seed", index=list(KEYS), values="value")


def _groups(evaluation: Artifact) -> list[tuple[str, pl.DataFrame]]:
    """All targets, those of each domain, and those of each group, as an evaluation has them, by name."""
    targets = evaluation.scan("evaluation_ranks").select(*KEYS, "groups").unique(subset=KEYS).collect()
    found: list[tuple[str, pl.DataFrame]] = [("all", targets)]
    flat = targets.explode("groups").filter(pl.col("groups").is_not_null())
    for frame, column in ((targets, "domain"), (flat, "groups")):
        found += [(str(name), rows) for (name,), rows in sorted(frame.partition_by(column, as_dict=True).items())]
    return found
