"""Shards of a stage's work: one after the other here, or on other processes and machines by who orchestrates.

Shards are cut by the data alone, never by who runs them, so that a stage makes the same bytes wherever it runs. A
shard's work is a function of a module, and its arguments can be pickled. Paths must mean the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result")
Advance = Callable[[float], None]
Work = Callable[..., Result]
"""What is done for one shard: takes its arguments, and ``advance``, which it calls with the steps done since the last
time."""


@dataclass(frozen=True)
class Shard:
    """One part of a stage's work."""

    name: str
    arguments: tuple[Any, ...]
    steps: float
    """Of the stage's progress."""


class Spread(Protocol):
    """Does the work for each shard, in any order and place."""

    def __call__(self, work: Work[Result], shards: Sequence[Shard], advance: Advance) -> Iterator[Result]:
        """Yield the results in the shards' order.

        Raises:
            SemacdrError: as the work raises.
        """
        ...


def here(work: Work[Result], shards: Sequence[Shard], advance: Advance) -> Iterator[Result]:
    """Do one shard after the other in this process."""
    for shard in shards:
        yield work(*shard.arguments, advance=advance)
