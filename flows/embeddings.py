"""``embeddings/index``: vectors, whitening and the FAISS index."""

from __future__ import annotations

from prefect import flow

from flows.parameters import Dataset, StoreUri, Until
from flows.stages import run_stages
from semacdr import __version__


@flow(name="embeddings", flow_run_name="embeddings of {dataset}", version=__version__)
def index(dataset: Dataset, store: StoreUri = None, until: Until = None) -> dict[str, str]:
    """Embed the semantics and index the vectors.

    The sequences come first: whitening is fitted on the items that training may see.

    Args:
        dataset: name of a data set, or the path of its TOML; it must be ingested and have semantics.
        store: a folder or s3://bucket/prefix; empty: the store of the worker's settings.
        until: run as of this day (UTC), in a data set of its own: later events are left out, and items that nobody
            had used by then.
    """
    return run_stages(["sequences", "embeddings", "index"], dataset, store, until)
