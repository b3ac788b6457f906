"""Training batches: each event is a position to be predicted from what lies strictly before it in time."""

# Shapes: W windows, P positions, Q queries of a batch.

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semacdr.model.histories import Events, HistoryBatch, IntArray, Visibility, padded, ragged

POOL_BATCHES = 16
"""Windows are shuffled, then sorted by length within pools of so many batches: little padding, still random."""

STEPS_PER_EPOCH, BATCH_RANGE = 12, (16, 256)
"""What ``batch_users = None`` aims at: tuned on 800 histories, bounded for fewer and more."""


@dataclass(frozen=True)
class Windows:
    """Pieces of histories, and the positions that each of them predicts.

    A history longer than ``max_length`` is read in windows that overlap by half, so that every event is predicted
    once, from at least half a window unless it stands at the start.
    """

    first: IntArray
    stop: IntArray
    position_offsets: IntArray
    """Window ``w`` predicts the positions at ``position_offsets[w]:position_offsets[w + 1]``."""
    event: IntArray
    """The event that each position predicts."""
    seen: IntArray
    """The last event that it may see, counted from the window's first; -1: none."""

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class Share:
    """This process among those that train together."""

    rank: int
    size: int


ALONE = Share(0, 1)


@dataclass(frozen=True)
class Batch:
    """Histories of one step, or this process's share of them."""

    histories: HistoryBatch
    event: IntArray
    """The event that each query predicts."""
    step_event: IntArray
    """The events that the step's queries predict, in all processes together."""

    @property
    def num_queries(self) -> int:
        """Of all processes together."""
        return len(self.step_event)


def training_windows(events: Events, max_length: int, visibility: Visibility = Visibility.EARLIER_IN_TIME) -> Windows:
    """Cut all users' histories into windows."""
    overlap = max_length // 2
    before = events.history_stop(visibility) - 1
    first, stop, event, seen, counts = [], [], [], [], []
    for user_first, user_stop in zip(events.offsets[:-1].tolist(), events.offsets[1:].tolist(), strict=True):
        start = user_first
        while start < user_stop:
            end = min(start + max_length, user_stop)
            targets = np.arange(start if start == user_first else start + overlap, end)
            last_seen = np.maximum(before[targets] - start, -1)
            if start > user_first:
                # A whole overlap of one timestamp hides the history; such a position would learn from nothing.
                targets, last_seen = targets[last_seen >= 0], last_seen[last_seen >= 0]
            first.append(start)
            stop.append(end)
            event.append(targets)
            seen.append(last_seen)
            counts.append(len(targets))
            if end == user_stop:
                break
            start += max(1, max_length - overlap)
    return Windows(
        first=np.array(first, np.int64),
        stop=np.array(stop, np.int64),
        position_offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        event=np.concatenate([*event, np.zeros(0, np.int64)]),
        seen=np.concatenate([*seen, np.zeros(0, np.int64)]),
    )


def position_weights(events: Events, half_life: float | None) -> npt.NDArray[np.float32]:
    """Return the weight of each event as a target: halved for each share ``half_life`` of newer events; mean 1."""
    num_events = len(events.time_s)
    if half_life is None or not num_events:
        return np.ones(num_events, np.float32)
    newer = num_events - np.searchsorted(np.sort(events.time_s), events.time_s, side="right")
    weight: npt.NDArray[np.float64] = 0.5 ** (newer / num_events / half_life)
    relative: npt.NDArray[np.float32] = (weight / weight.mean()).astype(np.float32)
    return relative


def epoch_batches(
    events: Events, windows: Windows, batch_users: int | None, rng: np.random.Generator, share: Share = ALONE
) -> Iterator[Batch]:
    """Yield an epoch's batches in random order, windows of like length together.

    Args:
        events: that the fit may see.
        windows: of their histories.
        batch_users: windows of a batch; None: see ``ModelConfig``.
        rng: of the order, alike in all processes.
        share: which part of each batch is this process's.
    """
    length = windows.stop - windows.first
    batch_users = batch_users or min(max(len(windows) // STEPS_PER_EPOCH, BATCH_RANGE[0]), BATCH_RANGE[1])
    order = rng.permutation(len(windows))
    pool = batch_users * POOL_BATCHES
    batches = []
    for start in range(0, len(order), pool):
        pooled = order[start : start + pool]
        pooled = pooled[np.argsort(length[pooled], kind="stable")]
        batches += [pooled[at : at + batch_users] for at in range(0, len(pooled), batch_users)]
    for which in rng.permutation(len(batches)):
        chosen = batches[which]
        _, position = ragged(windows.position_offsets[chosen], windows.position_offsets[chosen + 1])
        yield Batch(*_batch(events, windows, chosen[share.rank :: share.size]), windows.event[position])


def _batch(events: Events, windows: Windows, chosen: IntArray) -> tuple[HistoryBatch, IntArray]:
    start, stop = windows.position_offsets[chosen], windows.position_offsets[chosen + 1]
    row, position = ragged(start, stop)
    event = windows.event[position]
    batch = padded(
        events,
        windows.first[chosen],
        windows.stop[chosen],
        row=row,
        position=windows.seen[position],
        domain=events.domain[event],
        time_s=events.time_s[event],
    )
    return batch, event
