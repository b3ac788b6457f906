"""Small artifacts of many kinds for tests: frames that keep their contracts, manifests, a store with all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from semacdr.manifest import Facts, Manifest, fingerprint
from semacdr.store import Artifact, Draft, Store

INTERACTIONS = pl.DataFrame(
    {
        "user_id": ["u", "v", "u"], "domain": ["a", "a", "b"], "item_id": ["i", "j", "k"],
        "timestamp_s": [2, 2, 1], "rating": [None, 4.5, 1.0],
    }
)  # fmt: skip
EVENT_TIMES = {second: datetime(1970, 1, 1, 0, 0, second, tzinfo=UTC) for second in (1, 2)}
ITEMS = pl.DataFrame(
    {
        "domain": ["a", "a", "b", "b"], "item_id": ["i", "j", "i", "k"], "title": ["A i", "A j", "B i", None],
        "text": ["x", "x", "x", None], "has_metadata": [True] * 4, "has_text": [True, True, True, False],
    }
).select(
    "domain", "item_id", "title", *(pl.lit(None, pl.String).alias(n) for n in ("brand", "categories", "description")),
    pl.lit(None, pl.Float64).alias("price"), "text", pl.lit(None, pl.String).alias("text_hash"), "has_metadata",
    "has_text",
)  # fmt: skip
RECOMMENDATIONS = pl.DataFrame(
    {
        "user_id": ["u", "u", "u", "v"], "domain": ["a", "a", "b", "a"], "rank": [1, 2, 1, 1],
        "item_id": ["j", "i", "k", "i"], "score": [0.9, 0.1, 0.5, 0.4],
        "trained_score": [0.8, 0.2, 0.6, 0.3], "reason": ["r1", "r2", "r3", "r4"], "decided_by": ["trained"] * 4,
        "history": ["target", "target", "source", None], "view": ["agnostic", "id", "id", None],
        "nearest": [[{"domain": "a", "item_id": "i", "similarity": 0.5}]] * 3 + [[]], "as_of_s": [9] * 4,
    }
)  # fmt: skip
GATE_CHECKS = pl.DataFrame(
    {
        "artifact": ["index"], "check": ["recall_10"], "domain": ["a/specific"], "candidate": ["1"],
        "production": pl.Series([None], dtype=pl.String), "value": [0.9],
        "production_value": pl.Series([None], dtype=pl.Float64), "bound": [0.98], "passed": [False],
        "reason": ["recall fell"],
    }
)  # fmt: skip


def embeddings(vectors: Mapping[tuple[str, str, str], Sequence[float]]) -> pl.DataFrame:
    """Return a table of embeddings from (domain, item, view) -> vector."""
    keys = sorted(vectors)
    values = np.array([vectors[key] for key in keys], dtype=np.float32)
    frame = pl.DataFrame(keys, schema=["domain", "item_id", "view"], orient="row")
    return frame.with_columns(
        pl.Series("vector", values, dtype=pl.Array(pl.Float32, values.shape[1])),
        encoder=pl.lit("e"),
        whitening=pl.lit("w"),
    )


VECTORS = embeddings(
    {
        ("a", "i", "agnostic"): (1, 0), ("a", "i", "specific"): (0, 1), ("a", "j", "agnostic"): (0.6, 0.8),
        ("b", "i", "agnostic"): (0, 1), ("b", "k", "agnostic"): (1, 0),
    }
)  # fmt: skip


def put(store: Store, name: str, frame: pl.DataFrame, *, key: object = 1, **given: Any) -> Artifact:  # noqa: ANN401
    """Publish an artifact of one table; ``inputs`` are artifacts, ``details`` and ``metrics`` go into its manifest."""
    inputs: Sequence[Artifact] = given.get("inputs", ())
    draft = Draft(
        dataset=given.get("dataset", "toy"),
        stage=given.get("stage", name),
        fingerprint=fingerprint([name, key]),
        config={"key": key},
        sources={},
        inputs={artifact.manifest.name: artifact for artifact in inputs},
    )
    with store.open_draft(draft, [name]):
        frame.write_parquet(draft.folders[name] / f"{given.get('table', name)}.parquet")
        facts = Facts(rows_in=3, details=given.get("details", {}), metrics=given.get("metrics", {}))
        return store.publish(draft, facts)[name]


def put_all(store: Store, dataset: str = "toy") -> dict[str, Artifact]:
    """Publish interactions, items, and from them embeddings and recommendations."""
    events = put(store, "interactions", INTERACTIONS.sort("domain", "user_id"), dataset=dataset)
    items = put(store, "items", ITEMS, dataset=dataset)
    vectors = put(store, "embeddings", VECTORS, dataset=dataset, inputs=[events, items])
    ranked = put(store, "recommendations", RECOMMENDATIONS, dataset=dataset, inputs=[vectors, events])
    return {artifact.manifest.name: artifact for artifact in (events, items, vectors, ranked)}


def manifest(reference: str, inputs: Mapping[str, str] | Sequence[str] = (), **given: Any) -> Manifest:  # noqa: ANN401
    """Return a manifest of no store; an input's fingerprint is its reference unless it is given."""
    name, version = reference.split("@")
    year, month, day = (int(part) for part in version.split(".")[:3])
    fields: dict[str, Any] = {
        "dataset": "toy", "name": name, "version": version, "contract_version": 1, "stage": name,
        "created_at": f"{year:04}-{month:02}-{day:02}T00:00:00.000+00:00", "fingerprint": reference, "config": {},
        "inputs": dict(inputs) if isinstance(inputs, Mapping) else {source: source for source in inputs},
        "rows_in": 0, "rows_out": {}, "dropped": {}, "files": (), "seconds": 0.0,
    }  # fmt: skip
    return Manifest(**{**fields, **given})
