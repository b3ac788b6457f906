"""What serving remembers is the log of today, not that of the day of training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from semacdr.dataset import Recommendations
from semacdr.errors import DataError
from semacdr.model.gate import NUM_BUCKETS
from semacdr.model.histories import queries_at, read_events
from semacdr.model.scorer import Scoring
from semacdr.recommendations import Recommender
from semacdr.recommendations.serving import open_serving
from tests.recommendations.conftest import make, rows


@pytest.fixture(scope="module")
def later(artifacts: dict[str, Path], batch: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sequences of the next day, in which 40 new users have taken one film that was on few lists."""
    sequences = pl.read_parquet(artifacts["sequences"] / "sequences.parquet")
    day_s = rows(batch)["as_of_s"][0] + 86_400
    new = pl.DataFrame(
        {
            "user_id": [f"v{number:02d}" for number in range(40)],
            "domains": [["films"]] * 40,
            "item_ids": [[FILM]] * 40,
            "timestamps_s": [[day_s]] * 40,
            "parts": [["test"]] * 40,
            "is_target": [[False]] * 40,
        },
        schema=sequences.schema,
    )
    folder = tmp_path_factory.mktemp("later")
    pl.concat([sequences, new]).write_parquet(folder / "sequences.parquet")
    return folder


FILM = "f003"


def test_new_events_move_popularity_without_a_new_checkpoint(artifacts: dict[str, Path], later: Path):
    """Shown by a gate that goes by the last day's popularity alone: a fitted one may think little of it."""
    config, first = Recommendations(top_k=1), []
    for sequences in (artifacts["sequences"], later):
        serving = open_serving(config, artifacts | {"sequences": sequences})
        scoring = serving.lister.model.scoring
        assert scoring is not None
        scoring.gate.by_support[serving.lister.scorer.columns.index("popularity_1")] = 1_000.0
        ((line,),) = Recommender(serving, config, 0).recommend([[]], "films")
        first.append((line.item_id, line.decided_by))
    assert first[0][0] != FILM
    assert first[1] == (FILM, "popularity_1")


def test_recommender_remembers_what_the_batch_does(artifacts: dict[str, Path], later: Path, tmp_path: Path):
    config = Recommendations(top_k=10)
    inputs = artifacts | {"sequences": later}
    published = rows(make(inputs, tmp_path, config)).filter(domain="films")
    recommender = Recommender(open_serving(config, inputs), config, published["as_of_s"][0])
    sequences = pl.read_parquet(later / "sequences.parquet").filter(pl.col("user_id").is_in(["u000", "u007", "v03"]))
    columns = ("domains", "item_ids", "timestamps_s")
    histories = [list(zip(*row, strict=True)) for row in sequences.select(columns).rows()]
    assert len(histories) >= 2
    for user, found in zip(sequences["user_id"], recommender.recommend(histories, "films"), strict=True):
        assert [line.item_id for line in found] == published.filter(user_id=user)["item_id"].to_list()


def test_what_decides_is_what_lifts_an_item_most_above_its_like(artifacts: dict[str, Path], batch: dict[str, Path]):
    """By hand, from every column's scores of all items, made by the scorer that keeps every event."""
    lister = open_serving(Recommendations(), artifacts).lister
    model, domain = lister.model, 1
    events = read_events(artifacts["sequences"], model.vocabulary)
    assert model.scoring is not None
    memory = model.scoring.memory.with_events(events)
    scoring = Scoring.of(model.scoring.experts, memory, model.scoring.gate)
    user = np.arange(12)
    queries = queries_at(events, user, np.full_like(user, domain), np.full_like(user, memory.last_s + 1))
    scorer = replace(model, scoring=scoring).scorer(events, queries)
    with torch.inference_mode():
        score_XQI = scorer.scores(user, domain)
        (start, stop), facts = model.vocabulary.bounds[domain], lister.scorer.facts(events, queries)
        bucket = torch.from_numpy(scoring.bucket[start:stop])
        weight = scoring.gate.weights(facts).T[:, :, None] + scoring.gate.by_support[:, None, bucket]
        trend_QI = scoring.gate.trend(score_XQI[scoring.gate.popularity])
        score_XQI = torch.cat([score_XQI, trend_QI[None]])
        weight = torch.cat([weight, torch.ones_like(weight[:1])])
    lift_XQI = torch.zeros_like(score_XQI)
    for one in range(NUM_BUCKETS):
        if (like := bucket == one).any():
            lift_XQI[:, :, like] = score_XQI[:, :, like] - score_XQI[:, :, like].mean(dim=2, keepdim=True)
    top = (weight * lift_XQI).topk(2, dim=0)
    checked = 0
    for row in rows(batch).filter(pl.col("user_id").is_in(events.user_ids[:12]), domain="films").iter_rows(named=True):
        query = events.user_ids.to_list().index(row["user_id"])
        item = model.vocabulary.encode(pl.DataFrame([row], schema=["domain", "item_id"]), "rows")[0] - start
        if top.values[0, query, item] - top.values[1, query, item] > 1e-3:
            assert row["decided_by"] == lister.scorer.columns[top.indices[0, query, item]]
            checked += 1
    assert checked > 60


def test_cold_items_have_the_boost_of_an_old_memory_in_evaluation_and_of_a_new_one_in_serving(
    artifacts: dict[str, Path],
):
    lister, domain = open_serving(Recommendations(), artifacts).lister, 1
    model, asked = lister.model, np.arange(6)
    assert model.scoring is not None
    gate, events = model.scoring.gate, read_events(artifacts["sequences"], model.vocabulary)
    now_s = np.full_like(asked, model.scoring.memory.last_s + 10 * 86_400)
    queries = queries_at(events, asked, np.full_like(asked, domain), now_s)
    start, stop = model.vocabulary.bounds[domain]
    is_cold = torch.from_numpy(model.scoring.bucket[start:stop] == 0)
    states, final = model.user_states(events, queries), model.scorer(events, queries)
    facts = lister.scorer.facts(events, queries)

    def scores() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        with torch.inference_mode():
            block = lister.scorer.block(states.vector_QD, facts, events, queries, asked, domain)
            served_QI = lister.scorer.exact(block, torch.arange(stop - start))
            return final(asked, domain), served_QI, block.catalogue.bucket_I == 0

    gate.cold_boost_SN.zero_()
    evaluated, served, is_cold_now = scores()
    gate.cold_boost_SN[:, domain] = torch.tensor([2.0, 3.0])
    boosted_evaluated, boosted_served, _ = scores()
    assert is_cold.any()
    assert is_cold_now.any()
    torch.testing.assert_close(boosted_evaluated - evaluated, 2.0 * is_cold.expand(6, -1))
    torch.testing.assert_close(boosted_served - served, 3.0 * is_cold_now.expand(6, -1))


def test_sequences_without_users_are_refused(artifacts: dict[str, Path], tmp_path: Path):
    pl.read_parquet(artifacts["sequences"] / "sequences.parquet").clear().write_parquet(tmp_path / "sequences.parquet")
    with pytest.raises(DataError, match="no user has a sequence"):
        open_serving(Recommendations(), artifacts | {"sequences": tmp_path})
