"""How popular items were on past days, and so how much a user goes with the crowd.

Users differ in how popular a thing has to be for them (their "mainstreaminess", Schedl and Hauger 2015): whoever took
what everybody took that week will do so again.
"""

# Shapes: K keys.

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from semacdr.model.histories import SECONDS_PER_DAY, Events, IntArray

WINDOW_DAYS = 7
SMALLEST = 1e-4
"""Floor under shares and transition rates before the logarithm is taken: about one event in ten thousand."""
_DAYS = 1 << 24
"""Room for days in a key; half of them lie before 1970."""

FloatArray = npt.NDArray[np.float32]
FloatArray64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DailyCounts:
    """How often things were taken on each day: 16 bytes for each pair of a thing and a day."""

    key_K: IntArray
    """Thing and day as one number, sorted."""
    count_K: IntArray

    def by(self, group_of_thing: IntArray) -> DailyCounts:
        """Return the counts of groups of things."""
        group = group_of_thing[self.key_K // _DAYS]
        return _merged([DailyCounts(group * _DAYS + self.key_K % _DAYS, self.count_K)])

    @cached_property
    def _total(self) -> IntArray:
        return np.concatenate([[0], np.cumsum(self.count_K)]).astype(np.int64)

    def before(self, thing: IntArray, time_s: IntArray, days: int) -> IntArray:
        """Return the events of things in the last whole days before those in which the times lie."""
        stop = _key(thing, time_s // SECONDS_PER_DAY)
        counts: IntArray = (
            self._total[np.searchsorted(self.key_K, stop)] - self._total[np.searchsorted(self.key_K, stop - days)]
        )
        return counts


class DayCounter:
    """Makes daily counts of events that come some at a time."""

    def __init__(self) -> None:
        self._whole = _merged([])
        self._waiting: list[DailyCounts] = []
        self._num_waiting = 0

    def add(self, thing: IntArray, time_s: IntArray) -> None:
        """Count events."""
        key_K, count_K = np.unique(_key(thing, time_s // SECONDS_PER_DAY), return_counts=True)
        self._waiting.append(DailyCounts(key_K, count_K.astype(np.int64)))
        self._num_waiting += len(key_K)
        # So seldom that no key is moved often, so soon that what waits is no more than what is done.
        if self._num_waiting > len(self._whole.key_K):
            self._merge()

    def counts(self) -> DailyCounts:
        """Return the counts of all that was added."""
        self._merge()
        return self._whole

    def _merge(self) -> None:
        self._whole = _merged([self._whole, *self._waiting])
        self._waiting, self._num_waiting = [], 0


def _merged(counted: list[DailyCounts]) -> DailyCounts:
    if not counted:
        return DailyCounts(np.zeros(0, np.int64), np.zeros(0, np.int64))
    key_K, place = np.unique(np.concatenate([one.key_K for one in counted]), return_inverse=True)
    count_K = np.bincount(place, np.concatenate([one.count_K for one in counted]), minlength=len(key_K))
    return DailyCounts(key_K, count_K.astype(np.int64))


def _key(thing: IntArray, day: IntArray) -> IntArray:
    return thing * _DAYS + day + _DAYS // 2


@dataclass(frozen=True)
class PastPopularity:
    """What share of its domain's events each item had in the week before any day."""

    of_item: DailyCounts
    of_domain: DailyCounts
    last_s: int
    """Time of the last event that was counted."""

    @classmethod
    def of(cls, of_item: DailyCounts, last_s: int, bounds: tuple[tuple[int, int], ...]) -> PastPopularity:
        """Sum up what is counted of items; ``bounds`` are those of the domains."""
        starts = np.array([start for start, _ in bounds])
        domain_of_item = np.searchsorted(starts, np.arange(bounds[-1][1]), side="right") - 1
        return cls(of_item, of_item.by(domain_of_item), last_s)

    def when_taken(self, events: Events) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """Return how popular each event's item was before that day, and which events are known of.

        It is the logarithm of the item's share of its domain's events, from 0 for one that nobody took. Of what came
        after the last event counted nobody knows how popular it was.
        """
        item = self.of_item.before(events.item, events.time_s, WINDOW_DAYS)
        domain = self.of_domain.before(events.domain, events.time_s, WINDOW_DAYS)
        score = np.log1p(item / domain.clip(min=1) / SMALLEST).astype(np.float32)
        return score, events.time_s <= self.last_s
