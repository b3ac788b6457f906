"""``pipeline/nightly``: every stage in order, skipping what is unchanged."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from prefect import flow
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.settings import PREFECT_API_URL
from pydantic import Field

from flows.parameters import Dataset, Refreshable, StageName, StoreUri, Until
from flows.stages import run_stages
from semacdr import __version__
from semacdr.errors import SemacdrError
from semacdr.pipeline import STAGES
from semacdr.settings import load_settings

CHAIN = ("ingest/load", "semantics/generate", "embeddings/index", "training/train", "recommendations/publish")
REFRESHED = {
    "semantics/generate": {"refresh": "semantics"},
    "training/train": {"refresh": "training", "evaluate": "evaluation"},
}
"""Deployment -> its switches, and the stage that each refreshes."""
POLL_EVERY_S = 2.0

Retries = Annotated[int, Field(ge=0, le=10)]


@flow(name="pipeline", flow_run_name="pipeline of {dataset}", version=__version__)
def nightly(
    dataset: Dataset,
    store: StoreUri = None,
    until: Until = None,
    only: StageName | None = None,
    refresh: tuple[Refreshable, ...] = (),
    retries: Retries = 3,
) -> dict[str, str]:
    """Run the whole pipeline of a data set, or one stage of it.

    Args:
        dataset: name of a data set, or the path of its TOML.
        store: a folder or s3://bucket/prefix; empty: the store of the worker's settings.
        until: run as of this day (UTC), in a data set of its own: later events are left out, and items that nobody
            had used by then.
        only: run this stage alone.
        refresh: stages that do more although nothing has changed: semantics spends another budget, training trains
            anew before the checkpoint is as old as it may be, evaluation ranks today's targets.
        retries: how often a stage is tried again after a fault that may pass by itself.
    """
    # Without a server there are no deployments to run.
    if load_settings(store=store).apart and only is None and PREFECT_API_URL.value():
        _run_deployments(dataset, store, until, refresh)
        return {}
    stages = [only] if only else [stage.name for stage in STAGES]
    return run_stages(stages, dataset, store, until, refresh=refresh if only is None else {only}, retries=retries)


def _run_deployments(dataset: str, store: str | None, until: date | None, refresh: tuple[str, ...]) -> None:
    """Run the deployments one after the other, wherever their workers are.

    Raises:
        SemacdrError: one of them does not end well.
    """
    asked = {"dataset": dataset, "store": store, "until": until and until.isoformat()}
    for name in CHAIN:
        parameters = asked | {switch: stage in refresh for switch, stage in REFRESHED.get(name, {}).items()}
        run = run_deployment(name, parameters=parameters, poll_interval=POLL_EVERY_S)
        assert isinstance(run, FlowRun)  # a coroutine only within an event loop
        if run.state is None or not run.state.is_completed():
            raise SemacdrError(
                f"{name} of {dataset} did not complete",
                found=f"{run.state_name}: {run.state.message if run.state else 'no state'}",
                do=f"read the logs of the run {run.name}, then run pipeline/nightly again: what is published stays",
            )
