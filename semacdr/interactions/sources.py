"""Which raw files a data set names."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from functools import lru_cache
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
        for name, table, file in _files(config)
    ]


def check_raw_files(config: DatasetConfig) -> None:
    """Look whether every raw file is there and can be read, without reading it.

    Raises:
        ConfigError: as ``raw_files``.
    """
    for _, _, file in _files(config):
        try:
            with (config.folder / file).open("rb"):
                pass
        except OSError as error:
            raise _unreadable(config.folder / file, error) from error


def same_raw_files(one: DatasetConfig, other: DatasetConfig) -> bool:
    """Tell whether two data sets name files of the same domains, tables and sizes, wherever they lie.

    Raises:
        ConfigError: a pattern matches no file.
    """
    first, second = (
        sorted((domain, table, (config.folder / file).stat().st_size) for domain, table, file in _files(config))
        for config in (one, other)
    )
    return first == second


def _files(config: DatasetConfig) -> Iterator[tuple[str, str, str]]:
    """Yield domain, table and file of every raw file."""
    for name, domain in sorted(config.domains.items()):
        for table, source in sources(domain):
            for file in matched_files(config, name, source):
                yield name, table, file


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
            raise _nothing_matches(config, domain, pattern, [path for path in found if (config.folder / path).is_dir()])
        files.update(Path(os.path.relpath(config.folder / path, config.folder)).as_posix() for path in matched)
    return sorted(files)


def _nothing_matches(config: DatasetConfig, domain: str, pattern: str, folders: list[str]) -> ConfigError:
    if folders:
        return ConfigError(
            f"data set {config.name}, domain {domain}: {pattern!r} is a folder",
            found=folders[0],
            expected="files",
            do=f"say which of its files: '{folders[0]}/*.parquet', '{folders[0]}/*.jsonl.gz'",
        )
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
        stat = path.stat()
        return {"bytes": stat.st_size, "sha256": _sha256(path, stat.st_size, stat.st_mtime_ns)}
    except OSError as error:
        raise _unreadable(path, error) from error


@lru_cache(maxsize=4_096)
def _sha256(path: Path, size: int, time_ns: int) -> str:  # noqa: ARG001 (a file of another size or time is another)
    """Read a file once in a process, however often it is asked for."""
    return file_sha256(path)


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{path} cannot be read", found=error, do="mend the file's permissions")
