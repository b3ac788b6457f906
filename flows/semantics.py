"""``semantics/generate``: both views for the items that lack them, and what the audit says of them."""

from __future__ import annotations

from prefect import flow

from flows.parameters import Dataset, StoreUri, Until
from flows.stages import run_stages
from semacdr import __version__


@flow(name="semantics", flow_run_name="semantics of {dataset}", version=__version__)
def generate(dataset: Dataset, store: StoreUri = None, until: Until = None, *, refresh: bool = True) -> dict[str, str]:
    """Spend one budget of the data set on items without LLM text, and publish the table.

    Args:
        dataset: name of a data set, or the path of its TOML; it must be ingested.
        store: a folder or s3://bucket/prefix; empty: the store of the worker's settings.
        until: run as of this day (UTC), in a data set of its own: later events are left out, and items that nobody
            had used by then.
        refresh: ask the LLM for more although nothing has changed.
    """
    return run_stages(["semantics"], dataset, store, until, refresh={"semantics"} if refresh else ())
