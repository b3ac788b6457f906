"""The vectors of a domain and view, read from disk so many rows at a time."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

# Shapes: N vectors, D width of a vector.

_BATCH_ROWS = 16_384


@dataclass(frozen=True)
class Vectors:
    """Vectors on disk; only a batch of them is ever held."""

    files: list[Path]
    domain: str
    view: str
    item_ids: list[str]
    width: int

    def batches(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield places in ``item_ids`` and vectors, so many at a time."""
        start = 0
        for file in self.files:
            # Neither mapped nor read ahead: a row group of 262,144 vectors would be held twice.
            with pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False) as table:
                groups = self._groups(table.metadata)
                for batch in table.iter_batches(_BATCH_ROWS, groups, columns=["domain", "view", "vector"]):
                    wanted = pc.and_(pc.equal(batch["domain"], self.domain), pc.equal(batch["view"], self.view))
                    found = batch["vector"].filter(wanted)
                    if len(found):
                        vectors_ND = found.flatten().to_numpy().reshape(len(found), self.width)
                        yield np.arange(start, start + len(found)), np.ascontiguousarray(vectors_ND, dtype=np.float32)
                        start += len(found)

    def _groups(self, metadata: pq.FileMetaData) -> list[int]:
        """Return the row groups that may hold the domain: rows are sorted by it."""
        paths = [metadata.schema.column(column).path for column in range(metadata.num_columns)]
        column = paths.index("domain")
        groups = range(metadata.num_row_groups)
        ranges = (metadata.row_group(group).column(column).statistics for group in groups)
        return [
            group
            for group, of in zip(groups, ranges, strict=True)
            if of is None or not of.has_min_max or of.min <= self.domain <= of.max
        ]

    def sample(self, count: int) -> NDArray[np.float32]:
        """Return evenly spread vectors, ``count`` of them or a few more."""
        step = max(1, len(self.item_ids) // count)
        sampled_ND = np.empty((-(-len(self.item_ids) // step), self.width), np.float32)
        done = 0
        for places, vectors_ND in self.batches():
            chosen_ND = vectors_ND[places % step == 0]
            sampled_ND[done : done + len(chosen_ND)] = chosen_ND
            done += len(chosen_ND)
        return sampled_ND

    def checksums(self) -> NDArray[np.int64]:
        """Return a checksum of each vector."""
        made = (
            np.fromiter((zlib.crc32(row) for row in rows_ND), np.int64, len(rows_ND)) for _, rows_ND in self.batches()
        )
        return np.concatenate([np.empty(0, np.int64), *made])
