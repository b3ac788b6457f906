"""``training/train``: sequences, model and evaluation."""

from __future__ import annotations

from prefect import flow

from flows.stages import run_stage


@flow(name="training", flow_run_name="training on {dataset}")
def train(dataset: str, store: str | None = None) -> dict[str, str]:
    """Train the model, early-stopped on validation, and evaluate it on the test targets.

    Args:
        dataset: name or path of the data set's TOML; its items must be embedded.
        store: folder of the store; None: as in the settings.
    """
    versions = run_stage("sequences", dataset, store)
    versions |= run_stage("training", dataset, store)
    return versions | run_stage("evaluation", dataset, store)
