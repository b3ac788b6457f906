"""A domain in which nobody has taken anything is a target all the same."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from semacdr.dataset import Embeddings, Recommendations, Split, Training
from semacdr.embeddings import rewhiten
from semacdr.progress import Progress
from semacdr.recommendations import Recommender
from semacdr.recommendations.rows import ZERO_SHOT
from semacdr.recommendations.serving import open_serving
from semacdr.testing.toy import Toy, sequences_of, write_toy
from semacdr.training import Run as TrainingRun
from semacdr.training import train
from tests.recommendations.conftest import OVERRIDES, make, rows

TASTES = 4


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three domains; all that was taken in the last one is forgotten."""
    folder = tmp_path_factory.mktemp("zero")
    made = write_toy(folder, Toy(num_domains=3, num_users=60, num_tastes=TASTES))
    file = made["interactions"] / "interactions.parquet"
    kept = pl.read_parquet(file).filter(pl.col("domain") != "games")
    kept.write_parquet(file)
    sequences_of(kept).write_parquet(made["sequences"] / "sequences.parquet")
    whitened = folder / "whitened"
    whitened.mkdir()
    rewhiten(Embeddings(), made["embeddings"], made["sequences"], whitened)
    made["embeddings"] = whitened
    checkpoint = folder / "checkpoint"
    overrides = OVERRIDES | {"max_epochs": 6}
    train(Training(overrides=overrides), Split(max_length=20), made, checkpoint, TrainingRun(1), Progress())
    return made | {
        "checkpoint": checkpoint, "trained_embeddings": made["embeddings"],
    }  # fmt: skip


def test_items_of_a_domain_without_events_are_recommended_by_taste_and_it_says_so(
    artifacts: dict[str, Path], tmp_path: Path
):
    table = rows(make(artifacts, tmp_path, Recommendations(top_k=10)))
    games = table.filter(domain="games")
    assert games["user_id"].n_unique() == table["user_id"].n_unique()
    assert games["reason"].str.starts_with(ZERO_SHOT).all()
    assert not table.filter(pl.col("domain") != "games")["reason"].str.starts_with(ZERO_SHOT).any()
    # Users and items of one taste have numbers of one remainder: by chance a quarter would fit.
    taste = (
        pl.col("user_id").str.slice(1).cast(pl.Int64) % TASTES == pl.col("item_id").str.slice(1).cast(pl.Int64) % TASTES
    )
    assert games.select(taste.mean()).item() > 0.5


def test_empty_history_in_such_a_domain_says_that_nothing_is_known(artifacts: dict[str, Path]):
    config = Recommendations(top_k=3)
    serving = open_serving(config, artifacts)
    assert serving.lister.model.zero_shot_domains == ("games",)
    (found,) = Recommender(serving, config, 1_500_000_000).recommend([[]], "games")
    assert [line.reason for line in found] == [f"{ZERO_SHOT}no history either"] * 3
