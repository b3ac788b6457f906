"""Recommendations for histories that are given: new users, new events; nothing is trained, published or written."""

# Shapes: B histories.

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import structlog
import torch

from semacdr.dataset import LAST_TIMESTAMP_S, Recommendations
from semacdr.errors import ConfigError, DataError, examples
from semacdr.model.growth import TRAINED_ON
from semacdr.model.histories import Events, Queries
from semacdr.recommendations.lists import Ranked
from semacdr.recommendations.rows import Why, why_of
from semacdr.recommendations.rules import among_items
from semacdr.recommendations.serving import Serving, open_serving
from semacdr.store import Store
from semacdr.store.lineage import made_from
from semacdr.store.promotion import PRODUCTION
from semacdr.tables import scan_files, table_files

log = structlog.get_logger()

Event = tuple[str, str] | tuple[str, str, int]
"""Domain, item and, where it is known, the time in seconds since 1970-01-01 UTC."""


@dataclass(frozen=True)
class Recommendation:
    """One line of a list; see the table ``recommendations``."""

    rank: int
    domain: str
    item_id: str
    title: str | None
    score: float
    reason: str
    decided_by: str
    history: str | None
    view: str | None
    nearest: list[dict[str, Any]]
    """domain, item_id, similarity of the nearest past item of each domain."""


class Recommender:
    """Ranks as the batch stage does, by the same code, from the same versions of everything. Threads may share it.

    Args:
        serving: what ranks.
        config: the rules of the batch.
        as_of_s: the moment of the batch, from which a history's age is counted.
    """

    def __init__(self, serving: Serving, config: Recommendations, as_of_s: int) -> None:
        self.as_of_s = as_of_s
        self._serving = serving
        self._lister = serving.lister
        self._config = config

    @classmethod
    def open(cls, store: Store | str | Path, dataset: str, at: str = PRODUCTION) -> Recommender:
        """Open what made a version of the recommendations.

        Args:
            store: the store, or where it lies.
            dataset: the data set's name.
            at: a version of ``recommendations``, or an alias.

        Raises:
            StoreError: there is no such version, or what it was made from is gone or broken.
        """
        opened = store if isinstance(store, Store) else Store(store)
        batch = opened.get(dataset, "recommendations", at)
        sources = {name: made_from(opened, batch, name) for name in ("checkpoint", "items", "embeddings", "sequences")}
        sources |= {f"trained_{name}": made_from(opened, sources["checkpoint"], name) for name in TRAINED_ON}
        config = Recommendations.model_validate(batch.manifest.config["recommendations"])
        serving = open_serving(config, {name: artifact.path for name, artifact in sources.items()})
        return cls(serving, config, int(batch.manifest.details["as_of_s"]))

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains that can be asked for."""
        return self._lister.model.vocabulary.domains

    def history(self, user_id: str) -> list[Event]:
        """Return what the batch knows of a user, oldest first: to rank for, with new events behind it or without.

        Raises:
            DataError: there is no such user.
        """
        columns = ("domains", "item_ids", "timestamps_s")
        table = scan_files(table_files(self._serving.sequences, "sequences")).filter(user_id=user_id)
        rows = table.select(columns).collect().rows()
        if not rows:
            raise DataError(
                f"no user {user_id!r}",
                expected="a user of the table `sequences`",
                do="rank a new user for its history alone",
            )
        return list(zip(*rows[0], strict=True))

    @torch.inference_mode()
    def recommend(
        self,
        histories: Sequence[Sequence[Event]],
        domain: str,
        k: int | None = None,
        *,
        among: Collection[tuple[str, str]] | None = None,
        strict: bool = False,
    ) -> list[list[Recommendation]]:
        """Return the best items of a domain for each history, best first; fewer than ``k`` where there are no more.

        Args:
            histories: the events of each user. Those with times are put in order; if any has none, they are taken in
                the order given, those without as the last seconds before the batch. May be empty: the list is that of
                a new user.
            domain: of the items.
            k: ranks; None: as many as the batch has.
            among: (domain, item_id) that are available, beside the batch's own rule; None: all.
            strict: refuse a history with an item that is not known; else such events are left out with a warning.

        Raises:
            ConfigError: ``k`` is less than 1.
            DataError: an unknown domain, an unknown item and ``strict``, a time that is not in seconds, or a list that
                leaves nothing to recommend.
        """
        if k is not None and k < 1:
            raise ConfigError("k", found=k, expected="at least 1")
        vocabulary = self._lister.model.vocabulary
        target = vocabulary.domain_index(domain)
        if not histories:
            return []
        events = self._events(histories, strict=strict)
        count = len(histories)
        # Each is asked for after its own last event: the other histories of a call do not move it.
        now_s = np.full(count, self.as_of_s)
        np.maximum.at(now_s, events.user, events.time_s + 1)
        queries = Queries(
            user=np.arange(count),
            stop=events.offsets[1:],
            domain=np.full(count, target),
            time_s=now_s,
            item=np.zeros(count, np.int64),
        )
        lister = self._lister
        if among is not None:
            lister = replace(lister, available=lister.available & among_items(list(among), vocabulary, domain))
        states = lister.model.user_states(events, queries)
        lists: list[list[Recommendation]] = [[] for _ in histories]
        for block in lister.rank(events, queries, states.vector_QD, k or self._config.top_k):
            why = why_of(lister.model, states, block, lister.scorer.columns)
            for row, user in enumerate(block.query_Q.tolist()):
                lists[user] = self._lines(events, block, row, domain, why)
        return lists

    def _lines(
        self, events: Events, block: Ranked, row: int, domain: str, why: list[list[Why]]
    ) -> list[Recommendation]:
        """The list of one history of a block."""
        names, lines = self._names, []
        near_KN = zip(block.nearest_QKN[row].tolist(), block.similarity_QKN[row].tolist(), strict=True)
        ranks = zip(block.item_QK[row].tolist(), block.score_QK[row].tolist(), near_KN, why[row], strict=True)
        for rank, (item, score, (event_N, similarity_N), reason) in enumerate(ranks, start=1):
            if not item:
                break
            nearest = [
                dict(zip(("domain", "item_id"), names[events.item[event]], strict=True))
                | {"similarity": round(cosine, 4)}
                for event, cosine in zip(event_N, similarity_N, strict=True)
                if event >= 0
            ]
            name = names[item]
            lines.append(
                Recommendation(
                    rank=rank,
                    domain=domain,
                    item_id=name[1],
                    title=self._titles.get(name),
                    score=score,
                    nearest=nearest,
                    **vars(reason),
                )
            )
        return lines

    def unknown(self, history: Sequence[Event]) -> list[tuple[str, str]]:
        """Return the items of a history that are not known."""
        return [event[:2] for event in history if event[:2] not in self._index]

    def _events(self, histories: Sequence[Sequence[Event]], *, strict: bool) -> Events:
        unknown = [event for history in histories for event in self.unknown(history)]
        if unknown:
            shown = examples(f"{domain}:{item}" for domain, item in dict.fromkeys(unknown))
            if strict:
                raise DataError(
                    f"{len(unknown)} events with items that are not known",
                    found=shown,
                    expected=f"items of {', '.join(self.domains)}",
                    do="leave them out, or do without `strict`",
                )
            log.warning("events with unknown items are left out", events=len(unknown), items=shown)
        rows = [row for user, history in enumerate(histories) for row in self._rows(user, history)]
        index = np.array([row[3] for row in rows], np.int64)
        count = np.bincount(np.array([row[0] for row in rows], np.int64), minlength=len(histories))
        return Events(
            user_ids=pl.Series([str(user) for user in range(len(histories))], dtype=pl.String),
            offsets=np.concatenate([[0], np.cumsum(count)]).astype(np.int64),
            item=index,
            domain=self._lister.model.vocabulary.domain_of_item[index],
            time_s=np.array([row[1] for row in rows], np.int64),
            part=np.zeros(len(rows), np.int64),
            is_target=np.zeros(len(rows), bool),
        )

    def _rows(self, user: int, history: Sequence[Event]) -> list[tuple[int, int, tuple[str, str], int]]:
        """User, time, name and ``item_index`` of each known event, oldest first."""
        timed: list[tuple[int, int, tuple[str, str]]] = []
        for place, event in enumerate(history):
            untimed_s = max(self.as_of_s - len(history) + place, timed[-1][1] if timed else 0)
            timed.append((user, event[2] if len(event) == 3 else untimed_s, event[:2]))  # noqa: PLR2004
        if late := [row for row in timed if row[1] >= max(LAST_TIMESTAMP_S, self.as_of_s)]:
            raise DataError(
                "the time of an event is beyond 2100",
                found=f"{':'.join(late[0][2])} at {late[0][1]}",
                expected="seconds since 1970-01-01 UTC",
                do="divide milliseconds by 1,000",
            )
        known = [(*row, self._index[row[2]]) for row in timed if row[2] in self._index]
        return sorted(known) if all(len(event) == 3 for event in history) else known  # noqa: PLR2004

    @cached_property
    def _names(self) -> list[tuple[str, str]]:
        """Domain and item by ``item_index``."""
        return [("", ""), *self._lister.model.vocabulary.table.select("domain", "item_id").rows()]

    @cached_property
    def _index(self) -> dict[tuple[str, str], int]:
        return {(domain, item): index for domain, item, index in self._lister.model.vocabulary.table.rows()}

    @cached_property
    def _titles(self) -> dict[tuple[str, str], str | None]:
        table = self._serving.items.select("domain", "item_id", "title")
        return {(domain, item): title for domain, item, title in table.rows()}
