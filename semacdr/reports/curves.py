"""Learning curves of the checkpoint."""

from __future__ import annotations

from typing import Any

import polars as pl

from semacdr.store import Artifact

FITS = ("train", "train-mixed", "refit")
"""In the order in which they are shown."""
POINTS = 300
"""Of one curve at most; each is the mean over as many steps as that takes."""


def curves(checkpoint: Artifact) -> list[dict[str, Any]]:
    """Return per fit the loss by step, and the validation NDCG@10 by epoch, which the fit ``refit`` has none of."""
    steps = checkpoint.scan("training_steps").select("fit", "step", "loss").sort("fit", "step").collect()
    epochs = checkpoint.scan("training_history").sort("fit", "epoch").collect()
    found = []
    for fit in sorted(epochs["fit"].unique(), key=FITS.index):
        of_fit = steps.filter(fit=fit)
        width = -(-of_fit.height // POINTS)
        binned = of_fit.group_by((pl.int_range(pl.len()) // max(width, 1)).alias("bin"), maintain_order=True).agg(
            step=pl.col("step").mean().round(1), loss=pl.col("loss").mean().round(4)
        )
        by_epoch = epochs.filter(fit=fit)
        found.append(
            {
                "fit": fit,
                "steps_per_point": width,
                "step": binned["step"].to_list(),
                "loss": binned["loss"].to_list(),
                "epoch": by_epoch["epoch"].to_list(),
                "validation_ndcg_10": by_epoch["validation_ndcg_10"].round(5).to_list(),
            }
        )
    return found
