"""What differs between two artifacts, field by field, from their manifests alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from semacdr.manifest import Manifest, changes


@dataclass(frozen=True)
class Difference:
    """One field that differs."""

    section: str
    """config, inputs, sources, counts, dropped, files, metrics, details, or made by."""
    field: str
    before: object
    """None: it is absent there, or null."""
    after: object

    @property
    def step(self) -> int | float | None:
        """How much more a number is; None if the field holds something else."""
        before, after = self.before, self.after
        if isinstance(before, bool) or isinstance(after, bool):
            return None
        if not isinstance(before, int | float) or not isinstance(after, int | float):
            return None
        return after - before


def compare(before: Manifest, after: Manifest) -> list[Difference]:
    """Return what differs, section by section, fields in order."""
    left, right = _sections(before, after), _sections(after, before)
    return [
        Difference(section, field, old, new)
        for section in left
        for field, (old, new) in changes(left[section], right[section]).items()
    ]


def _sections(manifest: Manifest, other: Manifest) -> dict[str, Mapping[str, object]]:
    return {
        "config": manifest.config,
        "inputs": _inputs(manifest, other),
        "sources": {name: _by_file(value) for name, value in manifest.sources.items()},
        "counts": {"rows_in": manifest.rows_in, "rows_out": manifest.rows_out},
        "dropped": manifest.dropped,
        "files": {file.path: {"bytes": file.bytes, "sha256": file.sha256} for file in manifest.files},
        "metrics": manifest.metrics,
        "details": manifest.details,
        "made by": {
            "stage": manifest.stage,
            "contract_version": manifest.contract_version,
            "seed": manifest.seed,
            "code_commit": manifest.code_commit,
            "hardware": manifest.hardware,
            "libraries": manifest.libraries,
        },
    }


def _inputs(manifest: Manifest, other: Manifest) -> dict[str, str]:
    """Return name -> version, with the fingerprint where one version stands for two contents."""
    found = {}
    for reference, digest in manifest.inputs.items():
        name, _, version = reference.partition("@")
        same = other.inputs.get(reference, digest) == digest
        found[name] = version if same else f"{version} of fingerprint {digest}"
    return found


def _by_file(value: object) -> object:
    """Key records of files by their paths: one file more at the front is then one difference."""
    if isinstance(value, list) and value and all(isinstance(record, Mapping) and "file" in record for record in value):
        return {str(record["file"]): record for record in value}
    return value
