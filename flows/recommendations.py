"""``recommendations/publish``: recommendations and vectors, the gate before production, and the report."""

from __future__ import annotations

from prefect import flow

from flows.parameters import Dataset, StoreUri, Until
from flows.stages import run_stages
from semacdr import __version__


@flow(name="recommendations", flow_run_name="recommendations for {dataset}", version=__version__)
def publish(dataset: Dataset, store: StoreUri = None, until: Until = None) -> dict[str, str]:
    """Rank the items of every domain for every user with the current checkpoint; what passes goes into production.

    Args:
        dataset: name of a data set, or the path of its TOML; it must have an evaluated checkpoint.
        store: a folder or s3://bucket/prefix; empty: the store of the worker's settings.
        until: run as of this day (UTC), in a data set of its own: later events are left out, and items that nobody
            had used by then.
    """
    return run_stages(["recommendations", "gate", "report"], dataset, store, until)
