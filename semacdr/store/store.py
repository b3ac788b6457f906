"""Immutable, versioned artifacts in plain folders.

    <store>/<dataset>/<name>/<version>/   the files and, written last, manifest.json
    <store>/<dataset>/<name>/current      JSON: the version that readers get, and those before it
    <store>/responses/                    the LLM's answers, shared by all data sets
    <store>/.staging/                     what is being written; a crash leaves its folder only here
    <store>/catalog.duckdb                views over everything; can always be rebuilt

An artifact appears by one rename of a finished folder, so it is whole or absent, and a version is never overwritten:
renaming onto a folder with files in it fails.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import structlog

from semacdr import manifest as manifests
from semacdr import tables
from semacdr.errors import SemacdrError, StoreError, close_names
from semacdr.manifest import Facts, FileRecord, Manifest

log = structlog.get_logger()

CURRENT = "current"
RESPONSES = "responses"
_STAGING = ".staging"
_LOCK = ".lock"
_PROBE_BYTES = 1 << 20
_DISK_ERRORS = {
    errno.ENOSPC: "the disk is full: free some space and run again; what is published is untouched",
    errno.EDQUOT: "the disk quota is used up: free some space and run again; what is published is untouched",
    errno.EROFS: "the file system is read-only: choose another store with --store or SEMACDR_STORE",
    errno.ENOTDIR: "a part of the path is a file: choose another store with --store or SEMACDR_STORE",
    errno.EEXIST: "a file stands where a folder should: choose another store with --store or SEMACDR_STORE",
    errno.EACCES: "no permission to write there: choose another store with --store, or mend its permissions",
    errno.EPERM: "no permission to write there: choose another store with --store, or mend its permissions",
}


@dataclass(frozen=True)
class Artifact:
    """One published artifact."""

    path: Path
    manifest: Manifest

    @property
    def reference(self) -> str:
        """``name@version``."""
        return self.manifest.reference

    def scan(self, table: str | None = None) -> pl.LazyFrame:
        """Return one of its tables, lazily; None: the table named like the artifact."""
        return pl.scan_parquet(tables.table_files(self.path, table or self.manifest.name), hive_partitioning=False)


@dataclass(kw_only=True)
class Draft:
    """Artifacts of one stage run, being written."""

    dataset: str
    stage: str
    fingerprint: str
    config: dict[str, Any]
    sources: dict[str, Any]
    inputs: Mapping[str, Artifact]
    folders: dict[str, Path] = field(default_factory=dict)
    """Artifact -> the folder to write it into; there while the draft is open."""
    started: float = field(default_factory=time.monotonic)


class Store:
    """A store in a folder of this machine.

    Args:
        root: the folder; made when something is published.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()

    @property
    def catalog(self) -> Path:
        """The DuckDB file with a view for each artifact."""
        return self.root / "catalog.duckdb"

    @property
    def responses(self) -> Path:
        """The folder of the LLM's answers."""
        return self.root / RESPONSES

    def datasets(self) -> list[str]:
        """Return the names of the data sets that have artifacts."""
        return sorted({path.parent.parent.parent.name for path in self._manifest_files()})

    def manifests(self, dataset: str = "*", name: str = "*") -> list[Manifest]:
        """Return the manifests of all versions, oldest first."""
        found = [manifests.read_manifest(path.parent) for path in self._manifest_files(dataset, name)]
        return sorted(found, key=lambda manifest: (manifest.created_at, manifest.reference))

    def get(self, dataset: str, name: str, version: str = CURRENT) -> Artifact:
        """Return an artifact by its version or alias.

        Raises:
            StoreError: there is none.
        """
        known = self._resolve(dataset, name, version)
        if known is None:
            versions = [manifest.version for manifest in self.manifests(dataset, name)]
            raise StoreError(
                f"no {name}@{version} of data set {dataset!r} in {self.root}",
                found=f"versions {', '.join(versions)}" if versions else self._near(dataset, name),
                do=f"run `semacdr run {dataset}`, or name a version that exists (`semacdr artifacts`)",
            )
        return known

    def find(self, dataset: str, name: str, fingerprint: str) -> Artifact | None:
        """Return the artifact with this fingerprint, the current one first; None if there is none."""
        current = self._resolve(dataset, name, CURRENT)
        if current and current.manifest.fingerprint == fingerprint:
            return current
        for known in reversed(self.manifests(dataset, name)):
            if known.fingerprint == fingerprint:
                return Artifact(self._folder(dataset, name) / known.version, known)
        return None

    @contextmanager
    def open_draft(self, draft: Draft, names: Iterable[str]) -> Iterator[Draft]:
        """Give the draft a folder for each of the artifacts, and remove them when the block ends.

        Raises:
            StoreError: the disk is full or read-only, or there is no permission to write.
        """
        with self.disk_errors():
            staging = self.root / _STAGING
            staging.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=f"{draft.stage}-", dir=staging))
            try:
                for name in names:
                    draft.folders[name] = folder / name
                    draft.folders[name].mkdir()
                with self.disk_errors():
                    yield draft
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def publish(self, draft: Draft, facts: Facts) -> dict[str, Artifact]:
        """Check the draft's tables, publish its artifacts and point ``current`` at them.

        Artifacts of the stage that are already published with the draft's fingerprint stay as they are.

        Raises:
            DataError: a table breaks its contract.
            StoreError: the store cannot be written.
        """
        seconds = round(time.monotonic() - draft.started, 3)
        rows = {name: tables.check(name, folder) for name, folder in draft.folders.items()}
        published = {}
        for name, folder in draft.folders.items():
            known = self.find(draft.dataset, name, draft.fingerprint)
            published[name] = known or self._publish_one(draft, name, folder, facts, rows[name], seconds)
        for name, artifact in published.items():
            self.set_alias(draft.dataset, name, CURRENT, artifact.manifest.version)
        return published

    def set_alias(self, dataset: str, name: str, alias: str, version: str) -> bool:
        """Point an alias at a version, atomically, keeping the versions it pointed at before.

        Returns:
            Whether it has moved.
        """
        path = self._folder(dataset, name) / alias
        history = _read_alias(path)
        if history and history[-1]["version"] == version:
            return False
        history.append({"version": version, "moved_at": _now()})
        partial = path.with_name(f".{alias}.{os.getpid()}")
        partial.write_text(json.dumps({"version": version, "history": history}, indent=2) + "\n", encoding="utf-8")
        partial.replace(path)
        return True

    def aliases(self, dataset: str, name: str) -> dict[str, str]:
        """Return alias -> version."""
        folder = self._folder(dataset, name)
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        return {path.name: _read_alias(path)[-1]["version"] for path in files}

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the store's one lock; the system frees it when its process dies."""
        with (self.root / _LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _publish_one(
        self, draft: Draft, name: str, folder: Path, facts: Facts, rows: dict[str, int], seconds: float
    ) -> Artifact:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        records = tuple(
            FileRecord(
                path=str(path.relative_to(folder)), bytes=path.stat().st_size, sha256=manifests.file_sha256(path)
            )
            for path in files
        )
        target = self._folder(draft.dataset, name)
        target.mkdir(parents=True, exist_ok=True)
        day = datetime.now(UTC).strftime("%Y.%m.%d")
        number = 0
        while True:
            version = f"{day}.{number}" if number else day
            number += 1
            if (target / version).exists():
                continue
            manifest = Manifest(
                dataset=draft.dataset,
                name=name,
                version=version,
                contract_version=tables.CONTRACT_VERSION,
                stage=draft.stage,
                created_at=_now(),
                fingerprint=draft.fingerprint,
                config=draft.config,
                sources=draft.sources,
                inputs={artifact.reference: artifact.manifest.fingerprint for artifact in draft.inputs.values()},
                rows_in=facts.rows_in,
                rows_out=rows,
                dropped=dict(facts.dropped),
                details=dict(facts.details),
                metrics=dict(facts.metrics),
                files=records,
                seconds=seconds,
                seed=facts.seed,
                **manifests.environment(),
            )
            manifests.write_manifest(folder, manifest)
            try:
                folder.rename(target / version)
            except OSError as error:
                # Another publisher took this version between the look and the rename.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                continue
            _sync(target)
            return Artifact(target / version, manifest)

    def _folder(self, dataset: str, name: str) -> Path:
        return self.root / dataset / name

    def _manifest_files(self, dataset: str = "*", name: str = "*") -> list[Path]:
        return sorted(
            path
            for path in self.root.glob(f"{dataset}/{name}/*/{manifests.FILE_NAME}")
            if manifests.VERSION_PATTERN.fullmatch(path.parent.name)
        )

    def _resolve(self, dataset: str, name: str, version: str) -> Artifact | None:
        folder = self._folder(dataset, name)
        if not manifests.VERSION_PATTERN.fullmatch(version):
            history = _read_alias(folder / version)
            if not history:
                return None
            version = history[-1]["version"]
        if not (folder / version / manifests.FILE_NAME).is_file():
            return None
        return Artifact(folder / version, manifests.read_manifest(folder / version))

    def _near(self, dataset: str, name: str) -> str:
        datasets = self.datasets()
        if dataset not in datasets:
            return f"no such data set in the store; {close_names(dataset, datasets)}"
        names = {manifest.name for manifest in self.manifests(dataset)}
        return f"no artifact of that name; {close_names(name, names)}"

    @contextmanager
    def disk_errors(self) -> Iterator[None]:
        """Turn errors of the disk into a ``StoreError`` that says what to do."""
        try:
            yield
        except SemacdrError:
            raise
        except Exception as error:
            # Polars, DuckDB, torch and FAISS each have an error of their own for a full disk: ask the disk.
            cause = error if isinstance(error, OSError) else self._probe()
            if cause is None or cause.errno not in _DISK_ERRORS:
                raise
            raise StoreError(
                f"the store {self.root} cannot be written",
                found=cause,
                expected="a folder on a local disk with free space",
                do=_DISK_ERRORS[cause.errno],
            ) from error

    def _probe(self) -> OSError | None:
        """Return what the disk answers to a small write; None if it is well."""
        try:
            with tempfile.TemporaryFile(dir=self.root / _STAGING) as file:
                file.write(bytes(_PROBE_BYTES))
        except OSError as error:
            return error
        return None


def _read_alias(path: Path) -> list[dict[str, str]]:
    """Return the versions an alias has pointed at, the last one now; empty if there is no such alias."""
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["history"])
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path} is no alias", found=error, do="remove the file and run the pipeline again: it points at the newest"
        ) from error


def _sync(folder: Path) -> None:
    """Make a rename in the folder outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
