"""Predictions from elsewhere: a Parquet file of ranks, checked against the task before it is scored."""

# Shapes: Q targets.

from pathlib import Path

import numpy as np
import polars as pl

from semacdr.errors import DataError, examples
from semacdr.evaluation.results import RANKS_KEPT
from semacdr.evaluation.task import Task
from semacdr.model.histories import IntArray, ragged
from semacdr.model.ranking import Ranks, is_repeat
from semacdr.tables import Candidates, scan_files

SCHEMA = {"user_id": pl.String, "domain": pl.String, "rank": pl.Int64, "item_id": pl.String}


def read_predictions(path: Path, task: Task) -> Ranks:
    """Return the ranks that a predictions file gives a task's targets.

    A target that is not among its ranks counts as ranked last.

    Raises:
        DataError: it cannot be read, lacks columns, targets or ranks, or ranks what is no candidate.
    """
    rows = _read(path)
    item = _encoded(rows, task, path)
    users = pl.DataFrame(
        {
            "user_id": task.events.user_ids.gather(task.queries.user),
            "domain": pl.Series(task.vocabulary.domains).gather(task.queries.domain),
            "query": pl.Series(np.arange(len(task.queries))),
        }
    )
    placed = rows.join(users, on=["user_id", "domain"], how="left", maintain_order="left")
    unasked = placed.filter(pl.col("query").is_null())
    if not unasked.is_empty():
        raise _refused(path, "ranks for users and domains without a target", _named(unasked))
    query, place = placed["query"].to_numpy(), placed["rank"].to_numpy()
    missing = np.setdiff1d(np.arange(len(task.queries)), query)
    if len(missing):
        raise _refused(path, f"{len(missing)} of {len(task.queries)} targets have no ranks", _named(users[missing]))
    _check_ranks(path, query, place, item, task, users)
    history, num_candidates = _histories(task)
    _check_candidates(path, query, item, task, users, history)
    rank = num_candidates.copy()
    is_target = item == task.queries.item[query]
    rank[query[is_target]] = place[is_target]
    top = np.zeros((len(task.queries), int(place.max())), np.int64)
    top[query, place - 1] = item
    return Ranks(rank, num_candidates, top)


def _read(path: Path) -> pl.DataFrame:
    try:
        rows = scan_files(path).collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path} cannot be read", found=error, expected="a Parquet file") from error
    lacking = [name for name in SCHEMA if name not in rows.columns]
    if lacking:
        raise DataError(f"{path} lacks {', '.join(lacking)}", found=rows.columns, expected=list(SCHEMA))
    ranks = rows["rank"]
    if ranks.dtype.is_float() and (ranks != ranks.floor()).any():
        raise DataError(f"{path} has ranks that are no whole numbers", expected="1, 2, 3, ... for each target")
    try:
        rows = rows.select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path} has other types", found=error, expected=SCHEMA) from error
    if rows.is_empty() or rows.null_count().sum_horizontal().item():
        raise DataError(f"{path} has no rows, or rows with nothing in them", expected="a value in every column")
    return rows


def _encoded(rows: pl.DataFrame, task: Task, path: Path) -> IntArray:
    keys = rows.select("domain", "item_id")
    unknown = keys.join(task.vocabulary.table, on=["domain", "item_id"], how="anti").unique(maintain_order=True)
    if not unknown.is_empty():
        raise _refused(path, f"{unknown.height} items that the domain does not hold", _named(unknown))
    return task.vocabulary.encode(keys, "predictions")


def _check_ranks(path: Path, query: IntArray, place: IntArray, item: IntArray, task: Task, users: pl.DataFrame) -> None:
    counts, highest = np.bincount(query), np.zeros(len(task.queries), np.int64)
    np.maximum.at(highest, query, place)
    twice = np.bincount(query[pl.DataFrame([query, place]).is_duplicated().to_numpy()], minlength=len(counts)) > 0
    gaps = (highest != counts) | twice | (np.bincount(query[place < 1], minlength=len(counts)) > 0)
    if gaps.any():
        raise _refused(path, "ranks with gaps, or one rank twice", _named(users[np.flatnonzero(gaps)]))
    again = np.unique(query[pl.DataFrame([query, item]).is_duplicated().to_numpy()])
    if len(again):
        raise _refused(path, "one item ranked twice", _named(users[again]))
    least = np.minimum(RANKS_KEPT[task.setting.candidates], _histories(task)[1])
    short = np.flatnonzero(counts < least)
    if len(short):
        expected = f"at least {RANKS_KEPT[task.setting.candidates]} ranks a target, or all candidates"
        raise _refused(path, "too few ranks", _named(users[short]), expected)


def _check_candidates(  # what is ranked, and what may be
    path: Path, query: IntArray, item: IntArray, task: Task, users: pl.DataFrame, history: IntArray
) -> None:
    if task.setting.candidates is Candidates.FULL:
        wrong = np.isin(query * (task.vocabulary.num_items + 1) + item, history)
        what = "items of the user's history"
    else:
        assert task.among is not None
        allowed = np.concatenate([task.among, task.queries.item[:, None]], axis=1)
        wrong = ~(allowed[query] == item[:, None]).any(axis=1)
        what = "items that are not among the drawn candidates"
    if wrong.any():
        raise _refused(path, f"ranks for {what}", _named(users[np.unique(query[wrong])]))


def _histories(task: Task) -> tuple[IntArray, IntArray]:
    """What is no candidate of each target under full ranking, as query x items + item; and how many candidates are."""
    events, queries = task.events, task.queries
    row, index = ragged(events.offsets[queries.user], queries.stop)
    kept = (events.domain[index] == queries.domain[row]) & ~is_repeat(events, queries)[row]
    had = np.unique(row[kept] * (task.vocabulary.num_items + 1) + events.item[index][kept])
    if task.among is not None:
        return had, np.full(len(queries), task.among.shape[1] + 1)
    sizes = np.array([stop - start for start, stop in task.vocabulary.bounds])[queries.domain]
    return had, sizes - np.bincount(had // (task.vocabulary.num_items + 1), minlength=len(queries))


def _named(rows: pl.DataFrame) -> str:
    return examples("/".join(map(str, row[:2])) for row in rows.unique(maintain_order=True).head(6).rows())


def _refused(path: Path, what: str, found: str, expected: str = "") -> DataError:
    return DataError(
        f"{path}: {what}",
        found=found,
        expected=expected or "every target with ranks from 1 on, over its candidates alone",
        do="make it anew for this protocol and candidate policy",
    )
