"""What the experts remember of events, as of one moment after all of them: what serving needs of the newest log.

A checkpoint's own memory keeps every event with its time, for queries at any time. Serving asks at one time, so sums
are enough: they are made from ``sequences`` some users at a time, and grow with the pairs of items that follow each
other and with the days on which items were taken, not with users.
"""

# Shapes: R items and the padding, H half-lives of popularity.

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from scipy import sparse

from semacdr.errors import DataError
from semacdr.model.experts import (
    HALF_LIVES_DAYS,
    TRANSITION_HALF_LIFE_DAYS,
    near_pairs,
)
from semacdr.model.histories import SECONDS_PER_DAY, Events, IntArray, events_of
from semacdr.model.neighbours import around, fade, newest, rarity
from semacdr.model.popularity import SMALLEST, DayCounter, FloatArray, PastPopularity
from semacdr.model.vocabulary import Vocabulary
from semacdr.tables import scan_files, table_files

_USERS, _EVENTS = 20_000, 100_000
"""Read at a time; and those around which pairs are summed up at a time, up to 60 each."""


@dataclass(frozen=True)
class Present:
    """Popularity, transitions and support after the last event."""

    last_s: int
    """Time of the last event; what is asked lies after it."""
    support_R: IntArray
    """Events of each item, by ``item_index``."""
    popularity_HR: FloatArray
    """Log of the faded share of each item in its domain, per half-life."""
    following: sparse.csr_matrix
    """How much of each item (column) followed each item (row), faded to ``last_s``."""
    neighbours: sparse.csr_matrix
    """How much of each item (column) the newest takers of each item (row) took around it, faded to ``last_s``."""
    past: PastPopularity
    """How popular items were when they were taken."""

    @cached_property
    def rarity_R(self) -> FloatArray:  # noqa: N802 (the shape)
        """How much rarer each item is than all together."""
        return rarity(self.support_R, int(self.support_R.sum())).astype(np.float32)

    @classmethod
    def of(
        cls, parts: Callable[[], Iterable[Events]], last_s: int, bounds: tuple[tuple[int, int], ...], *, mixed: bool
    ) -> Present:
        """Sum up the events of some users after the other.

        Args:
            parts: read twice; no user's events lie in two of them.
            last_s: time of the last event.
            bounds: of the domains' items.
            mixed: histories are looked at as one, whatever the domains.
        """
        num_rows = bounds[-1][1]
        support_R, faded_HR = np.zeros(num_rows, np.int64), np.zeros((len(HALF_LIVES_DAYS), num_rows))
        following = sparse.csr_matrix((num_rows, num_rows), dtype=np.float64)
        neighbours = sparse.csr_matrix((num_rows, num_rows), dtype=np.float32)
        newest_E, num_events = newest(parts()), 0
        counter = DayCounter()
        for events in parts():
            counter.add(events.item, events.time_s)
            support_R += np.bincount(events.item, minlength=num_rows)
            age_days = (last_s + 1 - events.time_s) / SECONDS_PER_DAY
            for row, half_life in enumerate(HALF_LIVES_DAYS):
                faded_HR[row] += np.bincount(events.item, 0.5 ** (age_days / half_life), minlength=num_rows)
            before, taken, weight = near_pairs(events.offsets, events.time_s, events.domain, mixed=mixed)
            faded = weight * 0.5 ** ((last_s - events.time_s[taken]) / (TRANSITION_HALF_LIFE_DAYS * SECONDS_PER_DAY))
            places = (events.item[before], events.item[taken])
            following += sparse.csr_matrix((faded, places), shape=following.shape)
            here = slice(*np.searchsorted(newest_E, [num_events, num_events + len(events.item)]))
            source, num_events = newest_E[here] - num_events, num_events + len(events.item)
            for first in range(0, len(source), _EVENTS):
                neighbours += _taken_around(events, source[first : first + _EVENTS], last_s, num_rows)
        popularity_HR = np.zeros_like(faded_HR)
        for start, stop in bounds:
            share = faded_HR[:, start:stop] / faded_HR[:, start:stop].sum(axis=1, keepdims=True).clip(min=1e-300)
            popularity_HR[:, start:stop] = np.log(share + SMALLEST)
        return cls(
            last_s=last_s,
            support_R=support_R,
            popularity_HR=popularity_HR.astype(np.float32),
            following=following.astype(np.float32),
            neighbours=neighbours,
            past=PastPopularity.of(counter.counts(), last_s, bounds),
        )


def _taken_around(events: Events, source: IntArray, last_s: int, num_rows: int) -> sparse.csr_matrix:
    """Return how much of each item (column) the users of some events took around each item (row) of those."""
    at, near = around(events.offsets, source)
    faded = fade(np.maximum(events.time_s[source[at]], events.time_s[near]), last_s).astype(np.float32)
    return sparse.csr_matrix((faded, (events.item[source[at]], events.item[near])), shape=(num_rows, num_rows))


def read_present(sequences: Path, vocabulary: Vocabulary, *, mixed: bool) -> Present:
    """Sum up all events of a ``sequences`` artifact; ``mixed`` as the experts' memory.

    Raises:
        DataError: it has no rows, or an item that the vocabulary does not hold.
    """
    files = table_files(sequences, "sequences")
    return Present.of(lambda: _parts(files, vocabulary), last_event_s(sequences), vocabulary.bounds, mixed=mixed)


def last_event_s(sequences: Path) -> int:
    """Return the time of the last event of a ``sequences`` artifact.

    Raises:
        DataError: it has no rows.
    """
    files = table_files(sequences, "sequences")
    times = scan_files(files).select(pl.col("timestamps_s").list.max().max())
    last_s = times.collect(engine="streaming").item() if files else None
    if last_s is None:
        raise DataError("sequences: no user has a sequence", found=sequences, do="check ingest")
    return int(last_s)


def _parts(files: list[Path], vocabulary: Vocabulary) -> Iterator[Events]:
    for file in files:
        scan = scan_files(file)
        for start in range(0, pq.read_metadata(file).num_rows, _USERS):
            yield events_of(scan.slice(start, _USERS).collect(), vocabulary)
