"""What a new version may take over from the last one: the lists of users to whom nothing has happened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from semacdr.model.vocabulary import Vocabulary
from semacdr.recommendations.rules import BoolArray
from semacdr.tables import table_files


@dataclass(frozen=True)
class Last:
    """The last version."""

    recommendations: Path
    user_vectors: Path
    as_of_s: int

    def unchanged(
        self, sequences: pl.DataFrame, vocabulary: Vocabulary, available: BoolArray
    ) -> dict[str, pl.DataFrame]:
        """Return the last rows of those users who have no event since, and whose items are all available.

        Args:
            sequences: of the users, sorted by ``user_id``.
            vocabulary: of the model.
            available: which items may be recommended, by ``item_index``.
        """
        first, last = sequences["user_id"][0], sequences["user_id"][-1]
        of_range = pl.col("user_id").is_between(pl.lit(first), pl.lit(last))
        quiet = sequences.filter(pl.col("timestamps_s").list.last() < self.as_of_s).select("user_id")
        rows = {}
        for table, folder in (("recommendations", self.recommendations), ("user_vectors", self.user_vectors)):
            there = pl.scan_parquet(table_files(folder, table), hive_partitioning=False).filter(of_range)
            rows[table] = there.join(quiet.lazy(), on="user_id", how="semi").collect()
        offered = vocabulary.table.filter(pl.Series(available[1:])).select("domain", "item_id")
        lost = rows["recommendations"].join(offered, on=["domain", "item_id"], how="anti").select("user_id")
        return {table: frame.join(lost, on="user_id", how="anti") for table, frame in rows.items()}
