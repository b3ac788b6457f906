"""Controls of transfer: what a model does when the other domains' histories are missing or somebody else's."""

# Shapes: Q queries.

from dataclasses import replace

import numpy as np
import polars as pl

from semacdr.comparison.rows import Source
from semacdr.model.histories import Events, IntArray, Queries

_LISTS = ("domains", "item_ids", "timestamps_s", "parts", "is_target")
SEPARATOR = "\x1f"
_TRIES = 50
"""Users that are looked at for one that is unrelated; then the last one has to do."""


def alone(sequences: pl.DataFrame) -> pl.DataFrame:
    """Return the ``sequences`` table with a user of its own for each user and domain; parts and targets stay."""
    flat = sequences.explode(*_LISTS)
    named = flat.with_columns(user_id=pl.concat_str("user_id", pl.lit(SEPARATOR), pl.col("domains").cast(pl.String)))
    return named.group_by("user_id", maintain_order=True).agg(_LISTS).sort("user_id")


def whose(user_ids: pl.Series) -> pl.Series:
    """Return the users that ``alone`` made these of."""
    return user_ids.str.split(SEPARATOR).list.first()


def with_source(events: Events, queries: Queries, source: Source, seed: int) -> tuple[Events, Queries]:
    """Return the same queries, each by a user of its own whose source history is off, another's, or a stranger's.

    Somebody else's events are those in other domains than the query's and strictly before it in time; as many of the
    last ones as that user has.

    Args:
        events: of all users.
        queries: as they are.
        source: off, shuffled or unrelated.
        seed: of who is drawn.
    """
    rng = np.random.default_rng(seed)
    items = [set(events.item[a:b].tolist()) for a, b in zip(events.offsets[:-1], events.offsets[1:], strict=True)]
    kept, sizes = [], np.zeros(len(queries), np.int64)
    for query in range(len(queries)):
        user, domain, time_s = int(queries.user[query]), int(queries.domain[query]), int(queries.time_s[query])
        own = np.arange(events.offsets[user], queries.stop[query])
        chosen = own[events.domain[own] == domain]
        if source is not Source.OFF:
            other = _somebody(items, user, source, rng)
            theirs = np.arange(events.offsets[other], events.offsets[other + 1])
            theirs = theirs[(events.domain[theirs] != domain) & (events.time_s[theirs] < time_s)]
            chosen = np.concatenate([theirs, chosen])
            chosen = chosen[np.argsort(events.time_s[chosen], kind="stable")]
        kept.append(chosen)
        sizes[query] = len(chosen)
    index: IntArray = np.concatenate(kept).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    made = Events(
        user_ids=events.user_ids.gather(queries.user),
        offsets=offsets,
        item=events.item[index],
        domain=events.domain[index],
        time_s=events.time_s[index],
        part=events.part[index],
        is_target=np.zeros(len(index), bool),
    )
    return made, replace(queries, user=np.arange(len(queries)), stop=offsets[1:])


def _somebody(items: list[set[int]], user: int, source: Source, rng: np.random.Generator) -> int:
    other = user
    for _ in range(_TRIES if len(items) > 1 else 0):
        other = int(rng.integers(len(items) - 1))
        other += other >= user
        if source is Source.SHUFFLED or not items[other] & items[user]:
            break
    return other
