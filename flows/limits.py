"""Who may work at the same time: one publisher of each artifact of a data set, one user of the GPU.

The store is safe without them, since a version is published by one rename; they spare work and memory. Slots are
leased: those of a run that died are free again after ``LEASE_S``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from semacdr.errors import ConfigError
from semacdr.pipeline import Stage

GPU = "semacdr-gpu"
GPU_STAGES = frozenset({"semantics", "embeddings", "training", "evaluation", "recommendations"})
"""They use a GPU where there is one."""
LEASE_S = 60.0


def publisher(dataset: str) -> str:
    """Return the name of the limit of a data set's publishers."""
    return f"semacdr-publisher-{dataset}"


def create_limit(client: SyncPrefectClient, name: str, limit: int = 1) -> None:
    """Create a limit on the server unless it is there: somebody may have changed it on purpose."""
    try:
        client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        try:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=limit))
        except ObjectAlreadyExists:
            return  # another run was faster


def turn(dataset: str) -> Callable[[Stage], AbstractContextManager[None]]:
    """Return what a stage of this data set enters before it works; it waits while another run holds the slots."""

    @contextmanager
    def enter(stage: Stage) -> Iterator[None]:
        names = [publisher(dataset), *([GPU] if stage.name in GPU_STAGES else [])]
        with get_client(sync_client=True) as client:
            # A data set is often new to the server; the GPU's limit is the set-up's, which may allow several.
            create_limit(client, publisher(dataset))
            _demand(client, names)
        with concurrency(names, lease_duration=LEASE_S, strict=True, raise_on_lease_renewal_failure=False):
            yield

    return enter


def _demand(client: SyncPrefectClient, names: list[str]) -> None:
    for name in names:
        try:
            client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound as error:
            raise ConfigError(
                f"the Prefect server has no concurrency limit {name!r}",
                expected="a global concurrency limit of that name",
                do="run `make deploy`, which creates it",
            ) from error
