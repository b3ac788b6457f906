"""``ingest/load``: raw logs to interactions, items and rejects."""

from __future__ import annotations

from prefect import flow

from flows.parameters import Dataset, StoreUri, Until
from flows.stages import run_stages
from semacdr import __version__


@flow(name="ingest", flow_run_name="ingest {dataset}", version=__version__)
def load(dataset: Dataset, store: StoreUri = None, until: Until = None) -> dict[str, str]:
    """Read a data set's raw logs into the store.

    Args:
        dataset: name of a data set, or the path of its TOML.
        store: a folder or s3://bucket/prefix; empty: the store of the worker's settings.
        until: run as of this day (UTC), in a data set of its own: later events are left out, and items that nobody
            had used by then.
    """
    return run_stages(["ingest"], dataset, store, until)
