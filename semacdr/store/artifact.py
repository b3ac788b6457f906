"""An artifact that is published, and a draft of one that is being written."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from semacdr.manifest import Manifest
from semacdr.tables import scan_files


@dataclass(frozen=True)
class Artifact:
    """One published artifact."""

    manifest: Manifest
    fetch: Callable[[], Path] = field(repr=False, compare=False)
    """Brings the files to this machine, if they are not there."""

    @cached_property
    def path(self) -> Path:
        """A folder of this machine that holds the files; from a bucket they are brought at the first use.

        Raises:
            StoreError: a file is missing or has other bytes than the manifest says.
            TransientError: the bucket cannot be reached.
        """
        return self.fetch()

    @property
    def reference(self) -> str:
        """``name@version``."""
        return self.manifest.reference

    def scan(self, table: str | None = None) -> pl.LazyFrame:
        """Return one of its tables, lazily.

        Args:
            table: which; None: the one named like the artifact.
        """
        return scan_files(self.files(table))

    def files(self, table: str | None = None) -> list[Path]:
        """Return the Parquet files of one of its tables: those that were published and no others."""
        return [self.path / record.path for record in self.manifest.table_files(table or self.manifest.name)]


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
