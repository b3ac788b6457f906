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
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from semacdr.errors import StoreError

FILE_NAME = "manifest.json"
LAYOUT_VERSION = 1
"""Of the store's folders and manifests; a reader refuses a newer one."""
VERSION_PATTERN = re.compile(r"\d{4}\.\d{2}\.\d{2}(\.\d+)?")
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
    bytes: int
    sha256: str


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

    @property
    def reference(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"


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


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest so that it is either whole on disk or absent."""
    partial = folder / f"{FILE_NAME}.partial"
    with partial.open("w", encoding="utf-8") as file:
        file.write(manifest.model_dump_json(indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / FILE_NAME)


def read_manifest(folder: Path) -> Manifest:
    """Read an artifact's manifest.

    Raises:
        StoreError: it is no manifest, or of a newer layout.
    """
    path = folder / FILE_NAME
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        newer = raw.get("layout_version", 0) > LAYOUT_VERSION
        manifest = None if newer else Manifest.model_validate(raw)
    except (OSError, ValueError, AttributeError, ValidationError) as error:
        raise StoreError(
            f"{path} is no manifest", found=error, do="restore the file, or remove the version's folder and run again"
        ) from error
    if manifest is None:
        raise StoreError(
            f"{path} was written by a newer SemaCDR",
            found=f"layout {raw['layout_version']}",
            expected=f"at most {LAYOUT_VERSION}",
            do="upgrade this installation",
        )
    return manifest


def environment() -> dict[str, Any]:
    """Return what a manifest keeps of where it was made: commit, library versions, hardware."""
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    hardware = f"{platform.machine()}, {os.cpu_count()} cores"
    return {"code_commit": _commit(), "libraries": versions, "hardware": hardware}


def _commit() -> str | None:
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        run = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return run.stdout.strip() or None
