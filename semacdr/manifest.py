"""The manifest: what an artifact is, what made it, and from what.

Written last, so a folder without one does not exist.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from semacdr.errors import StoreError

FILE_NAME = "manifest.json"
LAYOUT_VERSION = 1
"""Of the store's folders and manifests; a reader refuses a newer one."""
VERSION_PATTERN = re.compile(r"[0-9]{4}\.[0-9]{2}\.[0-9]{2}(\.[1-9][0-9]*)?")
_REDO = "restore the file, or remove the version's folder and run again"
LIBRARIES = ("semacdr", "duckdb", "polars", "pyarrow", "torch", "faiss-cpu", "faiss-gpu", "sentence-transformers")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a stage says of its own run; counts of rows out and file hashes are taken by the store."""

    rows_in: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Rows that were left out, by reason."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What the next stage needs to know, or a person wants to: JSON values only."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Figures of merit, such as ``ndcg_10``; shown as columns of the catalog's ``artifacts``."""
    seed: int | None = None


class FileRecord(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    """Below the artifact's folder, with ``/``."""
    bytes: int
    sha256: str

    @field_validator("path")
    @classmethod
    def _stays_in_the_folder(cls, path: str) -> str:
        parts = path.split("/")
        if not path.isprintable() or "\\" in path or not all(parts) or {".", ".."} & set(parts):
            raise ValueError(f"a file cannot be called {path!a}")
        return path


class Manifest(BaseModel):
    """The record of one published artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layout_version: int = LAYOUT_VERSION
    dataset: str
    name: str
    version: str
    contract_version: int
    stage: str
    created_at: str
    """ISO 8601, UTC."""
    fingerprint: str
    """sha256 of config, inputs' fingerprints and whatever outside the store shaped the content."""
    config: dict[str, Any]
    sources: dict[str, Any] = {}
    """What lies outside the store: raw files with their hashes, the answers of an LLM."""
    inputs: dict[str, str]
    """``name@version`` -> fingerprint."""
    rows_in: int
    rows_out: dict[str, int]
    dropped: dict[str, int]
    details: dict[str, Any] = {}
    metrics: dict[str, float] = {}
    files: tuple[FileRecord, ...]
    seconds: float
    seed: int | None = None
    code_commit: str | None = None
    libraries: dict[str, str] = {}
    hardware: str = ""
    seal: str = ""
    """sha256 of the manifest's own bytes with this value empty: an edit by hand or a flipped bit shows."""

    @property
    def reference(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"

    def table_files(self, table: str) -> list[FileRecord]:
        """Return the Parquet files of one of its tables as they were published: one put there later is not among them.

        A table is one file of its name, or all those below a folder of its name.
        """
        return [
            file
            for file in self.files
            if file.path == f"{table}.parquet" or (file.path.startswith(f"{table}/") and file.path.endswith(".parquet"))
        ]


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces.

    Raises:
        TypeError: the value has no form that is the same in every process.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(value: object) -> str:
    """Return the sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest_bytes(manifest: Manifest) -> bytes:
    """Return the manifest as it is stored: sealed."""
    unsealed = manifest.model_copy(update={"seal": ""}).model_dump_json(indent=2) + "\n"
    seal = hashlib.sha256(unsealed.encode()).hexdigest()
    return _with_seal(unsealed, "", seal).encode()


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Return the manifest that was read at ``where``.

    Raises:
        StoreError: it is no manifest, of a newer layout, or not as it was written.
    """
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        layout = _layout(data)
        if layout > LAYOUT_VERSION:
            raise StoreError(
                f"{where} was written by a newer SemaCDR",
                found=f"layout {layout}",
                expected=f"at most {LAYOUT_VERSION}",
                do="upgrade this installation",
            ) from error
        raise StoreError(f"{where} is no manifest", found=error, do=_REDO) from error
    unsealed = _with_seal(data.decode(), manifest.seal, "")
    if not manifest.seal or hashlib.sha256(unsealed.encode()).hexdigest() != manifest.seal:
        raise StoreError(
            f"{where} is not as it was written",
            found=f"seal {manifest.seal[:16] or 'missing'}",
            expected="the sha256 of its other bytes",
            do=_REDO,
        )
    return manifest


def _with_seal(text: str, old: str, new: str) -> str:
    head, _, tail = text.rpartition(f'"seal": "{old}"')
    return f'{head}"seal": "{new}"{tail}'


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest so that it is either whole on disk or absent."""
    partial = folder / f"{FILE_NAME}.partial"
    with partial.open("wb") as file:
        file.write(manifest_bytes(manifest))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / FILE_NAME)


def _layout(data: bytes) -> int:
    try:
        return int(json.loads(data)["layout_version"])
    except (ValueError, KeyError, TypeError):
        return 0


def changes(before: object, after: object, field: str = "") -> dict[str, tuple[object, object]]:
    """Return the fields that differ between two JSON values, by dotted path: the old value and the new one.

    A field that one of them lacks is None there.
    """
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        found: dict[str, tuple[object, object]] = {}
        for name in sorted({*before, *after}):
            found |= changes(before.get(name), after.get(name), f"{field}.{name}" if field else str(name))
        return found
    return {} if before == after else {field: (before, after)}


def environment() -> dict[str, Any]:
    """Return what a manifest keeps of where it was made: commit, library versions, hardware."""
    hardware = f"{platform.machine()}, {os.cpu_count()} cores"
    return {"code_commit": _commit(), "libraries": dict(_libraries()), "hardware": hardware}


@cache
def _libraries() -> tuple[tuple[str, str], ...]:
    versions = []
    for library in LIBRARIES:
        try:
            versions.append((library, metadata.version(library)))
        except metadata.PackageNotFoundError:
            continue
    return tuple(versions)


@cache
def _commit() -> str | None:
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        run = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return run.stdout.strip() or None
