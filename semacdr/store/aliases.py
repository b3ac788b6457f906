"""The document of an alias: the version it points at, and all moves before, the last one now."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from semacdr.errors import StoreError
from semacdr.store.backends import Stored
from semacdr.store.names import is_version


@dataclass(frozen=True)
class Move:
    """One move of an alias."""

    version: str
    moved_at: str
    """ISO 8601, UTC."""
    reason: str = ""


def parse(stored: Stored | None, key: str) -> list[Move]:
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


def moved(history: list[Move], version: str, reason: str = "") -> bytes:
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
