"""A task: the targets of one protocol, what they are ranked among, and what a model may have seen."""

# Shapes: Q targets, C candidates.

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from semacdr.dataset import Protocol
from semacdr.errors import DataError
from semacdr.model.histories import Events, IntArray, ItemCounts, Queries, Visibility, queries_of_targets
from semacdr.model.vocabulary import Vocabulary
from semacdr.tables import Candidates, FitOn, Part

NUM_SAMPLED = 999
CANDIDATE_SEED = 0
"""Candidates are drawn once, alike for every model and training seed."""


@dataclass(frozen=True)
class Setting:
    """What makes results comparable: tables never hold two of them."""

    protocol: Protocol
    candidates: Candidates
    fit: FitOn

    def __str__(self) -> str:
        return f"protocol {self.protocol}, candidates {self.candidates}, fit {self.fit}"


@dataclass(frozen=True)
class Task:
    """What is asked of a model, and what it may know."""

    setting: Setting
    vocabulary: Vocabulary
    titles: pl.DataFrame
    """domain, item_id, title."""
    events: Events
    """All of them: histories are cut from these at each target."""
    part: Part = Part.TEST

    @property
    def visibility(self) -> Visibility:
        """What histories hold."""
        return Visibility(self.setting.protocol)

    @cached_property
    def fit_events(self) -> Events:
        """What weights may be fitted on."""
        return self.events.up_to(Part.TRAIN if self.part is Part.VALIDATION else self.setting.fit.last_part)

    @property
    def is_rolling(self) -> bool:
        """What counts events knows all that lie strictly before a target."""
        return self.setting.fit is FitOn.ROLLING

    @cached_property
    def support_Q(self) -> IntArray:  # noqa: N802 (the shape)
        """How many events of each target's item the model knows."""
        if self.is_rolling:
            return ItemCounts(self.events.item, self.events.time_s).before(self.queries.item, self.queries.time_s)
        return self.fit_events.support(self.vocabulary.num_items)[self.queries.item]

    @cached_property
    def queries(self) -> Queries:
        """The targets.

        Raises:
            DataError: there are none.
        """
        queries = queries_of_targets(self.events, self.part, self.visibility)
        if len(queries) == 0:
            raise DataError(
                f"sequences: there are no {self.part} targets",
                found=f"{len(self.events.item)} events, 0 targets in part {self.part}",
                expected=f"targets of protocol {self.setting.protocol}",
                do="lower split.test_quantile, or give the data set more data",
            )
        return queries

    @cached_property
    def among(self) -> IntArray | None:
        """The drawn candidates beside each target; None: all items.

        Raises:
            DataError: a domain has too few items.
        """
        if self.setting.candidates is Candidates.FULL:
            return None
        return draw_candidates(self.events, self.queries, self.vocabulary)

    def selection(self) -> "Task":
        """Return the task that choices are made on: validation, fitted on ``train``, test events out of reach."""
        fit = FitOn.ROLLING if self.is_rolling else FitOn.TRAIN
        setting = Setting(self.setting.protocol, Candidates.FULL, fit)
        return Task(setting, self.vocabulary, self.titles, self.events.up_to(Part.VALIDATION), Part.VALIDATION)


def draw_candidates(
    events: Events, queries: Queries, vocabulary: Vocabulary, size: int = NUM_SAMPLED, seed: int = CANDIDATE_SEED
) -> IntArray:
    """Draw ``size`` distinct items of each target's domain that the user never touches, in any part of the log.

    The same target has the same candidates, in whichever order targets stand. The users of the target-only twin, one
    in each domain, are called so that they stand as their originals do.

    Raises:
        DataError: a user leaves fewer of a domain.
    """
    among_QC = np.zeros((len(queries), size), np.int64)
    user_Q = events.user_ids.gather(queries.user).rank("dense").to_numpy()
    place_Q = np.argsort(np.lexsort((queries.item, queries.domain, user_Q)))
    for query, (user, domain) in enumerate(zip(queries.user.tolist(), queries.domain.tolist(), strict=True)):
        start, stop = vocabulary.bounds[domain]
        touched = events.item[events.offsets[user] : events.offsets[user + 1]]
        touched = np.unique(touched[(touched >= start) & (touched < stop)])
        room = stop - start - len(touched)
        if room < size:
            raise DataError(
                f"domain {vocabulary.domains[domain]} has too few items for {size} candidates",
                found=f"{stop - start} items, {room} of them untouched by user {events.user_ids[user]}",
                expected=f"at least {size} untouched ones",
                do="evaluate with --candidates full",
            )
        drawn = np.random.default_rng([seed, place_Q[query]]).choice(room, size, replace=False)
        # The n-th untouched item: touched ones are stepped over, in order.
        among_QC[query] = (
            start + drawn + np.searchsorted(touched - start - np.arange(len(touched)), drawn, side="right")
        )
    return among_QC
