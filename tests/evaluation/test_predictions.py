"""A predictions file goes round, and one that breaks a rule is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from semacdr.dataset import Protocol
from semacdr.errors import DataError
from semacdr.evaluation.floors import FLOORS
from semacdr.evaluation.predictions import read_predictions
from semacdr.evaluation.results import prediction_rows, rank
from semacdr.evaluation.task import Setting, Task, draw_candidates
from semacdr.tables import Candidates, FitOn
from tests.evaluation.test_task import VOCABULARY, split
from tests.model.test_ranking import EVENTS as REPEATS
from tests.model.test_ranking import VOCABULARY as SONGS


def task_of(candidates: Candidates) -> Task:
    titles = VOCABULARY.table.select("domain", "item_id", title=pl.lit(None, pl.String))
    made = Task(Setting(Protocol.GTS, candidates, FitOn.REFIT), VOCABULARY, titles, split(Protocol.GTS))
    if candidates is Candidates.SAMPLED_999:
        # One candidate beside each target: the log is too small for 999. u touches two of b's three items.
        vars(made)["among"] = draw_candidates(made.events, made.queries, VOCABULARY, size=1)
    return made


def written(made: Task, path: Path, change: Callable[[pl.DataFrame], pl.DataFrame] = lambda rows: rows) -> Path:
    run = rank(made, "popularity", 0, FLOORS["popularity"].scorer(made, {}, 0))
    change(prediction_rows(made, run)).write_parquet(path / "predictions.parquet")
    return path / "predictions.parquet"


@pytest.mark.parametrize("candidates", list(Candidates))
def test_predictions_go_round(tmp_path: Path, candidates: Candidates):
    made = task_of(candidates)
    run = rank(made, "popularity", 0, FLOORS["popularity"].scorer(made, {}, 0))
    found = read_predictions(written(made, tmp_path), made)
    assert np.array_equal(found.rank, run.ranks.rank)
    assert np.array_equal(found.num_candidates, run.ranks.num_candidates)


def test_predictions_of_full_ranking_hold_every_candidate_of_a_small_domain(tmp_path: Path):
    made = task_of(Candidates.FULL)
    rows = pl.read_parquet(written(made, tmp_path))
    # u had b1 and takes b2: b2 and b3 are ranked. w had nothing: all five of a.
    assert rows.filter(pl.col("user_id") == "u").sort("item_id").select("domain", "item_id").rows() == [
        ("b", "b2"),
        ("b", "b3"),
    ]
    assert rows.filter(pl.col("user_id") == "w")["rank"].to_list() == [1, 2, 3, 4, 5]


def test_predictions_of_what_the_user_had_before_are_over_all_items(tmp_path: Path):
    titles = SONGS.table.select("domain", "item_id", title=pl.lit(None, pl.String))
    made = Task(Setting(Protocol.GTS, Candidates.FULL, FitOn.REFIT), SONGS, titles, REPEATS)
    found = read_predictions(written(made, tmp_path), made)
    # u had one of five items in a; v takes again one of two that were had; v in b had none of two.
    assert found.num_candidates.tolist() == [4, 5, 2]
    v = pl.read_parquet(tmp_path / "predictions.parquet").filter(user_id="v", domain="a")
    assert sorted(v["item_id"]) == ["p", "q", "r", "s", "t"]


U = pl.col("user_id") == "u"
CHANGES: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], str]] = {
    "a target is missing": (lambda rows: rows.filter(~U), "1 of 3 targets have no ranks"),
    "nobody asked": (
        lambda rows: pl.concat([rows, rows.filter(U).with_columns(user_id=pl.lit("nobody"))]),
        "ranks for users and domains without a target",
    ),
    "a history item": (
        lambda rows: rows.with_columns(
            item_id=pl.when(U & (pl.col("rank") == 1)).then(pl.lit("b1")).otherwise("item_id")
        ),
        "items of the user's history",
    ),
    "an unknown item": (
        lambda rows: rows.with_columns(item_id=pl.when(U).then(pl.lit("nothing")).otherwise("item_id")),
        "items that the domain does not hold",
    ),
    "an item of another domain": (
        lambda rows: rows.with_columns(item_id=pl.when(U).then(pl.lit("a5")).otherwise("item_id")),
        "items that the domain does not hold",
    ),
    "a gap": (lambda rows: rows.with_columns(rank=pl.col("rank") + pl.when(U).then(1).otherwise(0)), "ranks with gaps"),
    "a rank twice": (lambda rows: pl.concat([rows, rows.filter(U)]), "ranks with gaps, or one rank twice"),
    "an item twice": (
        lambda rows: rows.with_columns(item_id=pl.when(U).then(pl.lit("b3")).otherwise("item_id")),
        "one item ranked twice",
    ),
    "too few": (lambda rows: rows.filter((pl.col("user_id") != "w") | (pl.col("rank") < 4)), "too few ranks"),
    "a column": (lambda rows: rows.drop("rank"), "lacks rank"),
    "a type": (lambda rows: rows.with_columns(rank=pl.lit("first")), "has other types"),
    "no rows": (lambda rows: rows.clear(), "has no rows"),
    "a null": (lambda rows: rows.with_columns(item_id=pl.lit(None, pl.String)), "has no rows, or rows with nothing"),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_predictions_that_break_a_rule_are_refused(tmp_path: Path, name: str):
    made = task_of(Candidates.FULL)
    change, message = CHANGES[name]
    with pytest.raises(DataError, match=message):
        read_predictions(written(made, tmp_path, change), made)


def test_predictions_of_what_was_not_drawn_are_refused(tmp_path: Path):
    made = task_of(Candidates.SAMPLED_999)
    path = written(made, tmp_path)
    others = replace(made)
    # w may be shown any of a's five items: draw another one.
    among = made.among
    assert among is not None
    other = among.copy()
    other[2, 0] = next(item for item in range(1, 6) if item not in {among[2, 0], made.queries.item[2]})
    vars(others)["among"] = other
    with pytest.raises(DataError, match="not among the drawn candidates"):
        read_predictions(path, others)


def test_predictions_that_are_no_parquet_are_refused(tmp_path: Path):
    path = tmp_path / "predictions.parquet"
    path.write_text("not Parquet")
    with pytest.raises(DataError, match="cannot be read"):
        read_predictions(path, task_of(Candidates.FULL))
