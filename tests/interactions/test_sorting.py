from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semacdr.interactions.sorting import in_order

Record = tuple[str, int, str]
SCHEMA = pa.schema(
    [("user_id", pa.string()), ("timestamp_s", pa.int64()), ("item_id", pa.string()), ("place", pa.int64())]
)


def batches(records: list[Record], size: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(records), size):
        rows = records[start : start + size]
        yield pa.record_batch([*map(list, zip(*rows, strict=True)), range(start, start + len(rows))], schema=SCHEMA)


def ordered(records: list[Record], size: int, held_bytes: int, folder: Path) -> list[tuple[str, int, str, int]]:
    found = pa.Table.from_batches(in_order(batches(records, size), held_bytes, folder), SCHEMA)
    assert not [path for path in folder.rglob("*") if path.is_file()]
    return list(zip(*(found[name].to_pylist() for name in SCHEMA.names), strict=True))


def by_bytes(records: list[Record]) -> list[tuple[str, int, str, int]]:
    placed = [(*record, place) for place, record in enumerate(records)]
    return sorted(placed, key=lambda row: (row[0].encode(), row[1], row[2].encode(), row[3]))


IDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20) | st.text("ab\0é", min_size=1, max_size=20)
"""Any texts, and texts that share their beginnings."""
TIMES = st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 1)


@given(
    st.lists(st.tuples(IDS, TIMES, IDS), min_size=1, max_size=60),
    st.integers(1, 60),
    st.sampled_from([1, 1_000, 10**9]),
)
def test_order_is_that_of_the_bytes_and_keeps_equal_records_as_they_came(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record], size: int, held_bytes: int
):
    assert ordered(records, size, held_bytes, tmp_path_factory.mktemp("sorted")) == by_bytes(records)


@pytest.mark.parametrize("held_bytes", [10_000, 200_000, 10**9])
@pytest.mark.parametrize("log", ["by chance", "by user", "of one user", "of one user first"])
def test_order_of_many_records(tmp_path: Path, log: str, held_bytes: int):
    rng = random.Random(0)
    records = [
        (f"customer-{rng.randrange(3_000)}", rng.randrange(50), f"item-{rng.randrange(100):09}") for _ in range(20_000)
    ]
    if log == "by user":
        records.sort()
    elif log != "by chance":
        records[: 20_000 if log == "of one user" else 5_000] = [
            ("nobody", time_s, item) for _, time_s, item in records[: 20_000 if log == "of one user" else 5_000]
        ]
    assert ordered(records, 1_000, held_bytes, tmp_path) == by_bytes(records)


def test_what_may_not_be_held_waits_in_files_and_nothing_else(tmp_path: Path):
    records = [(f"u{number}", 0, "i") for number in range(10_000)]
    for held_bytes, is_filed in ((1_000, True), (10**9, False)):
        folder = tmp_path / str(held_bytes)
        rows = in_order(batches(records, 1_000), held_bytes, folder)
        next(rows)
        assert any(folder.rglob("*.arrow")) == is_filed
        rows.close()


def test_no_record_is_no_error(tmp_path: Path):
    empty = pa.RecordBatch.from_pylist([], schema=SCHEMA)
    assert list(in_order([], 1, tmp_path)) == list(in_order([empty], 1, tmp_path)) == []
    one = next(batches([("u", 0, "i")], 1))
    assert [batch.num_rows for batch in in_order([empty, one, empty], 1, tmp_path)] == [1]


def test_a_zero_byte_is_a_byte(tmp_path: Path):
    records = [("a\0", 0, "x"), ("a", 1, "x"), ("a", 0, "x\0"), ("a", 0, "x"), ("a\0\0", -1, "x")]
    assert ordered(records, 5, 10**9, tmp_path) == by_bytes(records)
