"""Aliases: names that point at a version, and move.

Each is one JSON document with the version it points at and all its moves, replaced as a whole.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import structlog

from semacdr.errors import StoreError
from semacdr.store.backends.base import MAX_RACES, Backend, Stored, endless_race
from semacdr.store.names import is_version

log = structlog.get_logger()


@dataclass(frozen=True)
class Move:
    """One move of an alias."""

    version: str
    moved_at: str
    """ISO 8601, UTC."""
    reason: str = ""


class Aliases:
    """The aliases of a store.

    Callers have checked the names and, to move one, hold the lock.

    Args:
        backend: the place where the store lies.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def history(self, dataset: str, name: str, alias: str) -> list[Move]:
        """Return the moves of an alias, the last one now; empty if there is no such alias.

        Raises:
            StoreError: what lies there is no alias.
        """
        key = _key(dataset, name, alias)
        return _parse(self._backend.read(key), key)

    def histories(self, dataset: str, name: str) -> dict[str, list[Move]]:
        """Return alias -> its moves; a file that is no alias is left out with a warning."""
        found = {}
        for alias in self._backend.aliases(dataset, name):
            try:
                history = self.history(dataset, name, alias)
            except StoreError as error:
                log.warning("a broken alias is left out", dataset=dataset, artifact=name, error=str(error))
                continue
            if history:
                found[alias] = history
        return found

    def at(self, dataset: str, name: str, version: str) -> list[str]:
        """Return the aliases that point at a version.

        Raises:
            StoreError: one of the artifact's aliases is broken, so that nobody knows where it points.
        """
        known = {alias: self.history(dataset, name, alias) for alias in self._backend.aliases(dataset, name)}
        return [alias for alias, history in known.items() if history and history[-1].version == version]

    def move(self, dataset: str, name: str, alias: str, version: str, *, expected: str | None, reason: str) -> bool:
        """Point an alias at a version; return whether it has moved, for it may point there already.

        Raises:
            StoreError: it does not point where it is expected to.
        """
        key = _key(dataset, name, alias)
        for _ in range(MAX_RACES):
            stored = self._backend.read(key)
            history = _parse(stored, key)
            now_at = history[-1].version if history else None
            if expected is not None and now_at != expected:
                raise StoreError(
                    f"alias {alias!r} of {name} was moved by someone else; it stays where it is",
                    found=now_at or "no such alias",
                    expected=expected,
                    do="look at what it points at now, and decide again",
                )
            if now_at == version:
                return False
            if self._backend.write(key, _moved(history, version, reason), stored.tag if stored else None):
                return True
        raise endless_race(f"{self._backend.uri}/{key}")


def _key(dataset: str, name: str, alias: str) -> str:
    return f"{dataset}/{name}/{alias}"


def _parse(stored: Stored | None, key: str) -> list[Move]:
    """Return the moves, oldest first; empty if there is no such alias.

    Raises:
        StoreError: it is no alias, or leads to what is no version.
    """
    if stored is None:
        return []
    try:
        moves = json.loads(stored.data)["history"]
        history = [Move(move["version"], move["moved_at"], move.get("reason", "")) for move in moves]
        for move in history:
            datetime.fromisoformat(move.moved_at)
        faults = [move.version for move in history if not is_version(move.version)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _broken(key, error) from error
    if faults or not history:
        raise _broken(key, f"a move to {faults[0]!a}" if faults else "no moves")
    return history


def _moved(history: list[Move], version: str, reason: str) -> bytes:
    """Return the document of the alias after it has moved, at a time after its last move."""
    now = datetime.now(UTC)
    if history:
        now = max(now, datetime.fromisoformat(history[-1].moved_at) + timedelta(milliseconds=1))
    moves = [*history, Move(version, now.isoformat(timespec="milliseconds"), reason)]
    rows = [{name: value for name, value in asdict(move).items() if value} for move in moves]
    return (json.dumps({"version": version, "history": rows}, indent=2) + "\n").encode()


def _broken(key: str, found: object) -> StoreError:
    return StoreError(
        f"{key} is no alias", found=found, do="remove the file and run the pipeline again: it points at the newest"
    )
