"""``embeddings/index``: vectors, whitening and the FAISS index."""

from __future__ import annotations

from prefect import flow

from flows.stages import run_stage


@flow(name="embeddings", flow_run_name="embeddings of {dataset}")
def index(dataset: str, store: str | None = None) -> dict[str, str]:
    """Embed the semantics and index the vectors.

    The sequences come first: whitening is fitted on the items that training may see.

    Args:
        dataset: name or path of the data set's TOML; it must be ingested and have semantics.
        store: folder of the store; None: as in the settings.
    """
    versions = run_stage("sequences", dataset, store)
    versions |= run_stage("embeddings", dataset, store)
    return versions | run_stage("index", dataset, store)
