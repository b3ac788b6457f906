"""Where the shards of a stage run: here, or as Prefect tasks on a Ray or Dask cluster; ``settings.runner`` says which.

Ray and Dask are the extras ``ray`` and ``dask``. Their workers need this package, a Prefect server that they can
reach, and the store's folder at the same path.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from prefect import task
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner

from semacdr.errors import ConfigError
from semacdr.spread import Advance, Result, Shard, Spread, Work, here

MOST_IN_FLIGHT = 256
"""Shards that are submitted at a time: their arguments lie in memory."""


def spread_over(runner: str) -> Spread:
    """Return how ``settings.runner`` spreads shards.

    Raises:
        ConfigError: its extra is not installed.
    """
    if runner == "local":
        return here

    def over(work: Work[Result], shards: Sequence[Shard], advance: Advance) -> Iterator[Result]:
        with _open(runner) as pool:
            waiting = deque(shards)
            running: deque[tuple[Shard, PrefectFuture[Result]]] = deque()
            while waiting or running:
                while waiting and len(running) < MOST_IN_FLIGHT:
                    shard = waiting.popleft()
                    named = run_shard.with_options(task_run_name=f"{work.__name__} {shard.name}")
                    running.append((shard, pool.submit(named, {"work": work, "arguments": shard.arguments})))
                shard, future = running.popleft()
                result = future.result()
                advance(shard.steps)
                yield result

    return over


@task(persist_result=False)
def run_shard(work: Work[Result], arguments: tuple[Any, ...]) -> Result:
    """Do a shard's work, whose progress is told by the shard."""
    return work(*arguments, advance=lambda _: None)


def _open(runner: str) -> TaskRunner[Any]:
    extra = "ray" if runner.startswith("ray") else "dask"
    address = None if runner == extra else runner
    try:
        if extra == "ray":
            from prefect_ray import RayTaskRunner as Runner  # noqa: PLC0415 (an extra)
        else:
            from prefect_dask import DaskTaskRunner as Runner  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise ConfigError(
            f"runner {runner!r} needs the extra {extra!r}",
            found=error,
            do=f"pip install 'semacdr[{extra}]', or set runner to local",
        ) from error
    pool: TaskRunner[Any] = Runner(address=address)
    return pool
