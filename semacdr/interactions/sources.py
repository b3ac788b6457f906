"""Which raw files a data set names."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import Any

from semacdr.dataset import DatasetConfig, Domain, InteractionSource, ItemSource, Source
from semacdr.errors import ConfigError, close_names
from semacdr.manifest import file_sha256


def raw_files(config: DatasetConfig) -> list[dict[str, Any]]:
    """Return the identity of every raw file: domain, table, file (below the data set's folder), bytes, sha256.

    Raises:
        ConfigError: a pattern matches no file, or a file cannot be read.
    """
    return [
        {"domain": name, "table": table, "file": file, **_identity(config.folder / file)}
        for name, domain in sorted(config.domains.items())
        for table, source in sources(domain)
        for file in matched_files(config, name, source)
    ]


def sources(domain: Domain) -> list[tuple[str, InteractionSource | ItemSource]]:
    """Return the domain's sources with the tables that they fill."""
    found: list[tuple[str, InteractionSource | ItemSource | None]] = [
        ("interactions", domain.interactions),
        ("items", domain.items),
    ]
    return [(table, source) for table, source in found if source is not None]


def matched_files(config: DatasetConfig, domain: str, source: Source) -> list[str]:
    """Return the files of a source, relative to the data set's folder, sorted, each once."""
    files = set[str]()
    for pattern in source.files:
        found = glob.glob(pattern, root_dir=config.folder, recursive=True)  # noqa: PTH207 (takes '..' and absolute paths)
        matched = [path for path in found if (config.folder / path).is_file()]
        if not matched:
            raise _nothing_matches(config, domain, pattern)
        files.update(Path(os.path.relpath(config.folder / path, config.folder)).as_posix() for path in matched)
    return sorted(files)


def _nothing_matches(config: DatasetConfig, domain: str, pattern: str) -> ConfigError:
    folder = (config.folder / pattern).parent
    there = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    near = close_names(Path(pattern).name, there) if there else f"no files in {folder}"
    return ConfigError(
        f"data set {config.name}, domain {domain}: no file matches {pattern!r}",
        found=f"nothing in {config.folder}; {near}",
        expected="at least one file for each pattern",
        do=f"mend files of domains.{domain}, or put the file there",
    )


def _identity(path: Path) -> dict[str, Any]:
    try:
        return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read", found=error, do="mend the file's permissions") from error
