"""``pipeline/nightly``: every stage in order, skipping what is unchanged."""

from __future__ import annotations

from prefect import flow

from flows.gate import show_gate
from flows.stages import run_stage
from semacdr.pipeline import STAGES, find_stage, refreshable


@flow(name="pipeline", flow_run_name="pipeline of {dataset}")
def nightly(
    dataset: str,
    store: str | None = None,
    only: str | None = None,
    refresh: list[str] | None = None,
    retries: int = 3,
) -> dict[str, str]:
    """Run the whole pipeline of a data set, or one stage of it.

    Args:
        dataset: name or path of the data set's TOML.
        store: folder of the store; None: as in the settings.
        only: run this stage alone.
        refresh: stages that gather more although nothing has changed (``semantics`` spends another budget).
        retries: how often a stage is tried again after a fault that may pass by itself.
    """
    refreshed = refreshable(refresh or []) | {only}
    stage_task = run_stage.with_options(retries=retries)
    versions: dict[str, str] = {}
    for stage in [find_stage(only)] if only else STAGES:
        versions |= stage_task(stage.name, dataset, store, refresh=stage.name in refreshed)
    if "gate" in versions:
        show_gate(dataset, store, versions["gate"])
    return versions
