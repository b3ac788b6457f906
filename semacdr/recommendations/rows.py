"""From ranked lists to rows of the ``recommendations`` table, with what carried each score."""

# Shapes: Q queries, K ranks, N domains, R rows: the ranks of all queries under each other.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import torch

from semacdr.model.checkpoint import LoadedModel
from semacdr.model.config import ItemView, Thread
from semacdr.model.experts import HALF_LIVES_DAYS
from semacdr.model.histories import Events, IntArray
from semacdr.model.scorer import TRAINED
from semacdr.model.semacdr import UserStates
from semacdr.recommendations.lists import Ranked

_HISTORIES = {
    Thread.TARGET: "the history in its own domain",
    Thread.SOURCE: "the history in other domains",
    Thread.MIXED: "the mixed history",
}
_VIEWS = {ItemView.AGNOSTIC: "agnostic text", ItemView.SPECIFIC: "specific text", ItemView.ID: "ID"}

_LAST = {days: "day" if days == 1 else f"{days} days" for days in HALF_LIVES_DAYS} | {3_650: "ten years"}
REASONS = {
    **{f"popularity_{days}": f"many took it in the last {last} that the model knows" for days, last in _LAST.items()},
    "trend": "how many took it lately, and how many before that",
    "transitions": "it often follows what was taken last",
    "title": "its title is like those of what was taken last",
    "specific": "its specific text is like those of what was taken last",
    "agnostic": "its agnostic text is like those of what was taken last",
    "repeats": "it was taken before",
    "similar": "its title is like those of what often follows what was taken last",
    "neighbours": "others who took what was taken lately took it, too",
}
"""In words, which expert's column decided."""
_NO_HISTORY = "no history: what most people start with"
ZERO_SHOT = "zero-shot: nobody has taken anything in this domain; "


def rows_of(
    model: LoadedModel,
    names: pl.DataFrame,
    events: Events,
    states: UserStates,
    ranked: Ranked,
    columns: tuple[str, ...],
) -> pl.DataFrame:
    """Return the rows of some queries' lists, items that stand for none left out.

    Args:
        model: that scored.
        names: user_id and domain, a row per query.
        events: in which histories lie.
        states: of all queries.
        ranked: the lists.
        columns: names of the score columns.
    """
    is_item_R = ranked.item_QK.flatten().numpy() > 0
    num_ranks = ranked.item_QK.shape[1]
    item_R = ranked.item_QK.flatten().numpy()[is_item_R]
    query_R = np.repeat(ranked.query_Q, num_ranks)[is_item_R]
    rank_R = np.tile(np.arange(1, num_ranks + 1), len(ranked.query_Q))[is_item_R]
    column_R = ranked.column_QK.flatten().numpy()[is_item_R]
    history_R = _largest(states.weight_Q3)[query_R]
    view_R = _largest(model.items.weight_R3)[item_R]
    return pl.DataFrame(
        [
            names["user_id"].gather(query_R),
            names["domain"].gather(query_R),
            pl.Series("rank", rank_R),
            model.vocabulary.table["item_id"].gather(item_R - 1),
            _flat("score", ranked.score_QK, is_item_R),
            _flat("trained_score", ranked.trained_QK, is_item_R),
            _named("history", history_R, tuple(Thread)),
            _named("view", view_R, tuple(ItemView)),
            _named("decided_by", column_R, columns),
            _reasons(model, model.vocabulary.domain_of_item[item_R], history_R, view_R, column_R, columns),
            _nearest(model, events, ranked, is_item_R),
        ]
    )


@dataclass(frozen=True)
class Why:
    """What carried a score, as the columns of ``recommendations`` say it."""

    reason: str
    decided_by: str
    history: str | None
    view: str | None


def why_of(model: LoadedModel, states: UserStates, ranked: Ranked, columns: tuple[str, ...]) -> list[list[Why]]:
    """Return what carried each score of some queries' lists; see ``rows_of``, which says the same of many."""
    threads, views = ([None, *map(str, names)] for names in (Thread, ItemView))
    history_Q = _largest(states.weight_Q3[torch.from_numpy(ranked.query_Q)]).tolist()
    view_QK = _largest(model.items.weight_R3[ranked.item_QK.flatten()]).reshape(ranked.item_QK.shape).tolist()
    domain = model.vocabulary.domain_of_item[ranked.item_QK[:, 0].numpy()].tolist()
    found = []
    for query, (history, view_K, column_K) in enumerate(
        zip(history_Q, view_QK, ranked.column_QK.tolist(), strict=True)
    ):
        zero_shot = model.vocabulary.domains[domain[query]] in model.zero_shot_domains
        found.append(
            [
                Why(
                    _words(threads[1 + history], views[1 + view], columns[column], zero_shot=zero_shot),
                    columns[column],
                    threads[1 + history],
                    views[1 + view],
                )
                for view, column in zip(view_K, column_K, strict=True)
            ]
        )
    return found


def _largest(share_R3: torch.Tensor) -> IntArray:
    """The place of each row's largest share; -1 where it has none."""
    share, place = share_R3.max(dim=1)
    found: IntArray = place.masked_fill(share <= 0, -1).numpy()
    return found


def _flat(name: str, value_QK: torch.Tensor, kept_R: np.ndarray) -> pl.Series:
    return pl.Series(name, value_QK.flatten().double().numpy()[kept_R])


def _named(name: str, place_R: IntArray, words: tuple[str, ...]) -> pl.Series:
    """The word at each place; null at -1."""
    return pl.Series(name, [None, *map(str, words)], dtype=pl.String).gather(place_R + 1)


def _reasons(
    model: LoadedModel,
    domain_R: IntArray,
    history_R: IntArray,
    view_R: IntArray,
    column_R: IntArray,
    columns: tuple[str, ...],
) -> pl.Series:
    """The words of each row: there are few different ones."""
    shape = (len(model.vocabulary.domains), 1 + len(Thread), 1 + len(ItemView), len(columns))
    codes, code_R = np.unique(
        np.ravel_multi_index((domain_R, history_R + 1, view_R + 1, column_R), shape), return_inverse=True
    )
    threads, views = [None, *map(str, Thread)], [None, *map(str, ItemView)]
    texts = [
        _words(
            threads[history],
            views[view],
            columns[column],
            zero_shot=model.vocabulary.domains[domain] in model.zero_shot_domains,
        )
        for domain, history, view, column in zip(*np.unravel_index(codes, shape), strict=True)
    ]
    return pl.Series("reason", texts, dtype=pl.String).gather(code_R)


def _words(history: str | None, view: str | None, column: str, *, zero_shot: bool) -> str:
    if not zero_shot:
        return _reason(history, view, column)
    return ZERO_SHOT + ("no history either" if history is None else _reason(history, view, column))


def _reason(history: str | None, view: str | None, column: str) -> str:
    if column != TRAINED:
        return REASONS[column]
    if history is None:
        return _NO_HISTORY
    of_item = f"the item's {_VIEWS[ItemView(view)]}" if view else "an item that nothing is known of"
    return f"{_HISTORIES[Thread(history)]} and {of_item} carry most weight"


def _nearest(model: LoadedModel, events: Events, ranked: Ranked, kept_R: np.ndarray) -> pl.Series:
    num_domains = len(model.vocabulary.domains)
    event_RN = ranked.nearest_QKN.reshape(-1, num_domains).numpy()[kept_R]
    found_RN = event_RN >= 0
    item = events.item[event_RN[found_RN]]
    cosine = ranked.similarity_QKN.reshape(-1, num_domains).double().numpy()[kept_R][found_RN].round(4)
    columns = {
        "domain": pl.Series(model.vocabulary.domains, dtype=pl.String).gather(np.nonzero(found_RN)[1]),
        "item_id": model.vocabulary.table["item_id"].gather(item - 1),
        "similarity": pl.Series(cosine, dtype=pl.Float64),
    }
    near = pa.StructArray.from_arrays([column.to_arrow() for column in columns.values()], names=list(columns))
    stops = np.concatenate([[0], np.cumsum(found_RN.sum(axis=1))])
    return pl.Series("nearest", pa.LargeListArray.from_arrays(pa.array(stops, pa.int64()), near))
