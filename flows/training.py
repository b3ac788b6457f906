"""``training/train``: sequences, model and evaluation."""

from __future__ import annotations

from prefect import flow

from flows.parameters import Dataset, StoreUri, Until
from flows.stages import run_stages
from semacdr import __version__


@flow(name="training", flow_run_name="training on {dataset}", version=__version__)
def train(
    dataset: Dataset,
    store: StoreUri = None,
    until: Until = None,
    *,
    refresh: bool = False,
    evaluate: bool = False,
) -> dict[str, str]:
    """Train the model, early-stopped on validation, and evaluate it on the test targets.

    Args:
        dataset: name of a data set, or the path of its TOML; its items must be embedded.
        store: a folder or s3://bucket/prefix; empty: the store of the worker's settings.
        until: run as of this day (UTC), in a data set of its own: later events are left out, and items that nobody
            had used by then.
        refresh: train anew although the checkpoint is not older than `training.max_age_days`.
        evaluate: rank today's targets although the checkpoint is kept, and much the same targets have been ranked.
    """
    stages = ["sequences", "training", "evaluation"]
    refreshed = {name for name, wanted in (("training", refresh), ("evaluation", evaluate)) if wanted}
    return run_stages(stages, dataset, store, until, refresh=refreshed)
