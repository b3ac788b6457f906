"""What may be a name in the store. Every name is checked here, so that none can lead out of it.

Lower-case ASCII only: what looks alike is the same, on every file system and in every bucket.
"""

from __future__ import annotations

import re
from datetime import date
from typing import NamedTuple

from semacdr.errors import ConfigError
from semacdr.manifest import VERSION_PATTERN

RESPONSES = "responses"
VECTORS = "vectors"
CATALOG = "catalog.duckdb"
MARKER = "store.json"
RESERVED = frozenset({RESPONSES, VECTORS, CATALOG, f"{CATALOG}.wal", MARKER})
"""Names in the store's root that no data set may have."""

_DATASET = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_ARTIFACT = re.compile(r"[a-z][a-z0-9_]{0,62}")
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,62}")


class Place(NamedTuple):
    """Where a version lies."""

    dataset: str
    name: str
    version: str

    @property
    def key(self) -> str:
        """The path of its folder below the store's root."""
        return f"{self.dataset}/{self.name}/{self.version}"

    @property
    def reference(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"


def is_dataset(name: str) -> bool:
    """Whether a data set may be called that."""
    return _DATASET.fullmatch(name) is not None and name not in RESERVED


def is_artifact(name: str) -> bool:
    """Whether an artifact may be called that."""
    return _ARTIFACT.fullmatch(name) is not None


def is_alias(name: str) -> bool:
    """Whether an alias may be called that; never true of what is a version."""
    return _ALIAS.fullmatch(name) is not None


def is_version(version: str) -> bool:
    """Whether it is a version as the store makes them: a day, and a number from 1 if it is not the day's first."""
    if not VERSION_PATTERN.fullmatch(version):
        return False
    try:
        date(*version_key(version)[:3])
    except ValueError:
        return False
    return True


def version_key(version: str) -> tuple[int, int, int, int]:
    """Return what versions are ordered by; as text, ``.10`` would come before ``.2``."""
    year, month, day, *number = (int(part) for part in version.split("."))
    return year, month, day, number[0] if number else 0


def next_version(today: date, taken: set[str]) -> str:
    """Return the version after all that are or were taken; never of an earlier day, though the clock went back."""
    first = today.strftime("%Y.%m.%d")
    newest = max(map(version_key, taken), default=None)
    if newest is None or newest < version_key(first):
        return first
    year, month, day, number = newest
    return f"{year:04}.{month:02}.{day:02}.{number + 1}"


def check_artifact(dataset: str, name: str) -> None:
    """Refuse names that a data set or an artifact cannot have.

    Raises:
        ConfigError: it says which, and what is allowed.
    """
    if dataset in RESERVED:
        raise ConfigError(
            f"a data set cannot be called {dataset!r}", found="a name that the store uses itself", do="choose another"
        )
    if not is_dataset(dataset):
        raise _refusal("data set", dataset, "up to 63 of a-z, 0-9, '_', '-' and '.', the first a letter or digit")
    if not is_artifact(name):
        raise _refusal("artifact", name, "up to 63 of a-z, 0-9 and '_', the first a letter")


def check_alias(alias: str) -> None:
    """Refuse names that an alias cannot have.

    Raises:
        ConfigError: it says what is allowed.
    """
    if not is_alias(alias):
        raise _refusal("alias", alias, "up to 63 of a-z, 0-9, '_' and '-', the first a letter")


def check_version(version: str) -> None:
    """Refuse what is no version.

    Raises:
        ConfigError: it says what is allowed.
    """
    if not is_version(version):
        raise _refusal("version", version, "YYYY.MM.DD, or YYYY.MM.DD.n with n from 1")


def _refusal(what: str, name: str, expected: str) -> ConfigError:
    # ascii(): a name with a control character or a look-alike letter must show it.
    return ConfigError(
        f"no {what} can be called that",
        found=ascii(name)[:100],
        expected=expected,
        do="mend the name",
    )
