"""Users' events as packed arrays, and padded batches of what lies strictly before a query.

The rule of the protocol ``gts``: a query at time t sees the events with a timestamp below t and no others. Events of
one timestamp therefore never see each other as query and history.
"""

# Shapes: B histories, L events (oldest first, pads last), Q queries, E events over all users, U users.

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from jaxtyping import Int
from torch import Tensor

from semacdr.errors import DataError
from semacdr.model.vocabulary import Vocabulary
from semacdr.tables import Part, scan_files, table_files

PART_CODE = {part: code for code, part in enumerate(Part)}
"""The parts in their order in time."""

SECONDS_PER_DAY = 86_400

IntArray = npt.NDArray[np.int64]


class Visibility(StrEnum):
    """What an event's history holds, as the protocol rules."""

    EARLIER_IN_TIME = "gts"
    """Events with a strictly earlier timestamp."""
    EARLIER_IN_ORDER = "loo"
    """Every event before it in the stated order: a third of adjacent ones share their day (research 3.1b)."""


@dataclass(frozen=True)
class Events:
    """All events of all users; user ``u`` has those at ``offsets[u]:offsets[u + 1]``, oldest first."""

    user_ids: pl.Series
    offsets: IntArray
    item: IntArray
    domain: IntArray
    time_s: IntArray
    part: IntArray
    is_target: npt.NDArray[np.bool_]

    @property
    def num_users(self) -> int:
        """How many users there are, those without events included."""
        return len(self.offsets) - 1

    @property
    def user(self) -> IntArray:
        """The user of each event."""
        return np.repeat(np.arange(self.num_users), np.diff(self.offsets))

    def up_to(self, part: Part) -> "Events":
        """Return the events of a part and of those before it; all users stay."""
        return self.kept(self.part <= PART_CODE[part])

    def kept(self, kept: npt.NDArray[np.bool_]) -> "Events":
        """Return some of the events; all users stay."""
        counts = np.bincount(self.user[kept], minlength=self.num_users)
        return Events(
            user_ids=self.user_ids,
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            item=self.item[kept],
            domain=self.domain[kept],
            time_s=self.time_s[kept],
            part=self.part[kept],
            is_target=self.is_target[kept],
        )

    def relabelled(self, new_index: IntArray) -> "Events":
        """Return the same events with items counted otherwise: ``new_index[item]``."""
        return replace(self, item=new_index[self.item])

    def support(self, num_items: int) -> IntArray:
        """Return the events of each item, by ``item_index``."""
        return np.bincount(self.item, minlength=num_items + 1).astype(np.int64)

    def first_of_its_time(self) -> IntArray:
        """Return, for each event, the first event of the same user and timestamp: its history ends before that."""
        index = np.arange(len(self.item))
        fresh = np.ones(len(index), dtype=bool)
        fresh[1:] = self.time_s[1:] != self.time_s[:-1]
        fresh[self.offsets[:-1][np.diff(self.offsets) > 0]] = True
        return np.maximum.accumulate(np.where(fresh, index, 0)).astype(np.int64)

    def history_stop(self, visibility: Visibility) -> IntArray:
        """Return where each event's history ends: the user's events before that position are seen."""
        if visibility is Visibility.EARLIER_IN_ORDER:
            return np.arange(len(self.item), dtype=np.int64)
        return self.first_of_its_time()


class ItemCounts:
    """How many events items had strictly before given times."""

    def __init__(self, item: IntArray, time_s: IntArray) -> None:
        self._first_s = int(time_s.min(initial=0))
        self._span_s = int(time_s.max(initial=0)) - self._first_s + 2
        # One sorted number for each event: its item, then its time.
        self._key = np.sort(item * self._span_s + time_s - self._first_s)

    def before(self, item: IntArray, time_s: IntArray) -> IntArray:
        """Return the events of each item before each time; both of one shape when broadcast."""
        at = (time_s - self._first_s).clip(0, self._span_s - 1)
        first = item * self._span_s
        counts: IntArray = np.searchsorted(self._key, first + at) - np.searchsorted(self._key, first)
        return counts


@dataclass(frozen=True)
class Queries:
    """What is asked: what a user likes in a domain at a time."""

    user: IntArray
    stop: IntArray
    """The history is the user's events before this one (a position in the packed arrays)."""
    domain: IntArray
    time_s: IntArray
    item: IntArray
    """What the user took; 0 where nobody knows."""

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class HistoryBatch:
    """Padded histories, and queries into them."""

    item_BL: Int[Tensor, "batch length"]
    domain_BL: Int[Tensor, "batch length"]
    time_BL: Int[Tensor, "batch length"]
    row_Q: Int[Tensor, " queries"]
    """The history that a query reads."""
    position_Q: Int[Tensor, " queries"]
    """The last event that it may see; -1: none."""
    domain_Q: Int[Tensor, " queries"]
    time_Q: Int[Tensor, " queries"]

    def to(self, device: torch.device) -> "HistoryBatch":
        """Return the batch on a device."""
        return HistoryBatch(**{name: value.to(device) for name, value in vars(self).items()})


def ragged(first: IntArray, stop: IntArray) -> tuple[IntArray, IntArray]:
    """Return all of ``range(first[n], stop[n])`` in one row after the other, and the ``n`` of each."""
    size = stop - first
    row = np.repeat(np.arange(len(size)), size)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(size) - size, size) + np.repeat(first, size)


def read_events(folder: Path, vocabulary: Vocabulary) -> Events:
    """Read a ``sequences`` artifact.

    Raises:
        DataError: it has no rows, an item that the vocabulary does not hold, or events out of order.
    """
    files = table_files(folder, "sequences")
    frames = [scan_files(file).collect() for file in files]
    if not frames or sum(frame.height for frame in frames) == 0:
        raise DataError("sequences: no user has a sequence", found=f"{len(files)} files in {folder}", do="check ingest")
    return events_of(pl.concat(frames), vocabulary)


def events_of(sequences: pl.DataFrame, vocabulary: Vocabulary) -> Events:
    """Pack the rows of the ``sequences`` table, users sorted by ``user_id``.

    Raises:
        DataError: an item that the vocabulary does not hold, or events out of order.
    """
    sequences = sequences.sort("user_id")
    lengths = sequences["item_ids"].list.len().to_numpy().astype(np.int64)
    flat = sequences.select("user_id", "domains", "item_ids", "timestamps_s", "parts", "is_target").explode(
        "domains", "item_ids", "timestamps_s", "parts", "is_target"
    )
    item = vocabulary.encode(flat.select(domain="domains", item_id="item_ids"), "sequences")
    time_s = flat["timestamps_s"].to_numpy().astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    later = np.diff(time_s) >= 0
    later[offsets[1:-1] - 1] = True
    if not later.all():
        raise DataError(
            "sequences: events are not in the order of time",
            found=f"user {flat['user_id'][int(np.flatnonzero(~later)[0])]}",
            do="run the sequences stage again",
        )
    part = flat["parts"].cast(pl.String).replace_strict({part.value: code for part, code in PART_CODE.items()})
    return Events(
        user_ids=sequences["user_id"],
        offsets=offsets,
        item=item,
        domain=vocabulary.domain_of_item[item],
        time_s=time_s,
        part=part.to_numpy().astype(np.int64),
        is_target=flat["is_target"].to_numpy().astype(bool),
    )


def queries_of_targets(events: Events, part: Part, visibility: Visibility = Visibility.EARLIER_IN_TIME) -> Queries:
    """Return one query per target of a part, at the target's own time."""
    chosen = np.flatnonzero(events.is_target & (events.part == PART_CODE[part]))
    return Queries(
        user=events.user[chosen],
        stop=events.history_stop(visibility)[chosen],
        domain=events.domain[chosen],
        time_s=events.time_s[chosen],
        item=events.item[chosen],
    )


def queries_at(events: Events, user: IntArray, domain: IntArray, time_s: IntArray) -> Queries:
    """Return queries at times of the caller's choice, such as now; users are rows of ``events``."""
    # Users and their events' times are in order, and so are the two put together.
    first = min(events.time_s.min(initial=0), time_s.min(initial=0))
    span = max(events.time_s.max(initial=0), time_s.max(initial=0)) - first + 1
    stop = np.searchsorted(events.user * span + events.time_s - first, user * span + time_s - first, side="left")
    return Queries(user=user, stop=stop, domain=domain, time_s=time_s, item=np.zeros_like(user))


def query_batches(
    events: Events, queries: Queries, max_length: int, batch_events: int
) -> Iterator[tuple[IntArray, HistoryBatch]]:
    """Yield batches of queries whose histories, the last ``max_length`` events, are of like length.

    Queries whose histories begin with the same event read the longest of them, each up to its own last event.

    Yields:
        Which queries these are, and their batch: at most ``batch_events`` events with the pads, or one history.
    """
    first = np.maximum(events.offsets[queries.user], queries.stop - max_length)
    begin, row_of = np.unique(first, return_inverse=True)
    stop = np.zeros(len(begin), np.int64)
    np.maximum.at(stop, row_of, queries.stop)
    by_length = np.argsort(stop - begin, kind="stable")
    begin, stop, row_of = begin[by_length], stop[by_length], np.argsort(by_length)[row_of]
    by_history = np.argsort(row_of, kind="stable")
    length, start = np.maximum(1, stop - begin), 0
    while start < len(begin):
        padded_to = length[start : start + batch_events]
        rows = slice(start, start + max(1, int(np.sum(padded_to * np.arange(1, 1 + len(padded_to)) <= batch_events))))
        of_rows = slice(*np.searchsorted(row_of[by_history], (rows.start, rows.stop)))
        chosen = by_history[of_rows]
        batch = padded(
            events,
            begin[rows],
            stop[rows],
            row=row_of[chosen] - start,
            position=queries.stop[chosen] - first[chosen] - 1,
            domain=queries.domain[chosen],
            time_s=queries.time_s[chosen],
        )
        yield chosen, batch
        start = rows.stop


def padded(
    events: Events,
    first: IntArray,
    stop: IntArray,
    *,
    row: IntArray,
    position: IntArray,
    domain: IntArray,
    time_s: IntArray,
) -> HistoryBatch:
    """Return the events ``first:stop`` of each row, padded to the longest, with the queries into them."""
    length = max(1, int((stop - first).max(initial=0)))
    index_BL = first[:, None] + np.arange(length)
    is_event_BL = index_BL < stop[:, None]
    index_BL = np.where(is_event_BL, index_BL, 0)

    def gathered(values: IntArray) -> Tensor:
        if not len(values):
            return torch.zeros(index_BL.shape, dtype=torch.int64)
        return torch.from_numpy(np.where(is_event_BL, values[index_BL], 0))

    return HistoryBatch(
        item_BL=gathered(events.item),
        domain_BL=gathered(events.domain),
        time_BL=gathered(events.time_s),
        row_Q=torch.from_numpy(row),
        position_Q=torch.from_numpy(position),
        domain_Q=torch.from_numpy(domain),
        time_Q=torch.from_numpy(time_s),
    )
