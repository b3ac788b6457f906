"""``ingest/load``: raw logs to interactions, items and rejects."""

from __future__ import annotations

from prefect import flow

from flows.stages import run_stage


@flow(name="ingest", flow_run_name="ingest {dataset}")
def load(dataset: str, store: str | None = None) -> dict[str, str]:
    """Read a data set's raw logs into the store.

    Args:
        dataset: name or path of the data set's TOML.
        store: folder of the store; None: as in the settings.
    """
    return run_stage("ingest", dataset, store)
