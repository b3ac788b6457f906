"""The floors: scorers without trained weights, and the values of theirs that are tried on validation.

    random              by chance, anew for each target
    popularity          events of the fit
    recent-popularity   those of the fit's last days
    transitions         what followed the last items of the history (SeqKNN with decay)
    title               how near a title lies to those of the last items of the history (TF-IDF)
    hybrid              transitions and title
    ease                linear item-to-item weights in closed form (``ease.py``)

Each is fitted on the fit's events and ignores when a query is asked, as its rivals in papers do; under the fit
``rolling`` popularity counts up to each query, and what cannot (``Floor.rolls``) is refused. Popularity, far below
any score of theirs, breaks ties of ``transitions``, ``title`` and ``hybrid``.
"""

# Shapes: Q queries, I items of one domain, M recent items.

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import polars as pl
import torch
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor

from semacdr.errors import ConfigError
from semacdr.evaluation.ease import ease_scorer
from semacdr.evaluation.task import Task
from semacdr.model.histories import SECONDS_PER_DAY, Events, IntArray, ItemCounts, Queries, ragged
from semacdr.model.ranking import Scorer, macro, ndcg, rank_targets
from semacdr.model.vocabulary import Vocabulary

TIE = 1e-6
"""Weight of popularity among equals."""

Choice = Mapping[str, Any]


@dataclass(frozen=True)
class Floor:
    """One floor."""

    scorer: Callable[[Task, Choice, int], Scorer]
    """From a task, the values chosen and a seed."""
    grid: Mapping[str, tuple[Any, ...]]
    """Values of each choice; all combinations are tried on validation."""
    parts: tuple[str, ...] = ()
    """Other floors that it is made of, whose choices come first."""
    rolls: bool = True
    """It has a form for the fit ``rolling``, or nothing that could go out of date."""


@dataclass(frozen=True)
class Chosen:
    """What validation chose, and all that was tried."""

    choice: dict[str, Any]
    tried: list[dict[str, Any]]
    """Each choice with its ``ndcg_10`` on validation."""


def choose(name: str, task: Task, seed: int) -> Chosen:
    """Choose a floor's values by NDCG@10 on validation, fitted on ``train``, full ranking; the first of equals wins.

    Raises:
        ConfigError: the floor has no form for the fit.
    """
    floor = FLOORS[name]
    if task.is_rolling and not floor.rolls:
        raise ConfigError(
            f"model {name} is fitted once: it has no rolling form",
            found="--fit rolling",
            expected=f"one of {', '.join(name for name, floor in FLOORS.items() if floor.rolls)}, or a preset",
            do="evaluate it with --fit refit",
        )
    selection = task.selection()
    parts = {part: choose(part, task, seed) for part in floor.parts}
    fixed = {part: chosen.choice for part, chosen in parts.items()}
    choices = [fixed | dict(zip(floor.grid, values, strict=True)) for values in product(*floor.grid.values())]
    if len(choices) == 1:
        return Chosen(choices[0], [])
    tried = []
    for choice in choices:
        scorer = floor.scorer(selection, choice, seed)
        ranks = rank_targets(scorer, selection.events, selection.queries, selection.vocabulary, seed=seed)
        tried.append({**choice, "ndcg_10": macro(ndcg(ranks.rank, 10), selection.queries.domain)})
    best = max(range(len(tried)), key=lambda at: tried[at]["ndcg_10"])
    return Chosen(choices[best], [row for chosen in parts.values() for row in chosen.tried] + tried)


def _random(task: Task, choice: Choice, seed: int) -> Scorer:
    bounds = task.vocabulary.bounds

    def scores(chosen: IntArray, domain: int) -> Tensor:
        start, stop = bounds[domain]
        drawn = [np.random.default_rng([seed, query]).random(stop - start, np.float32) for query in chosen.tolist()]
        return torch.from_numpy(np.stack(drawn))

    return scores


def _same_for_all(count_I1: IntArray, vocabulary: Vocabulary) -> Scorer:
    def scores(chosen: IntArray, domain: int) -> Tensor:
        start, stop = vocabulary.bounds[domain]
        return torch.from_numpy(count_I1[start:stop].astype(np.float32)).expand(len(chosen), -1)

    return scores


def _counted_before(task: Task, days: int | None = None) -> Scorer:
    """Count the events before each target, of the last days or all."""
    counts = ItemCounts(task.events.item, task.events.time_s)

    def scores(chosen: IntArray, domain: int) -> Tensor:
        items = np.arange(*task.vocabulary.bounds[domain])
        moments, of_query = np.unique(task.queries.time_s[chosen], return_inverse=True)
        count_MI = counts.before(items, moments[:, None])
        if days is not None:
            count_MI = count_MI - counts.before(items, moments[:, None] - days * SECONDS_PER_DAY)
        return torch.from_numpy(count_MI[of_query].astype(np.float32))

    return scores


def _popularity(task: Task, choice: Choice, seed: int) -> Scorer:
    if task.is_rolling:
        return _counted_before(task)
    return _same_for_all(task.fit_events.support(task.vocabulary.num_items), task.vocabulary)


def _recent_popularity(task: Task, choice: Choice, seed: int) -> Scorer:
    if task.is_rolling:
        return _counted_before(task, choice["days"])
    return _same_for_all(recent_counts(task.fit_events, task.vocabulary.num_items, choice["days"]), task.vocabulary)


def recent_counts(events: Events, num_items: int, days: int) -> IntArray:
    """Return the events of each item, by ``item_index``, in the last days up to the last event."""
    recent = events.time_s > int(events.time_s.max(initial=0)) - days * SECONDS_PER_DAY
    return np.bincount(events.item[recent], minlength=num_items + 1).astype(np.int64)


def _transitions(task: Task, choice: Choice, seed: int) -> Scorer:
    events = task.fit_events
    followers = following(events, task.vocabulary.num_items, choice["window"], choice["gap_decay"], choice["half_life"])

    def scores(chosen: IntArray, domain: int) -> Tensor:
        start, stop = task.vocabulary.bounds[domain]
        row, item, age = _recent_items(task.events, task.queries, chosen, choice["recent"])
        weight = (1 / (1 + age)).astype(np.float32)
        profile = sparse.csr_matrix((weight, (row, item)), shape=(len(chosen), followers.shape[0]))
        return torch.from_numpy((profile @ followers[:, start:stop]).toarray())

    return _with_ties(scores, events, task.vocabulary)


def following(
    events: Events, num_items: int, window: int, gap_decay: float, half_life: float | None
) -> sparse.csr_matrix:
    """Return how often each item (column) followed each other (row) within so many events of one user's history.

    The n-th event after counts ``gap_decay`` to the power of n - 1, and half as much for each ``half_life`` of days
    before the fit's last event.
    """
    user, last_s = events.user, int(events.time_s.max(initial=0))
    sources, taken, weights = [], [], []
    for gap in range(1, window + 1):
        before = np.flatnonzero(user[gap:] == user[:-gap])
        weight = np.full(len(before), gap_decay ** (gap - 1))
        if half_life is not None:
            weight *= 0.5 ** ((last_s - events.time_s[before + gap]) / SECONDS_PER_DAY / half_life)
        sources.append(events.item[before])
        taken.append(events.item[before + gap])
        weights.append(weight.astype(np.float32))
    pairs = (np.concatenate(weights), (np.concatenate(sources), np.concatenate(taken)))
    return sparse.csr_matrix(pairs, shape=(num_items + 1, num_items + 1))


def _title(task: Task, choice: Choice, seed: int) -> Scorer:
    vectors = [_title_vectors(task, domain) for domain in range(len(task.vocabulary.domains))]

    def scores(chosen: IntArray, domain: int) -> Tensor:
        start, stop = task.vocabulary.bounds[domain]
        row, item, age = _recent_items(task.events, task.queries, chosen, choice["recent"], domain)
        nearest_QI = np.zeros((len(chosen), stop - start), np.float32)
        for place in range(choice["recent"]):
            here = age == place
            similar = (vectors[domain][item[here] - start] @ vectors[domain].T).toarray()
            nearest_QI[row[here]] = np.maximum(nearest_QI[row[here]], choice["age_decay"] ** place * similar)
        return torch.from_numpy(nearest_QI)

    return _with_ties(scores, task.fit_events, task.vocabulary)


def _title_vectors(task: Task, domain: int) -> sparse.csr_matrix:
    table = task.vocabulary.table.filter(pl.col("domain") == task.vocabulary.domains[domain])
    titles = table.join(task.titles, on=["domain", "item_id"], how="left", maintain_order="left")["title"].fill_null("")
    if not titles.str.contains(r"\w\w").any():
        return sparse.csr_matrix((table.height, 1), dtype=np.float32)
    return TfidfVectorizer(dtype=np.float32).fit_transform(titles.to_list()).tocsr()


def _hybrid(task: Task, choice: Choice, seed: int) -> Scorer:
    followed = _transitions(task, choice["transitions"], seed)
    titled = _title(task, choice["title"], seed)
    return lambda chosen, domain: followed(chosen, domain) + choice["title_weight"] * titled(chosen, domain)


def _ease(task: Task, choice: Choice, seed: int) -> Scorer:
    return ease_scorer(task.fit_events, task.events, task.queries, task.vocabulary, choice["ridge"])


def _recent_items(
    events: Events, queries: Queries, chosen: IntArray, count: int, domain: int | None = None
) -> tuple[IntArray, IntArray, IntArray]:
    """Rows, items and ages (0: the last) of the last items of histories; of one domain's, if asked."""
    first, stop = events.offsets[queries.user[chosen]], queries.stop[chosen]
    row, index = ragged(first, stop)
    is_own = np.ones(len(index), bool) if domain is None else events.domain[index] == domain
    own_before = np.concatenate([[0], np.cumsum(is_own)])
    ends = own_before[np.cumsum(stop - first)]
    age = ends[row] - own_before[1:]
    kept = is_own & (age < count)
    return row[kept], events.item[index][kept], age[kept]


def _with_ties(scorer: Scorer, events: Events, vocabulary: Vocabulary) -> Scorer:
    count_I1 = events.support(vocabulary.num_items)
    share_I1 = torch.from_numpy((TIE * count_I1 / max(1, count_I1.max())).astype(np.float32))

    def scores(chosen: IntArray, domain: int) -> Tensor:
        start, stop = vocabulary.bounds[domain]
        return scorer(chosen, domain) + share_I1[start:stop]

    return scores


FLOORS: Mapping[str, Floor] = {
    "random": Floor(_random, {}),
    "popularity": Floor(_popularity, {}),
    "recent-popularity": Floor(_recent_popularity, {"days": (7, 30, 180)}),
    "transitions": Floor(
        _transitions,
        {"window": (5,), "gap_decay": (0.5, 0.8), "half_life": (None, 7.0, 30.0), "recent": (5, 10)},
        rolls=False,
    ),
    "title": Floor(_title, {"recent": (5, 10), "age_decay": (0.8, 1.0)}),
    "hybrid": Floor(_hybrid, {"title_weight": (0.1, 0.3, 1.0, 3.0)}, parts=("transitions", "title"), rolls=False),
    "ease": Floor(_ease, {"ridge": (30.0, 300.0)}, rolls=False),
}
