"""Records by user, time and item in bounded memory: radix sorts of numbers, at a third of what DuckDB's sort costs.

Records are cut by the first letters of their users into parts, each before the next. A part is put in order by what
its ids and times are as numbers. What is more than may be held waits in files.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_MAX_PARTS = 128
_LARGEST_PART = 1 / 16
"""Of the bytes that may be held; what is more is cut again."""
_LARGEST_PART_BYTES = 2**30
"""So that Arrow's offsets of 32 bits suffice."""
_SAMPLE = 100_000
"""Users that say where to cut."""

_LEADING_BYTES = np.array([2**64 - 2 ** (64 - 8 * count) for count in range(9)], dtype=np.uint64)
"""Masks of the first bytes of a word."""


def in_order(batches: Iterable[pa.RecordBatch], held_bytes: int, folder: Path) -> Iterator[pa.RecordBatch]:
    """Yield the records by user_id, timestamp_s and item_id; those of one event stay as they came.

    Texts are compared by their bytes, as DuckDB does it. All records of a user are in one batch.

    Args:
        batches: records with these columns, none of them null, and any others.
        held_bytes: what is more waits in files.
        folder: of these files; made when the first one is.
    """
    filled = (batch for batch in batches if len(batch))
    if (first := next(filled, None)) is not None:
        parts = [_Part(folder / f"{number}.arrow") for number in range(_MAX_PARTS)]
        yield from _in_order(itertools.chain([first], filled), first.column("user_id"), parts, held_bytes)


def _in_order(
    batches: Iterable[pa.RecordBatch], sample: pa.Array, parts: list[_Part], held_bytes: int
) -> Iterator[pa.RecordBatch]:
    _cut(batches, sample, parts, held_bytes)
    num_rows = sum(part.num_rows for part in parts)
    largest_bytes = min(held_bytes * _LARGEST_PART, _LARGEST_PART_BYTES)
    for part in parts:
        excess = part.num_bytes / largest_bytes
        if excess > 1 and part.num_rows < num_rows:
            folder, num_parts = part.path.with_suffix(""), min(_MAX_PARTS, math.ceil(2 * excess))
            smaller = [_Part(folder / f"{number}.arrow") for number in range(num_parts)]
            yield from _in_order(part.drain(), part.sample(), smaller, held_bytes)
        elif part.num_rows:
            yield _sorted(pa.concat_batches(part.drain()))


class _Part:
    """Records that wait for their turn, the first ones in a file when they are many."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_rows = 0
        self.num_bytes = 0.0
        self._held: list[pa.RecordBatch] = []
        self._writer: pa.RecordBatchStreamWriter | None = None

    def add(self, batch: pa.RecordBatch, num_bytes: float) -> None:
        self.num_rows += len(batch)
        self.num_bytes += num_bytes
        self._held.append(batch)

    def spill(self) -> None:
        if not self._held:
            return
        batch = pa.concat_batches(self._held)
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pa.ipc.new_stream(str(self.path), batch.schema)
        self._writer.write_batch(batch)
        self._held.clear()

    def sample(self) -> pa.Array:
        """Return some of the users, from all over the part."""
        every = -(-self.num_rows // _SAMPLE)
        users = (batch.column("user_id") for batch in self._batches())
        return pa.concat_arrays([column.take(pa.array(range(0, len(column), every))) for column in users])

    def drain(self) -> Iterator[pa.RecordBatch]:
        """Yield what came, in its order, and forget it."""
        yield from self._filed()
        self.path.unlink(missing_ok=True)
        self._held.reverse()
        while self._held:
            yield self._held.pop()

    def _batches(self) -> Iterator[pa.RecordBatch]:
        yield from self._filed()
        yield from self._held

    def _filed(self) -> Iterator[pa.RecordBatch]:
        if self._writer is not None:
            self._writer.close()
            with pa.OSFile(str(self.path)) as file:
                yield from pa.ipc.open_stream(file)


def _cut(batches: Iterable[pa.RecordBatch], sample: pa.Array, parts: list[_Part], held_bytes: int) -> None:
    """Put the records into parts, by user; the parts are alike in size if users are as in the sample."""
    number_of = _numbering(sample, len(parts))
    held = 0
    for batch in batches:
        numbers = number_of(batch.column("user_id"))
        by_part = batch.take(pa.array(np.argsort(numbers, kind="stable")))
        ends = np.cumsum(np.bincount(numbers, minlength=len(parts))).tolist()
        row_bytes = by_part.nbytes / len(by_part)
        for part, start, end in zip(parts, [0, *ends], ends, strict=False):
            if end > start:
                part.add(by_part.slice(start, end - start), row_bytes * (end - start))
        held += by_part.nbytes
        if held > held_bytes:
            for part in parts:
                part.spill()
            held = 0


def _numbering(sample: pa.Array, num_parts: int) -> Callable[[pa.Array], np.ndarray]:
    """Return a function from users to the numbers of their parts, which rise with the users."""
    lowest, highest = pc.min_max(sample.cast(pa.binary())).as_py().values()
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(lowest, highest, strict=False))
    prefix = bytes(byte for byte, _ in alike)

    def heads(users: pa.Array) -> np.ndarray:
        return (_Texts(users).word(len(prefix)) >> np.uint64(48)).astype(np.uint16)

    counts = np.bincount(heads(sample), minlength=2**16)
    share_before = (np.cumsum(counts) - counts) / len(sample)
    numbers = np.minimum(share_before * num_parts, num_parts - 1).astype(np.uint8)

    def number_of(users: pa.Array) -> np.ndarray:
        found = numbers.take(heads(users))
        users = users.cast(pa.binary())
        is_other = pc.invert(pc.starts_with(users, prefix)).to_numpy(zero_copy_only=False)
        if is_other.any():
            is_less = pc.less(users.filter(pa.array(is_other)), prefix).to_numpy(zero_copy_only=False)
            found[is_other] = np.where(is_less, 0, num_parts - 1)
        return found

    return number_of


def _sorted(batch: pa.RecordBatch) -> pa.RecordBatch:
    # Signed times in the order of unsigned numbers.
    times = batch.column("timestamp_s").to_numpy().view(np.uint64) ^ np.uint64(2**63)
    keys = [*_Texts(batch.column("user_id")).words(), times]
    order = _radix_order(keys)
    is_tied = np.ones(len(batch) - 1, dtype=bool)
    for key in keys:
        in_turn = key.take(order)
        is_tied &= in_turn[1:] == in_turn[:-1]
    if is_tied.any():
        # Items are looked at only where they decide.
        at = np.flatnonzero(np.append(is_tied, False) | np.append(False, is_tied))
        rows, group = order.take(at), np.cumsum(np.append(True, ~is_tied)).astype(np.uint64)
        items = _Texts(batch.column("item_id").take(pa.array(rows)))
        order[at] = rows.take(_radix_order([group.take(at), *items.words()]))
    return batch.take(pa.array(order))


class _Texts:
    """Texts as numbers, eight bytes in each, the first byte the highest."""

    def __init__(self, texts: pa.Array) -> None:
        _, offsets, data = texts.buffers()
        ends = np.frombuffer(offsets, np.int32, count=len(texts) + 1, offset=4 * texts.offset)
        first, last = int(ends[0]), int(ends[-1])
        padded = np.zeros(last - first + 8, dtype=np.uint8)
        padded[:-8] = np.frombuffer(data, np.uint8, count=last - first, offset=first)
        self._starts = ends[:-1] - first
        self._lengths = np.diff(ends)
        self._has_zeros = padded[:-8].min() == 0
        self._from_each_byte = np.ndarray((len(padded) - 7,), ">u8", buffer=padded, strides=(1,))

    def word(self, at: int) -> np.ndarray:
        """Return the eight bytes of each text from a byte on; zeros behind its end."""
        starts = np.minimum(self._starts + at, len(self._from_each_byte) - 1)
        words = self._from_each_byte[starts].astype(np.uint64)
        words &= _LEADING_BYTES.take(self._lengths - at, mode="clip")
        return words

    def words(self) -> list[np.ndarray]:
        """Return numbers by which the texts are in order, the most significant first."""
        words = [self.word(at) for at in range(0, int(self._lengths.max()), 8)]
        return [*words, self._lengths.astype(np.uint64)] if self._has_zeros else words


def _radix_order(keys: Sequence[np.ndarray]) -> np.ndarray:
    """Return the rows by unsigned keys, the most significant first; rows of equal keys stay as they are."""
    order = np.arange(len(keys[0]))
    for key in reversed(keys):
        varying = int(np.bitwise_or.reduce(key ^ key[0]))
        for shift in range(0, 64, 16):
            if varying >> shift & 0xFFFF:
                digits = (key >> np.uint64(shift)).astype(np.uint16).take(order)
                order = order.take(np.argsort(digits, kind="stable"))
    return order
