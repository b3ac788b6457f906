"""How much of a day must be as it was for an evaluation to be kept."""

from __future__ import annotations

import polars as pl
import pytest

from semacdr.evaluation import much_the_same
from semacdr.tables import Part


def _day(targets: range, items: range) -> dict[str, pl.LazyFrame]:
    sequences = [
        {
            "user_id": f"u{user}",
            "domains": ["a", "b", "b"],
            "item_ids": [f"i{user}", "other", "i"],
            "timestamps_s": [1, 2, 3],
            # What is no target, or none of the test part, may be new at will.
            "parts": [Part.VALIDATION, Part.TEST, Part.TEST],
            "is_target": [True, False, True],
        }
        for user in targets
    ]
    named = [{"domain": "a", "item_id": f"i{item}"} for item in items]
    return {"sequences": pl.LazyFrame(sequences), "items": pl.LazyFrame(named)}


@pytest.mark.parametrize(
    ("targets", "items", "same"),
    [
        (range(20), range(20), True),
        (range(22), range(22), True),
        (range(23), range(20), False),
        (range(20), range(23), False),
        (range(17), range(20), False),
        (range(3, 23), range(20), False),
    ],
)
def test_a_tenth_of_targets_and_items_may_be_others(targets: range, items: range, same: bool):
    assert much_the_same(_day(range(20), range(20)), _day(targets, items)) is same
