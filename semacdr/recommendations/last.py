"""What a new version may take over from the last one: the lists of users of whom nothing new is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from semacdr.model.vocabulary import Vocabulary
from semacdr.recommendations.rules import BoolArray
from semacdr.tables import scan_files, table_files

_EVENTS = ("timestamps_s", "domains", "item_ids")


@dataclass(frozen=True)
class Last:
    """The last version."""

    recommendations: Path
    user_vectors: Path
    sequences: Path
    """Folder of what it was made from."""

    def unchanged(
        self, sequences: pl.DataFrame, vocabulary: Vocabulary, available: BoolArray
    ) -> dict[str, pl.DataFrame]:
        """Return the last rows of those users whose events are the same, and whose items are all available.

        A log may bring an event of long ago, or take one back: the time of a user's last event does not tell.

        Args:
            sequences: of the users, sorted by ``user_id``.
            vocabulary: of the model.
            available: which items may be recommended, by ``item_index``.
        """
        first, last = sequences["user_id"][0], sequences["user_id"][-1]
        of_range = pl.col("user_id").is_between(pl.lit(first), pl.lit(last))
        tables = {
            "recommendations": self.recommendations,
            "user_vectors": self.user_vectors,
            "sequences": self.sequences,
        }
        lists, vectors, before = (
            scan_files(table_files(folder, table)).filter(of_range) for table, folder in tables.items()
        )
        offered = vocabulary.table.lazy().filter(pl.Series(available[1:])).select("domain", "item_id")
        lost = lists.select("user_id", "domain", "item_id").join(offered, on=["domain", "item_id"], how="anti")
        same = pl.all_horizontal(pl.col(name) == pl.col(f"{name}_before") for name in _EVENTS)
        events = before.select("user_id", pl.col(*_EVENTS).name.suffix("_before"))
        quiet = sequences.lazy().join(events, on="user_id").filter(same).select("user_id")
        users = quiet.join(lost, on="user_id", how="anti").collect().lazy()
        kept = pl.collect_all([frame.join(users, on="user_id", how="semi") for frame in (lists, vectors)])
        return dict(zip(("recommendations", "user_vectors"), kept, strict=True))
