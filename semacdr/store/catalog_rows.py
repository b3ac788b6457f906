"""The rows of the catalog's tables, from manifests and alias histories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import Any

import pyarrow as pa

from semacdr.manifest import Manifest, canonical_json
from semacdr.store.aliases import Move

Histories = Mapping[tuple[str, str], Mapping[str, Sequence[Move]]]
"""Data set and name -> alias -> its moves, the last one now."""
_TEXTS = pa.list_(pa.string())
_TIME = pa.timestamp("ms", tz="UTC")


def artifact_rows(
    known: list[Manifest],
    histories: Histories,
    left_out: Mapping[tuple[str, str], str],
    root: str,
) -> pa.Table:
    """Return one row per version."""
    at: dict[tuple[str, str, str], list[str]] = {}
    for (dataset, name), aliases in histories.items():
        for alias, moves in aliases.items():
            at.setdefault((dataset, name, moves[-1].version), []).append(alias)
    columns: dict[str, tuple[pa.DataType, list[Any]]] = {
        "dataset": (pa.string(), [m.dataset for m in known]),
        "name": (pa.string(), [m.name for m in known]),
        "version": (pa.string(), [m.version for m in known]),
        "aliases": (_TEXTS, [sorted(at.get((m.dataset, m.name, m.version), ())) for m in known]),
        "stage": (pa.string(), [m.stage for m in known]),
        "created_at": (_TIME, [_time(m.created_at) for m in known]),
        "rows_in": (pa.int64(), [m.rows_in for m in known]),
        "rows_out": (pa.int64(), [sum(m.rows_out.values()) for m in known]),
        "dropped": (pa.int64(), [sum(m.dropped.values()) for m in known]),
        "dropped_by_reason": (pa.string(), [canonical_json(m.dropped) for m in known]),
        "bytes": (pa.int64(), [sum(file.bytes for file in m.files) for m in known]),
        "seconds": (pa.float64(), [m.seconds for m in known]),
        "ndcg_10": (pa.float64(), [m.metrics.get("ndcg_10") for m in known]),
        "hr_10": (pa.float64(), [m.metrics.get("hr_10") for m in known]),
        "metrics": (pa.string(), [canonical_json(m.metrics) for m in known]),
        "inputs": (_TEXTS, [list(m.inputs) for m in known]),
        "config": (pa.string(), [canonical_json(m.config) for m in known]),
        "details": (pa.string(), [canonical_json(m.details) for m in known]),
        "fingerprint": (pa.string(), [m.fingerprint for m in known]),
        "contract_version": (pa.int64(), [m.contract_version for m in known]),
        "code_commit": (pa.string(), [m.code_commit for m in known]),
        "seed": (pa.int64(), [m.seed for m in known]),
        "path": (pa.string(), [f"{root}/{m.dataset}/{m.name}/{m.version}" for m in known]),
        "left_out": (pa.string(), [left_out.get((m.dataset, m.reference)) for m in known]),
    }
    return _table(columns)


def file_rows(known: list[Manifest]) -> pa.Table:
    """Return one row per file of a version."""
    rows = [(m, file) for m in known for file in m.files]
    return _table(
        {
            "dataset": (pa.string(), [m.dataset for m, _ in rows]),
            "name": (pa.string(), [m.name for m, _ in rows]),
            "version": (pa.string(), [m.version for m, _ in rows]),
            "path": (pa.string(), [file.path for _, file in rows]),
            "bytes": (pa.int64(), [file.bytes for _, file in rows]),
            "sha256": (pa.string(), [file.sha256 for _, file in rows]),
        }
    )


def lineage_rows(known: list[Manifest]) -> pa.Table:
    """Return one row per input of a version."""
    rows = [(m, reference, digest) for m in known for reference, digest in m.inputs.items()]
    return _table(
        {
            "dataset": (pa.string(), [m.dataset for m, _, _ in rows]),
            "artifact": (pa.string(), [m.reference for m, _, _ in rows]),
            "input": (pa.string(), [reference for _, reference, _ in rows]),
            "input_fingerprint": (pa.string(), [digest for _, _, digest in rows]),
        }
    )


def alias_rows(histories: Histories) -> pa.Table:
    """Return one row per move of an alias: which version it pointed at, from when until when, and why."""
    rows = [
        (dataset, name, alias, move, following)
        for (dataset, name), aliases in histories.items()
        for alias, moves in aliases.items()
        for move, following in zip_longest(moves, moves[1:])
    ]
    return _table(
        {
            "dataset": (pa.string(), [dataset for dataset, _, _, _, _ in rows]),
            "name": (pa.string(), [name for _, name, _, _, _ in rows]),
            "alias": (pa.string(), [alias for _, _, alias, _, _ in rows]),
            "version": (pa.string(), [move.version for _, _, _, move, _ in rows]),
            "moved_at": (_TIME, [_time(move.moved_at) for _, _, _, move, _ in rows]),
            "moved_on_at": (_TIME, [_time(following.moved_at) if following else None for *_, following in rows]),
            "reason": (pa.string(), [move.reason or None for _, _, _, move, _ in rows]),
            "is_now": (pa.bool_(), [following is None for *_, following in rows]),
        }
    )


def _table(columns: Mapping[str, tuple[pa.DataType, list[Any]]]) -> pa.Table:
    return pa.table({name: pa.array(values, dtype) for name, (dtype, values) in columns.items()})


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
