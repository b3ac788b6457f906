"""``recommendations/publish``: recommendations, user vectors and item vectors, and the gate before production."""

from __future__ import annotations

from prefect import flow

from flows.gate import show_gate
from flows.stages import run_stage


@flow(name="recommendations", flow_run_name="recommendations for {dataset}")
def publish(dataset: str, store: str | None = None) -> dict[str, str]:
    """Rank the items of every domain for every user with the current checkpoint; what passes goes into production.

    Args:
        dataset: name or path of the data set's TOML; it must have an evaluated checkpoint.
        store: folder of the store; None: as in the settings.
    """
    versions = run_stage("recommendations", dataset, store)
    versions |= run_stage("gate", dataset, store)
    show_gate(dataset, store, versions["gate"])
    return versions
