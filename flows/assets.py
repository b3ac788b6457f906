"""What a run published, as Prefect assets: one event for each artifact, with what it came from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prefect.events import emit_event

from semacdr.manifest import Manifest
from semacdr.store import Artifact, Store


def materialized(store: Store, artifacts: Iterable[Artifact]) -> None:
    """Tell the server which artifacts have new content, and of which artifacts it was made."""
    for manifest in (artifact.manifest for artifact in artifacts):
        emit_event(
            "prefect.asset.materialization.succeeded",
            resource={
                "prefect.resource.id": asset_key(store, manifest.dataset, manifest.name),
                "prefect.resource.name": f"{manifest.name} of {manifest.dataset}",
            },
            related=[
                {
                    "prefect.resource.id": asset_key(store, manifest.dataset, reference.partition("@")[0]),
                    "prefect.resource.role": "asset",
                }
                for reference in manifest.inputs
            ],
            payload=_facts(manifest),
        )


def asset_key(store: Store, dataset: str, name: str) -> str:
    """Return the URI of an artifact's folder in the store, without its version."""
    uri = store.uri if "://" in store.uri else Path(store.uri).resolve().as_uri()
    return f"{uri}/{dataset}/{name}"


def _facts(manifest: Manifest) -> dict[str, object]:
    return {
        "version": manifest.version,
        "fingerprint": manifest.fingerprint,
        "rows_in": manifest.rows_in,
        "rows_out": manifest.rows_out,
        "dropped": manifest.dropped,
        "metrics": manifest.metrics,
        "seconds": manifest.seconds,
    }
