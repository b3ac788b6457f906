"""Which FAISS index serves how many vectors, in how much memory."""

from __future__ import annotations

import math

from semacdr.dataset import Index
from semacdr.errors import ConfigError

_ID_BYTES = 8
_LISTS_PER_ROOT = 4
"""FAISS's guidelines: 4 to 16 times the square root of the number of vectors."""
FLAT = "Flat"


def choose_kind(count: int, width: int, config: Index) -> str:
    """Return the description for ``faiss.index_factory``: exact, or the most exact inverted file that fits.

    Args:
        count: vectors.
        width: of each.
        config: limits.

    Raises:
        ConfigError: none fits into ``index.memory_mb``.
    """
    if count <= config.exact_up_to:
        return FLAT
    lists = min(2 ** round(math.log2(_LISTS_PER_ROOT * math.sqrt(count))), count)
    bytes_of = {"Flat": 4 * width, "SQfp16": 2 * width, "SQ8": width}
    for codec, size in bytes_of.items():
        if count * (size + _ID_BYTES) <= config.memory_mb << 20:
            return f"IVF{lists},{codec}"
    least = -(-count * (width + _ID_BYTES) >> 20)
    raise ConfigError(
        "index.memory_mb is too small",
        found=f"{config.memory_mb} MB for {count:,} vectors of width {width}",
        expected=f"{least:,} MB or more",
        do="raise it in the data set's TOML",
    )
