"""What the neighbours took: those who took an item of the history, and what they took around it.

Nearest neighbours over sessions (Ludewig and Jannach, arXiv 1803.09587), of each item the newest takers alone, as in
VMIS-kNN (Kersbergen et al., SIGMOD 2022). A neighbour need not share more than one item: who shares many is met at each
of them.
"""

# Shapes: R items and the padding, Q queries, I items of one domain.

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from semacdr.model.asked import Asked
from semacdr.model.histories import SECONDS_PER_DAY, Events, IntArray, ItemCounts, Queries, ragged
from semacdr.model.popularity import SMALLEST, FloatArray, FloatArray64

RECENT, DECAY = 30, 0.95
"""Items of the history whose takers are looked at, and the weight of each of them, relative to the one after it."""
TAKERS = 100
"""Of each of them, the newest, at one time the last of the log: others change nothing (docs/log.md)."""
WINDOW = 30
"""Events before and after the shared one that a taker counts with."""
HALF_LIFE_DAYS = 360
FLOOR = SMALLEST / 10
"""Added to shares before their logarithm; shares of all that neighbours took are smaller than those of one item."""
QUERIES_AT_ONCE = 8
"""Each looks at up to 180,000 events."""


@dataclass(frozen=True)
class Takers:
    """The fit's events, and those of each item: ``event[start[item]:start[item + 1]]``, oldest first."""

    offsets: IntArray
    item: IntArray
    time_s: IntArray
    counts: ItemCounts
    by_time_s: IntArray
    """The times in their order."""
    start: IntArray
    event: IntArray
    faded: FloatArray64
    """What each event counts after the last one."""

    @classmethod
    def of(cls, offsets: IntArray, item: IntArray, time_s: IntArray, counts: ItemCounts, num_rows: int) -> "Takers":
        """Sort events by item and time."""
        event = np.lexsort((time_s, item))
        return cls(
            offsets=offsets,
            item=item,
            time_s=time_s,
            counts=counts,
            by_time_s=np.sort(time_s),
            start=np.searchsorted(item[event], np.arange(num_rows + 1)).astype(np.int64),
            event=event,
            faded=fade(time_s, int(time_s.max(initial=0))),
        )

    def fill_shares(self, out_QI: FloatArray, asked: Asked, bounds: tuple[int, int]) -> None:
        """Write the share of each item in what the neighbours took of a domain before the query."""
        asked_s, start = asked.time_s[asked.row], self.start[asked.item]
        num_known = self.counts.before(asked.item, asked_s)
        stop = start + num_known
        weight = asked.weight * rarity(num_known, np.searchsorted(self.by_time_s, asked_s)) ** 2
        first = np.maximum(stop - TAKERS, start)
        for at in range(0, len(asked), QUERIES_AT_ONCE):
            rows = slice(*np.searchsorted(asked.row, [at, at + QUERIES_AT_ONCE]))
            source, place = ragged(first[rows], stop[rows])
            taken = self.event[place]
            near_taken, near = around(self.offsets, taken)
            item = self.item[near]
            here = np.flatnonzero((item >= bounds[0]) & (item < bounds[1]))
            near_taken, near, item = near_taken[here], near[here], item[here]
            near_source = source[near_taken]
            both = np.maximum(self.faded[near], self.faded[taken[near_taken]])
            known = self.time_s[near] < asked_s[rows][near_source]
            some_QI = out_QI[at : at + QUERIES_AT_ONCE]
            cell = (asked.row[rows][near_source] - at) * some_QI.shape[1] + item - bounds[0]
            rate = np.bincount(cell, weight[rows][near_source] * both * known, minlength=some_QI.size)
            some_QI[:] = rate.reshape(some_QI.shape)
            some_QI /= some_QI.sum(axis=1, keepdims=True).clip(min=np.finfo(np.float32).tiny)


def asked_of(events: Events, queries: Queries, chosen: IntArray, *, mixed: bool) -> Asked:
    """Collect the items of some queries' histories whose takers are looked at; ``mixed`` as ``Asked.of``."""
    return Asked.of(events, queries, chosen, mixed=mixed, recent=RECENT, decay=DECAY)


def around(offsets: IntArray, event: IntArray) -> tuple[IntArray, IntArray]:
    """Return what the users of some events took around them: the place of the one in ``event``, and the other."""
    user = np.searchsorted(offsets, event, side="right") - 1
    at, near = ragged(np.maximum(offsets[user], event - WINDOW), np.minimum(offsets[user + 1], event + WINDOW + 1))
    other = near != event[at]
    return at[other], near[other]


def fade(time_s: IntArray, last_s: int) -> FloatArray64:
    """Return what events count at the time of the last; who asks later asks for shares, which do not fade."""
    faded: FloatArray64 = np.exp2((time_s - last_s) / (HALF_LIFE_DAYS * SECONDS_PER_DAY))
    return faded


def newest(parts: Iterable[Events]) -> IntArray:
    """Return the newest ``TAKERS`` events of each item, as ascending places among those of all parts."""
    item, time_s, event, num_events = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64), 0
    for events in parts:
        item, time_s = np.concatenate([item, events.item]), np.concatenate([time_s, events.time_s])
        event = np.concatenate([event, num_events + np.arange(len(events.item))])
        num_events += len(events.item)
        order = np.lexsort((time_s, item))
        from_last = np.searchsorted(item, item, side="right", sorter=order)[order] - 1 - np.arange(len(item))
        kept = np.sort(order[from_last < TAKERS])
        item, time_s, event = item[kept], time_s[kept], event[kept]
    return event


def rarity(support: IntArray, num_events: IntArray | int) -> FloatArray64:
    """Return the logarithm of how much rarer items are than all together."""
    rarity: FloatArray64 = np.log((1 + num_events) / (1 + support))
    return rarity
