"""What may be recommended: the items that a condition in SQL lets through, and those that a user may get again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from semacdr.availability import available
from semacdr.errors import DataError, examples
from semacdr.model.histories import SECONDS_PER_DAY, Events, IntArray, Queries, ragged
from semacdr.model.vocabulary import Vocabulary

BoolArray = npt.NDArray[np.bool_]

# Shapes: Q queries, I items of one domain.


def available_items(items: pl.DataFrame, condition: str | None, vocabulary: Vocabulary) -> BoolArray:
    """Return which items may be recommended, by ``item_index``: those of the table that meet the condition.

    Args:
        items: the ``items`` table; what it lacks is not available.
        condition: SQL over its columns; None: all of them.
        vocabulary: of the model.

    Raises:
        ConfigError: DuckDB refuses the condition.
        DataError: it leaves no item of a domain.
    """
    kept = items if condition is None else available(items, condition)
    known = kept.select("domain", "item_id").join(vocabulary.table, on=["domain", "item_id"], how="inner")
    is_available = np.zeros(vocabulary.num_items + 1, bool)
    is_available[known["item_index"].to_numpy()] = True
    empty = [
        domain
        for domain, (start, stop) in zip(vocabulary.domains, vocabulary.bounds, strict=True)
        if not is_available[start:stop].any()
    ]
    if empty:
        raise DataError(
            f"no item of {examples(empty)} may be recommended",
            found=f"{condition or 'no condition'}: {kept.height} of {items.height} items",
            expected="at least one item of each domain",
            do="mend recommendations.availability in the data set's TOML",
        )
    return is_available


def among_items(among: list[tuple[str, str]], vocabulary: Vocabulary, domain: str) -> BoolArray:
    """Return which items are on a list of (domain, item_id), by ``item_index``; unknown ones are no matter.

    Raises:
        DataError: none is of the domain that is asked for.
    """
    table = pl.DataFrame(among, schema={"domain": pl.String, "item_id": pl.String}, orient="row").unique()
    known = table.join(vocabulary.table, on=["domain", "item_id"], how="inner").filter(domain=domain)
    if known.is_empty():
        raise DataError(
            "the availability list leaves nothing to recommend",
            found=f"{len(among)} items, none of them a known one of {domain!r}",
            expected="items of that domain",
            do="give a list with some, or none at all",
        )
    listed = np.zeros(vocabulary.num_items + 1, bool)
    listed[known["item_index"].to_numpy()] = True
    return listed


def seen_items(
    events: Events, queries: Queries, chosen: IntArray, domain: int, repeat_after_days: float | None
) -> tuple[Tensor, Tensor]:
    """Return rows and ``item_index`` of what some queries' users had too lately to get it again.

    Args:
        events: the users'.
        queries: at their times.
        chosen: which of them; rows count these.
        domain: whose items.
        repeat_after_days: an item may come again after so long; None: never.
    """
    row, index = ragged(events.offsets[queries.user[chosen]], queries.stop[chosen])
    held = events.domain[index] == domain
    if repeat_after_days is not None:
        age_s = queries.time_s[chosen][row] - events.time_s[index]
        held &= age_s < repeat_after_days * SECONDS_PER_DAY
    return torch.from_numpy(row[held]), torch.from_numpy(events.item[index][held])
