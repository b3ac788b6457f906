"""Vectors that were made before: a text is encoded once, whichever data set, run or version it stands in.

    <store>/vectors/<encoder>/<segment>.parquet    text_hash, vector

A segment appears by one rename and is never changed; Parquet's page checksums tell a damaged one. It is then removed,
and its texts are encoded again. The whole folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import structlog
from numpy.typing import NDArray

from semacdr.manifest import fingerprint

log = structlog.get_logger()

_HASH_BYTES = 32
_BATCH_ROWS = 10_000


class VectorCache:
    """The vectors of one encoder.

    Args:
        folder: that of all encoders; made at the first write.
        identity: what shapes a vector beside the text, as JSON.
    """

    def __init__(self, folder: Path, identity: object) -> None:
        self.folder = folder / fingerprint(identity)[:16]

    def read(self, hashes: pl.Series) -> tuple[NDArray[np.int64], NDArray[np.float32] | None]:
        """Return the places of those of the hashes that are known, and their vectors, a row each (None: no place)."""
        place_of = {digest: place for place, digest in enumerate(hashes)}
        places: list[int] = []
        vectors: list[NDArray[np.float32]] = []
        for segment in sorted(self.folder.glob("*.parquet")):
            try:
                for batch in pq.ParquetFile(segment, page_checksum_verification=True).iter_batches(_BATCH_ROWS):
                    # Popped: two runs may have kept the same text.
                    found = [place_of.pop(digest, -1) for digest in batch["text_hash"].to_pylist()]
                    rows = [row for row, place in enumerate(found) if place >= 0]
                    if rows:
                        places += [found[row] for row in rows]
                        vectors.append(batch["vector"].flatten().to_numpy().reshape(batch.num_rows, -1)[rows])
            except (OSError, pa.ArrowException) as error:
                log.warning("damaged vectors are made again", file=str(segment), error=str(error))
                segment.unlink(missing_ok=True)
        if not vectors:
            return np.empty(0, np.int64), None
        return np.asarray(places), np.concatenate(vectors)

    def write(self, hashes: Iterable[bytes], vectors_ND: NDArray[np.float32]) -> None:
        """Keep vectors in a new segment.

        Raises:
            OSError: no room, or no right to write.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        width = vectors_ND.shape[1]
        table = pa.table(
            {
                "text_hash": pa.array(list(hashes), pa.binary(_HASH_BYTES)),
                "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors_ND.ravel()), width),
            }
        )
        name = secrets.token_hex(8)
        partial = self.folder / f".{name}.tmp"
        try:
            pq.write_table(table, partial, compression="none", use_dictionary=False, write_page_checksum=True)
            partial.replace(self.folder / f"{name}.parquet")
        finally:
            partial.unlink(missing_ok=True)


def text_hashes(texts: pl.Series) -> pl.Series:
    """Return the sha256 of each text, 32 bytes."""
    return pl.Series("text_hash", [hashlib.sha256(text.encode()).digest() for text in texts], dtype=pl.Binary)
