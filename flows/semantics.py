"""``semantics/generate``: both views for the items that lack them."""

from __future__ import annotations

from prefect import flow

from flows.stages import run_stage


@flow(name="semantics", flow_run_name="semantics of {dataset}")
def generate(dataset: str, store: str | None = None) -> dict[str, str]:
    """Spend one budget of the data set on the most-interacted items without LLM text, and publish the table.

    Args:
        dataset: name or path of the data set's TOML; it must be ingested.
        store: folder of the store; None: as in the settings.
    """
    return run_stage("semantics", dataset, store, refresh=True)
