"""The one task that all flows are made of: a stage of the pipeline."""

from __future__ import annotations

from typing import Any

import structlog
from prefect import task
from prefect.client.schemas.objects import State, TaskRun
from prefect.settings import PREFECT_API_URL

from flows.progress import PrefectProgress
from semacdr.dataset import load_dataset
from semacdr.errors import TransientError
from semacdr.logs import configure_logging
from semacdr.pipeline import Context, find_stage
from semacdr.pipeline import run_stage as run_pipeline_stage
from semacdr.settings import load_settings
from semacdr.store import Store
from semacdr.terminal import TerminalProgress

log = structlog.get_logger()


def _is_transient(_task: Any, _run: TaskRun, state: State[Any]) -> bool:  # noqa: ANN401 (Prefect's own signature)
    try:
        state.result()
    except TransientError:
        return True
    except Exception:  # noqa: BLE001 (any other error is final, whatever it is)
        return False
    return False


@task(
    task_run_name="{stage} of {dataset}",
    retries=3,
    retry_delay_seconds=[5, 30, 120],
    retry_condition_fn=_is_transient,
    persist_result=False,
)
def run_stage(stage: str, dataset: str, store: str | None = None, *, refresh: bool = False) -> dict[str, str]:
    """Run a stage unless its outputs are published already.

    Returns:
        Artifact -> version.
    """
    configure_logging()
    settings = load_settings(store=store)
    context = Context(
        dataset=load_dataset(dataset, settings.datasets),
        settings=settings,
        store=Store(settings.store, settings.cache),
        progress=PrefectProgress(TerminalProgress()) if PREFECT_API_URL.value() else TerminalProgress(),
    )
    try:
        artifacts = run_pipeline_stage(find_stage(stage), context, refresh=refresh)
    except TransientError as error:
        log.warning("may pass by itself", stage=stage, error=error.what, found=str(error.found))
        raise
    return {name: artifact.manifest.version for name, artifact in artifacts.items()}
