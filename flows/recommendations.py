"""``recommendations/publish``: recommendations, user vectors and item vectors."""

from __future__ import annotations

from prefect import flow

from flows.stages import run_stage


@flow(name="recommendations", flow_run_name="recommendations for {dataset}")
def publish(dataset: str, store: str | None = None) -> dict[str, str]:
    """Rank the items of every domain for every user with the current checkpoint.

    Args:
        dataset: name or path of the data set's TOML; it must have a checkpoint.
        store: folder of the store; None: as in the settings.
    """
    return run_stage("recommendations", dataset, store)
