"""Filling a manifest from a draft, and what to say when its version is taken by something else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import structlog

from semacdr import manifest as manifests
from semacdr import tables
from semacdr.errors import StoreError
from semacdr.manifest import Facts, FileRecord, Manifest
from semacdr.store.artifact import Draft
from semacdr.store.disk import sync_file

log = structlog.get_logger()


def file_records(folder: Path) -> tuple[FileRecord, ...]:
    """Return the record of each file, all of them on the disk for good.

    Raises:
        StoreError: a link is among them.
    """
    records = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise StoreError(
                f"{path} cannot be published", found="a link", expected="plain files", do="copy the file instead"
            )
        sync_file(path)
        if path.is_file():
            relative = path.relative_to(folder).as_posix()
            records.append(FileRecord(path=relative, bytes=path.stat().st_size, sha256=manifests.file_sha256(path)))
    return tuple(records)


def unplaced_manifest(
    draft: Draft, name: str, facts: Facts, rows: dict[str, int], records: tuple[FileRecord, ...], seconds: float
) -> Manifest:
    """Return the manifest of an output, but for its version and time."""
    return Manifest(
        dataset=draft.dataset,
        name=name,
        version="",
        contract_version=tables.CONTRACT_VERSIONS[name],
        stage=draft.stage,
        created_at="",
        fingerprint=draft.fingerprint,
        config=draft.config,
        sources=draft.sources,
        inputs={artifact.reference: artifact.manifest.fingerprint for artifact in draft.inputs.values()},
        rows_in=facts.rows_in,
        rows_out=rows,
        dropped=dict(facts.dropped),
        details=dict(facts.details),
        metrics=_finite(facts.metrics),
        files=records,
        seconds=seconds,
        seed=facts.seed,
        **manifests.environment(),
    )


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Leave out what is no number: JSON has no word for it, and a manifest that holds it cannot be read."""
    found = {name: value for name, value in metrics.items() if math.isfinite(value)}
    if len(found) < len(metrics):
        log.warning("metrics that are no numbers are left out", metrics=sorted(set(metrics) - set(found)))
    return found


def same_or_refused(known: Manifest, wanted: Manifest) -> Manifest:
    """Return the published manifest if it is of the same fingerprint.

    Raises:
        StoreError: it is not; the message shows the fields that differ.
    """
    if known.fingerprint == wanted.fingerprint:
        return known
    changes = manifests.changes(_identity(known), _identity(wanted))
    listed = [f"{field}: {old!r} -> {new!r}" for field, (old, new) in changes.items()]
    raise StoreError(
        f"{known.reference} of {known.dataset!r} is published, made from something else",
        found="\n            ".join(listed) or "the same configuration and inputs, by another revision of the stage",
        expected="the configuration and inputs it was made from",
        do="publish another version, or undo the change",
    )


def _identity(manifest: Manifest) -> dict[str, object]:
    return {"config": manifest.config, "sources": manifest.sources, "inputs": manifest.inputs}
