"""What the two gates do: how views share an item's vector, and scores a list, by how often the item was taken."""

from __future__ import annotations

from typing import Any

import polars as pl

from semacdr.model.checkpoint import LoadedModel
from semacdr.model.config import ItemView
from semacdr.model.experts import column_names
from semacdr.model.gate import NUM_BUCKETS, SUPPORT_EDGES, support_bucket
from semacdr.model.present_scorer import TREND
from semacdr.model.scorer import TRAINED
from semacdr.store import Artifact

RANKS = 10
"""Of each list that ``score_weights`` looks at."""


def bucket_names() -> list[str]:
    """Return the gates' buckets of support in words, from cold to often taken."""
    ends = [edge - 1 for edge in SUPPORT_EDGES[1:]]
    spans = [f"{first}-{last}" for first, last in zip(SUPPORT_EDGES, ends, strict=False)]
    return ["0 (cold)", *spans, f"{SUPPORT_EDGES[-1]}+"]


def support_of(checkpoint: LoadedModel) -> pl.DataFrame:
    """Return domain, item_id, support (events of the fit) and bucket of the items that the checkpoint knows."""
    support = checkpoint.model.items.support_I1.numpy()[1:]
    return checkpoint.vocabulary.table.select(
        "domain", "item_id", support=pl.Series(support), bucket=pl.Series(support_bucket(support))
    )


def item_weights(checkpoint: LoadedModel, item_vectors: Artifact) -> list[dict[str, Any]]:
    """Return the mean share of each view in the items' vectors, by domain and support; all counts are of items."""
    weights = [f"weight_{view}" for view in ItemView]
    items = item_vectors.scan().select("domain", "item_id", *weights).collect()
    # An item that is newer than the checkpoint was never taken in its fit.
    joined = items.join(support_of(checkpoint), on=["domain", "item_id"], how="left").with_columns(
        pl.col("bucket").fill_null(0)
    )
    means = joined.group_by("domain", "bucket").agg(pl.col(weights).mean().round(4), items=pl.len())
    names = bucket_names()
    return [
        {"domain": row["domain"], "support": names[row["bucket"]], "items": row["items"]}
        | {view.value: row[f"weight_{view}"] for view in ItemView}
        for row in means.sort("domain", "bucket").to_dicts()
    ]


def score_weights(checkpoint: LoadedModel, recommendations: Artifact) -> dict[str, Any]:
    """Return the score gate's weights by support at the mean query, and which score decided the recommendations.

    Weights are per unit of a score, and scores differ in their spread: a weight compares with those of the same score
    alone. ``decided`` counts the first ``RANKS`` items of all lists: support, score, items.
    """
    names = bucket_names()
    found: dict[str, Any] = {"scores": [TRAINED], "support": names, "weights": None, "decided": []}
    if checkpoint.scoring is not None:
        gate = checkpoint.scoring.gate
        # A query's facts are measured from their mean: there the constant is left of all weights.
        weight_XB = gate.by_fact[:, :1] + gate.by_support
        trends = [TREND] if gate.by_pair.numel() else []
        found["scores"] = [TRAINED, *column_names(checkpoint.scoring.experts), *trends]
        found["weights"] = weight_XB.double().numpy().round(4).tolist() + [[1.0] * NUM_BUCKETS for _ in trends]
        bias_B = gate.bias.clone()
        bias_B[0] += gate.cold_by_fact[0]
        found["bias"] = bias_B.double().numpy().round(4).tolist()
    rows = (
        recommendations.scan()
        .filter(pl.col("rank") <= RANKS)
        .select("domain", "item_id", "decided_by")
        .join(support_of(checkpoint).lazy(), on=["domain", "item_id"], how="left")
        .group_by(pl.col("bucket").fill_null(0), "decided_by")
        .len()
        .sort("bucket", "decided_by")
        .collect()
    )
    found["decided"] = [[names[bucket], score, count] for bucket, score, count in rows.rows()]
    return found
