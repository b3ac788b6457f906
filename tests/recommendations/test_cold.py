from pathlib import Path

import polars as pl

from semacdr.recommendations.cold import cold_shares


def test_cold_is_what_nobody_had_taken_before(tmp_path: Path):
    """By hand: b is new when v takes it for a target, a is not; of what is shown, c was never taken."""
    for name in ("sequences", "recommendations"):
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
    found = cold_shares(("books", "food"), tmp_path / "sequences", tmp_path / "recommendations")
    expected = {"top_10": 0.3333, "validation_targets": 0.3333}
    assert found == {"books": {"top_10": None, "validation_targets": None}, "food": expected, "all": expected}
