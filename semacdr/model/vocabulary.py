"""The vocabulary: every item of every domain, cold ones included, and its place in the item tables."""

import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from semacdr.errors import DataError, close_names, examples

COLUMNS = ("domain", "item_id", "item_index")


@dataclass(frozen=True)
class Vocabulary:
    """Items as dense positions: from 1, contiguous within a domain, 0 pads. Users need none."""

    table: pl.DataFrame
    """domain, item_id, item_index; sorted by item_index."""

    @classmethod
    def of_items(cls, items: pl.DataFrame) -> "Vocabulary":
        """Number the items of the ``items`` table, sorted by domain and item.

        Raises:
            DataError: there are no items, or a domain has fewer than two.
        """
        table = items.select("domain", "item_id").unique().sort("domain", "item_id")
        table = table.with_columns(item_index=pl.int_range(1, pl.len() + 1, dtype=pl.Int64))
        counts = table.group_by("domain").len().sort("domain")
        small = counts.filter(pl.col("len") < 2)  # noqa: PLR2004 (one item cannot be ranked)
        if table.is_empty() or not small.is_empty():
            raise DataError(
                "items: too few to rank",
                found=examples(f"{domain}: {count}" for domain, count in small.rows()) or "no items at all",
                expected="at least two items in each domain",
                do="leave the domain out of the data set, or give it more data",
            )
        return cls(table)

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """The domains' names; a ``domain_index`` is a position in it."""
        return tuple(self.table["domain"].unique(maintain_order=True))

    @cached_property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """The first ``item_index`` of each domain, and the one after its last."""
        spans = self.table.group_by("domain", maintain_order=True).agg(
            start=pl.col("item_index").min(), stop=pl.col("item_index").max() + 1
        )
        return tuple((start, stop) for _, start, stop in spans.rows())

    @property
    def num_items(self) -> int:
        """How many items there are, over all domains."""
        return self.table.height

    @cached_property
    def domain_of_item(self) -> npt.NDArray[np.int64]:
        """``domain_index`` by ``item_index``; the padding's is 0."""
        sizes = [stop - start for start, stop in self.bounds]
        return np.concatenate([[0], np.repeat(np.arange(len(sizes)), sizes)]).astype(np.int64)

    @cached_property
    def tie_rank(self) -> npt.NDArray[np.int64]:
        """Which of two items with equal scores comes first, by ``item_index``: that of the lower number.

        By a hash of the item's id, so that neither the alphabet nor newer items move it.
        """
        hashes = np.array([0, *(zlib.crc32(item.encode()) for item in self.table["item_id"])])
        rank = np.empty(len(hashes), np.int64)
        rank[np.lexsort((np.arange(len(hashes)), hashes))] = np.arange(len(hashes))
        return rank

    def domain_index(self, domain: str) -> int:
        """Return a domain's position.

        Raises:
            DataError: there is no such domain.
        """
        if domain not in self.domains:
            raise DataError(f"the model knows no domain {domain!r}", expected=close_names(domain, self.domains))
        return self.domains.index(domain)

    def encode(self, frame: pl.DataFrame, artifact: str) -> npt.NDArray[np.int64]:
        """Return the ``item_index`` of each row's (domain, item_id), in row order.

        Raises:
            DataError: an item that the vocabulary does not hold.
        """
        keys = frame.select(pl.col("domain").cast(pl.String), pl.col("item_id").cast(pl.String))
        joined = keys.join(self.table, on=["domain", "item_id"], how="left", maintain_order="left")
        unknown = joined.filter(pl.col("item_index").is_null()).unique(maintain_order=True)
        if not unknown.is_empty():
            raise DataError(
                f"{artifact}: {unknown.height} items are not in the model's vocabulary",
                found=examples("/".join(row[:2]) for row in unknown.head(6).rows()),
                expected=f"only the {self.num_items} items that the model was made with",
                do="make both from the same version of items: run the training stage again",
            )
        return joined["item_index"].to_numpy().astype(np.int64)
