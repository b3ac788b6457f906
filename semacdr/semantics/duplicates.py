"""Texts that nearly repeat another one, found by MinHash: linear in the number of texts, in seconds for 100,000.

A text's shingles are its pairs of neighbouring words (of characters, in scripts that put no space between words). Two
texts whose shingle sets are alike (Jaccard) to ``MIN_LIKENESS`` meet in at least one of the bands with a probability
of .99. Only the first text of a bucket and the one just before are compared, so that thousands of texts that are all
alike cost no more than others; a pair may be missed for that, a text that repeats many hardly.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

MIN_LIKENESS = 0.6
"""One word of nine changed leaves 6 of 10 pairs."""

_BANDS = 21
_ROWS = 3
_UNSPACED = r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
_TOKEN = re.compile(rf"{_UNSPACED}|(?:(?!{_UNSPACED})\w)+")

Words = NDArray[np.uint64]


def near_duplicates(texts: Sequence[str]) -> list[tuple[int, int, float]]:
    """Return (place, place of an earlier text that it nearly repeats, likeness), each place at most once.

    Args:
        texts: all different; the first of two is the one that stays.
    """
    if len(texts) < 2:  # noqa: PLR2004 (two make a pair)
        return []
    shingles, starts = _shingles(texts)
    signatures = _signatures(shingles, starts)
    sets: dict[int, frozenset[int]] = {}

    def shingle_set(place: int) -> frozenset[int]:
        if place not in sets:
            end = starts[place + 1] if place + 1 < len(starts) else len(shingles)
            sets[place] = frozenset(shingles[starts[place] : end].tolist())
        return sets[place]

    found: dict[int, tuple[int, float]] = {}
    refuted: set[tuple[int, int]] = set()
    for band in range(_BANDS):
        for place, earlier in _bucket_mates(signatures[band * _ROWS : (band + 1) * _ROWS]):
            if place in found or (place, earlier) in refuted:
                continue
            one, other = shingle_set(place), shingle_set(earlier)
            likeness = len(one & other) / len(one | other)
            if likeness >= MIN_LIKENESS:
                found[place] = (earlier, likeness)
            else:
                refuted.add((place, earlier))
    return [(place, *found[place]) for place in sorted(found)]


def _shingles(texts: Sequence[str]) -> tuple[Words, NDArray[np.int64]]:
    """Return the shingles of all texts end to end, and where each text's begin; every text has at least one."""
    tokens = [_TOKEN.findall(text) or [text] for text in texts]
    counts = np.array([len(words) for words in tokens], dtype=np.int64)
    # Numbered in the order of the words, not by a hash that another version of a library may compute otherwise.
    ranks = pl.Series([word for words in tokens for word in words], dtype=pl.String).rank("dense").to_numpy()
    words = _mixed(ranks.astype(np.uint64))
    firsts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    is_last = np.zeros(len(words), dtype=bool)
    is_last[firsts + counts - 1] = True
    pairs = _mixed(words * np.uint64(3) + np.roll(words, -1))
    is_only = np.zeros(len(words), dtype=bool)
    is_only[firsts[counts == 1]] = True
    kept = ~is_last | is_only
    shingles = np.where(is_only, words, pairs)[kept]
    num_shingles = np.maximum(counts - 1, 1)
    return shingles, np.concatenate([[0], np.cumsum(num_shingles)[:-1]]).astype(np.int64)


def _signatures(shingles: Words, starts: NDArray[np.int64]) -> Words:
    seeds = _mixed(np.arange(1, _BANDS * _ROWS + 1, dtype=np.uint64))
    return np.stack([np.minimum.reduceat(_mixed(shingles ^ seed), starts) for seed in seeds])


def _bucket_mates(band: Words) -> list[tuple[int, int]]:
    """Return each text with the first of its bucket, and with the one just before it there."""
    keys = band[0]
    for row in band[1:]:
        keys = _mixed(keys ^ row)
    order = np.argsort(keys, kind="stable")
    in_order = keys[order]
    opens = np.concatenate([[True], in_order[1:] != in_order[:-1]])
    first = order[np.maximum.accumulate(np.where(opens, np.arange(len(order)), 0))]
    before = np.roll(order, 1)
    places, heads, befores = (array[~opens].tolist() for array in (order, first, before))
    second = [(place, mate) for place, mate, head in zip(places, befores, heads, strict=True) if mate != head]
    return [*zip(places, heads, strict=True), *second]


def _mixed(values: Words) -> Words:
    """Return splitmix64's finish of each value (Steele et al., OOPSLA 2014): spread over all bits, collision-free."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
