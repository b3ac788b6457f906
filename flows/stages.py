"""The one task that all flows are made of: a stage of the pipeline."""

from __future__ import annotations

import atexit
from collections.abc import Collection, Iterable
from datetime import date
from typing import Any

import structlog
from prefect import task
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL

from flows.assets import materialized
from flows.limits import turn
from flows.metrics import measured
from flows.pages import show
from flows.progress import PrefectProgress
from flows.runners import spread_over
from semacdr import __version__
from semacdr.dataset import as_of, load_dataset
from semacdr.errors import TransientError
from semacdr.logs import configure_logging
from semacdr.pipeline import Context, check_dataset, find_stage
from semacdr.pipeline import run_stage as run_pipeline_stage
from semacdr.settings import load_settings
from semacdr.store import CURRENT, Artifact, Store
from semacdr.terminal import TerminalProgress

log = structlog.get_logger()


def run_stages(
    names: Iterable[str],
    dataset: str,
    store: str | None,
    until: date | None,
    *,
    refresh: Collection[str] = (),
    retries: int = 3,
) -> dict[str, str]:
    """Run stages one after the other, each as a task of the flow that calls.

    Args:
        names: of the stages.
        dataset: see ``flows.parameters``.
        store: see ``flows.parameters``.
        until: see ``flows.parameters``.
        refresh: the stages that gather more although nothing has changed.
        retries: how often a stage is tried again after a fault that may pass by itself.

    Returns:
        Artifact -> version.

    Raises:
        ConfigError: before the first stage, if the data set's TOML or one of its files is wrong.
    """
    settings = load_settings(store=store)
    check.with_options(retries=retries)(dataset, store)
    timed = run_stage.with_options(retries=retries, timeout_seconds=settings.stage_timeout_s)
    versions: dict[str, str] = {}
    try:
        for name in names:
            versions |= timed(name, dataset, store, until, refresh=name in refresh)
    except BaseException as error:
        # Prefect's threads keep the error until the process ends, and with it what its frames hold. Of a connection
        # that is left then DuckDB complains in a hundred lines, below the error's own message.
        atexit.unregister(_let_go)
        atexit.register(_let_go, error)
        raise
    return versions


def _let_go(error: BaseException) -> None:
    error.__traceback__ = error.__cause__ = error.__context__ = None


def _is_transient(_task: Any, _run: TaskRun, state: State[Any]) -> bool:  # noqa: ANN401 (Prefect's own signature)
    try:
        state.result()
    except TransientError:
        return True
    except Exception:  # noqa: BLE001 (any other error is final, whatever it is)
        return False
    return False


_TRIED: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": [5, 30, 120],
    "retry_condition_fn": _is_transient,
    "persist_result": False,
}


@task(task_run_name="check of {dataset}", **_TRIED)
def check(dataset: str, store: str | None = None) -> None:
    """Look whether the data set's TOML and files are right, and whether the store answers."""
    settings = load_settings(store=store)
    check_dataset(load_dataset(dataset, settings.datasets), settings, Store(settings.store, settings.cache))


@task(task_run_name="{stage} of {dataset}", **_TRIED)
def run_stage(
    stage: str, dataset: str, store: str | None = None, until: date | None = None, *, refresh: bool = False
) -> dict[str, str]:
    """Run a stage unless its outputs are published already.

    Returns:
        Artifact -> version.
    """
    settings = load_settings(store=store)
    configure_logging(form=settings.logs)
    config = load_dataset(dataset, settings.datasets)
    config = as_of(config, until) if until else config
    served = bool(PREFECT_API_URL.value())
    context = Context(
        dataset=config,
        settings=settings,
        store=Store(settings.store, settings.cache),
        progress=PrefectProgress(TerminalProgress()) if served else TerminalProgress(),
        spread=spread_over(settings.runner),
        turn=turn(config.name) if served else Context.turn,
    )
    # Who runs without a server sits before the lines, and knows what runs.
    about = {"run": flow_run.id, "release": __version__} if served else {}
    with structlog.contextvars.bound_contextvars(stage=stage, **about):
        before = {name: context.store.aliases(config.name, name).get(CURRENT) for name in find_stage(stage).outputs}
        with measured(stage, config.name) as meter:
            try:
                artifacts = run_pipeline_stage(find_stage(stage), context, refresh=refresh)
            except TransientError as error:
                log.warning("may pass by itself", error=error.what, found=str(error.found))
                raise
            made = [artifact for name, artifact in artifacts.items() if before[name] != _version(artifact)]
            for artifact in made:
                meter.published(artifact.manifest)
        if served:
            show(context.store, artifacts)
            materialized(context.store, made)
    return {name: _version(artifact) for name, artifact in artifacts.items()}


def _version(artifact: Artifact) -> str:
    return artifact.manifest.version
