"""What was measured, and how: protocol, leak findings, metrics of every model, domain and group, and training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from semacdr.store import Artifact

_SETTING = ("protocol", "candidates", "fit", "part", "ties", "candidate_seed")


def about(evaluations: Sequence[Artifact], inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    """Return the title, the setting, what was made of what, and the leak linter's findings, the checkpoint's too."""
    manifests = [one.manifest for one in evaluations]
    details = manifests[0].details
    linted = [*manifests, inputs["checkpoint"].manifest]
    leaks = {(one["check"], one["verdict"], one["found"]): None for m in linted for one in m.details.get("leaks", ())}
    return {
        "title": f"{manifests[0].dataset}: {details['protocol']}, {details['candidates']}, {details['fit']}",
        "dataset": manifests[0].dataset,
        "setting": {name: details.get(name) for name in _SETTING},
        "leaks": [dict(zip(("check", "verdict", "found"), one, strict=True)) for one in leaks],
        "evaluations": [_origin(one) for one in evaluations],
        "inputs": [_origin(one) for one in inputs.values()],
    }


def _origin(artifact: Artifact) -> dict[str, Any]:
    m = artifact.manifest
    return {
        "artifact": m.reference,
        "created_at": m.created_at[:19].replace("T", " "),
        "commit": (m.code_commit or "")[:12],
        "hardware": m.hardware,
    }


def figures(evaluations: Sequence[Artifact]) -> dict[str, Any]:
    """Return per model, domain and group the mean and standard deviation over seeds of every metric.

    Each row is model, domain, group, seeds, targets, means, deviations (null: one seed); the metrics' order is given.
    """
    rows = pl.concat(one.scan().collect() for one in evaluations)
    metrics = rows["metric"].unique(maintain_order=True).to_list()
    keys = ["model", "domain", "group"]
    over_seeds = rows.group_by(*keys, "metric", maintain_order=True).agg(
        pl.col("value").mean().round(5).alias("mean"),
        pl.col("value").std().round(5).alias("std"),
        seeds=pl.col("seed").n_unique(),
        targets=pl.col("num_targets").first(),
    )
    found = []
    for (model, domain, group), of_group in over_seeds.partition_by(keys, as_dict=True, maintain_order=True).items():
        values = {metric: (mean, std) for metric, mean, std in of_group.select("metric", "mean", "std").rows()}
        means, deviations = ([values.get(metric, (None, None))[place] for metric in metrics] for place in (0, 1))
        found.append([model, domain, group, of_group["seeds"][0], of_group["targets"][0], means, deviations])
    domains = sorted(set(rows["domain"]) - {"macro"})
    return {"metrics": metrics, "domains": ["macro", *domains], "rows": found}


def training(evaluations: Sequence[Artifact]) -> list[dict[str, Any]]:
    """Return what training each model took, means over seeds, and what its floor chose on validation."""
    found = []
    for manifest in (one.manifest for one in evaluations):
        seeds = manifest.details.get("trained", [])
        if seeds:
            means = {
                name: sum(one[name] for one in seeds) / len(seeds) for name in ("best_epoch", "cpu_seconds", "seconds")
            }
            ndcg = [one["validation"]["ndcg_10"] for one in seeds]
            found.append(
                {
                    "model": manifest.details["model"],
                    "seeds": len(seeds),
                    "parameters": seeds[0]["num_parameters"],
                    "validation_ndcg_10": sum(ndcg) / len(ndcg),
                    **means,
                }
            )
    return found
