from pathlib import Path

import polars as pl
import pytest

from semacdr.recommendations import cold
from semacdr.recommendations.cold import cold_shares


@pytest.mark.parametrize("rows", [1, 1_000])
def test_cold_is_what_nobody_had_taken_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int):
    """By hand: b is new when v takes it for a target, a is not; of what is shown, c was never taken."""
    monkeypatch.setattr(cold, "_USERS", rows)
    monkeypatch.setattr(cold, "_ROWS", rows)
    for name in ("items", "sequences", "recommendations"):
        (tmp_path / name).mkdir()
    sequences = {
        "user_id": ["u", "v"],
        "domains": [["food", "food"], ["food", "food", "food"]],
        "item_ids": [["a", "b"], ["a", "b", "b"]],
        "timestamps_s": [[1, 9], [5, 6, 7]],
        "parts": [["train", "test"], ["validation"] * 3],
        "is_target": [[False, True], [True] * 3],
    }
    pl.DataFrame(sequences).write_parquet(tmp_path / "sequences" / "sequences.parquet")
    shown = {"domain": ["food"] * 4, "item_id": ["a", "b", "c", "c"], "rank": [1, 2, 3, 11]}
    pl.DataFrame(shown).write_parquet(tmp_path / "recommendations" / "recommendations.parquet")
    items = {"domain": ["food"] * 4, "item_id": ["a", "b", "c", "d"]}
    pl.DataFrame(items).write_parquet(tmp_path / "items" / "items.parquet")
    found = cold_shares(("books", "food"), *(tmp_path / name for name in ("items", "sequences", "recommendations")))
    expected = {"top_10": 0.3333, "validation_targets": 0.3333, "catalogue": 0.5}
    assert found == {"books": dict.fromkeys(expected), "food": expected, "all": expected}
