from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

from semacdr import tables
from semacdr.dataset import Recommendations
from semacdr.errors import ConfigError, DataError
from semacdr.model.checkpoint import LoadedModel, load_checkpoint
from semacdr.model.histories import Events, Queries, queries_at, read_events
from semacdr.model.scorer import Scoring
from semacdr.recommendations import Last, Run, publish
from semacdr.recommendations.lists import Lister
from semacdr.recommendations.rows import REASONS
from tests.recommendations.conftest import NEW, make, rows


def remembering(model: LoadedModel, events: Events) -> Scoring:
    """The experts with a memory of some events, all of them kept."""
    assert model.scoring is not None
    memory = replace(model.scoring.memory, offsets=events.offsets, item=events.item, time_s=events.time_s)
    return Scoring.of(model.scoring.experts, memory, model.scoring.gate)


def same(left: pl.DataFrame, right: pl.DataFrame) -> None:
    """The last decimal of a product depends on the size of its block; who is recommended does not."""
    near = pl.col("nearest").list.eval(pl.element().struct.field("item_id"))
    exact = ["user_id", "domain", "rank", "item_id", "reason", "decided_by", "as_of_s", near]
    assert_frame_equal(left.select(exact), right.select(exact))
    assert_frame_equal(left.select("score", "trained_score"), right.select("score", "trained_score"), abs_tol=2e-4)


def test_batch_keeps_the_contract(batch: dict[str, Path]):
    for name, folder in batch.items():
        assert tables.check(name, folder)[name] > 0


def test_scores_are_the_models_own_and_seen_items_are_left_out(batch: dict[str, Path], trained: dict[str, Path]):
    """By hand: the scores of another scorer, which keeps every event, sorted by Python, less what the user had."""
    model = load_checkpoint(trained["checkpoint"])
    events = read_events(trained["sequences"], model.vocabulary)
    model = replace(model, scoring=remembering(model, events))
    now_s = int(events.time_s.max()) + 1
    user = np.arange(10)
    queries = queries_at(events, user, np.ones_like(user), np.full_like(user, now_s))
    start, stop = model.vocabulary.bounds[1]
    score_QI = model.scorer(events, queries)(user, 1).numpy()
    published = rows(batch).filter(domain="films").filter(pl.col("item_id") != NEW["films"])
    for row, user_id in enumerate(events.user_ids[:10]):
        had = set(events.item[events.offsets[row] : events.offsets[row + 1]].tolist())
        kept = [(score_QI[row, item - start], item) for item in range(start, stop) if item not in had]
        expected = [model.vocabulary.table["item_id"][item - 1] for _, item in sorted(kept, reverse=True)]
        found = published.filter(user_id=user_id)
        np.testing.assert_allclose(
            found["score"], sorted((score for score, _ in kept), reverse=True)[: found.height], atol=1e-3
        )
        assert set(found["item_id"]) <= set(expected[: found.height + 1])


def test_reasons_say_which_days_popularity_is_of():
    assert [REASONS[f"popularity_{days}"] for days in (1, 7)] == [
        "many took it in the last day that the model knows",
        "many took it in the last 7 days that the model knows",
    ]


def test_reasons_name_the_deciding_score_and_the_nearest_past_items(batch: dict[str, Path], trained: dict[str, Path]):
    table = rows(batch)
    model = load_checkpoint(trained["checkpoint"])
    assert set(table["decided_by"]) <= {"trained", *model.scorer(*_one_query(trained)).columns, "trend"}
    assert table["decided_by"].n_unique() > 2
    for decided, reason in table.select("decided_by", "reason").unique().rows():
        assert ("carry most weight" in reason or "no history" in reason) == (decided == "trained")
    unit = torch.nn.functional.normalize(model.items.vector_RD, dim=1).numpy()
    place = {(domain, item): index for domain, item, index in model.vocabulary.table.rows()}
    sequences = pl.read_parquet(trained["sequences"] / "sequences.parquet")
    checked = 0
    for row in table.filter(~pl.col("item_id").is_in(list(NEW.values())))[::97].iter_rows(named=True):
        past = sequences.filter(user_id=row["user_id"])
        own = list(zip(past["domains"][0], past["item_ids"][0], strict=True))[-model.max_length :]
        vector = unit[place[row["domain"], row["item_id"]]]
        for domain in {domain for domain, _ in own}:
            best = max(float(unit[place[event]] @ vector) for event in own if event[0] == domain)
            (found,) = [near for near in row["nearest"] if near["domain"] == domain]
            assert found["similarity"] == pytest.approx(best, abs=1e-3)
            assert (domain, found["item_id"]) in own
            checked += 1
        assert len(row["nearest"]) == len({domain for domain, _ in own})
    assert checked > 10


def _one_query(trained: dict[str, Path]) -> tuple[Events, Queries]:
    model = load_checkpoint(trained["checkpoint"])
    events = read_events(trained["sequences"], model.vocabulary)
    one = np.zeros(1, np.int64)
    return events, queries_at(events, one, one, one + int(events.time_s.max()))


def test_new_items_are_recommended_and_warm_ones_stay(batch: dict[str, Path]):
    table = rows(batch)
    top = table.filter(pl.col("item_id").is_in(list(NEW.values())))
    assert top["user_id"].n_unique() > 0
    assert len(top) < 0.2 * len(table)
    vectors = pl.read_parquet(batch["item_vectors"] / "item_vectors.parquet")
    weights = vectors.filter(pl.col("item_id").is_in(list(NEW.values())))
    assert weights.height == 2
    assert (weights["weight_id"] == 0).all()
    assert (weights["weight_agnostic"] > 0).all()


def test_availability_and_repeats_are_rules_of_the_config(
    artifacts: dict[str, Path], batch: dict[str, Path], tmp_path: Path
):
    rule = "domain = 'books' or item_id < 'f020'"
    kept = rows(make(artifacts, tmp_path / "a", Recommendations(top_k=10, availability=rule)))
    assert kept.filter(pl.col("domain") == "films")["item_id"].max() < "f020"
    assert kept.filter(domain="books").equals(rows(batch).filter(domain="books"))
    again = rows(make(artifacts, tmp_path / "b", Recommendations(top_k=41, repeat_after_days=0)))
    assert (again.group_by("user_id", "domain").len()["len"] == 41).all()
    some = rows(make(artifacts, tmp_path / "c", Recommendations(top_k=41, repeat_after_days=300)))
    never = rows(make(artifacts, tmp_path / "d", Recommendations(top_k=41)))
    assert never.height < some.height < again.height


@pytest.mark.parametrize(
    ("condition", "error", "words"),
    [
        ("pricee < 3", ConfigError, "pricee"),
        ("price < 3; drop table items", ConfigError, "no condition"),
        ("item_id in (select item_id from read_csv('/etc/passwd'))", ConfigError, "no condition"),
        ("domain = 'books'", DataError, "no item of films may be recommended"),
    ],
)
def test_impossible_availability_is_refused(
    artifacts: dict[str, Path], tmp_path: Path, condition: str, error: type[Exception], words: str
):
    with pytest.raises(error, match=words):
        make(artifacts, tmp_path, Recommendations(availability=condition))


def test_more_ranks_than_items_give_as_many_as_there_are(artifacts: dict[str, Path], tmp_path: Path):
    table = rows(make(artifacts, tmp_path, Recommendations(top_k=1000)))
    assert table["rank"].max() <= 41
    lists = table.group_by("user_id", "domain").agg(pl.col("rank").max(), pl.len())
    assert (lists["rank"] == lists["len"]).all()


def test_shards_do_not_matter(
    artifacts: dict[str, Path], batch: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(publish, "USERS_PER_SHARD", 7)
    small = make(artifacts, tmp_path, Recommendations(top_k=10))
    assert len(list((small["recommendations"] / "recommendations").iterdir())) == 7
    same(rows(small), rows(batch))


KILLED = """
import os, signal, sys, torch
from pathlib import Path
from semacdr.dataset import Recommendations
from semacdr.progress import Progress
from semacdr.recommendations import Run, publish
torch.set_num_threads(1)
publish.USERS_PER_SHARD = 7
write, written = publish._write_shard, []
def killed(*arguments):
    if len(written) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    written.append(write(*arguments))
publish._write_shard = killed
inputs = {name: Path(path) for name, path in zip(sys.argv[3::2], sys.argv[4::2])}
outputs = {name: Path(sys.argv[1]) / name for name in ("recommendations", "user_vectors", "item_vectors")}
for output in outputs.values():
    output.mkdir(parents=True)
publish.recommend_all(Recommendations(top_k=10), inputs, outputs, Run(Path(sys.argv[2])), Progress())
"""


def test_killed_run_goes_on_with_the_next_shard(
    artifacts: dict[str, Path], batch: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shards = tmp_path / "shards"
    arguments = [text for name, path in artifacts.items() for text in (name, str(path))]
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(shards), *arguments]
    died = subprocess.run(command, check=False, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert len(list((shards / "recommendations").iterdir())) == 3
    monkeypatch.setattr(publish, "USERS_PER_SHARD", 7)
    ranked: list[int] = []
    rank_users = publish.rank_users

    def counted(lister: Lister, sequences: pl.DataFrame, *arguments: object) -> dict[str, pl.DataFrame]:
        ranked.append(sequences.height)
        return rank_users(lister, sequences, *arguments)

    monkeypatch.setattr(publish, "rank_users", counted)
    resumed = make(artifacts, tmp_path / "resumed", Recommendations(top_k=10), Run(shards))
    assert ranked == [7, 7, 7, 6]
    same(rows(resumed), rows(batch))
    assert not shards.exists()


def test_only_users_with_new_events_are_ranked_anew(artifacts: dict[str, Path], batch: dict[str, Path], tmp_path: Path):
    sequences = pl.read_parquet(artifacts["sequences"] / "sequences.parquet")
    as_of_s = rows(batch)["as_of_s"][0]
    active, late, gone = sequences["user_id"][5], sequences["user_id"][7], sequences["user_id"][9]
    had = set(sequences["item_ids"][5])
    new = {"domains": "books", "item_ids": "new-book", "timestamps_s": as_of_s + 9, "parts": "test", "is_target": False}
    assert "new-book" not in had
    later = sequences.with_columns(
        pl.when(user_id=active).then(pl.col(name).list.concat(pl.lit([value]))).otherwise(name).alias(name)
        for name, value in new.items()
    )
    # An event of long ago that the log did not have before.
    shown = rows(batch).filter(user_id=late, domain="books")["item_id"][0]
    old = {"domains": "books", "item_ids": shown, "timestamps_s": 1, "parts": "train", "is_target": False}
    later = later.with_columns(
        pl.when(user_id=late).then(pl.concat_list(pl.lit([value]), pl.col(name))).otherwise(name).alias(name)
        for name, value in old.items()
    )
    folder = tmp_path / "sequences"
    folder.mkdir()
    later.write_parquet(folder / "sequences.parquet")
    lost = rows(batch).filter(user_id=gone)["item_id"][0]
    config = Recommendations(top_k=10, users="new_events", availability=f"item_id <> '{lost}'")
    last = Last(batch["recommendations"], batch["user_vectors"], artifacts["sequences"])
    made = make(artifacts | {"sequences": folder}, tmp_path / "made", config, Run(tmp_path / "shards", last))
    table, before = rows(made), rows(batch)
    with_lost = set(before.filter(item_id=lost)["user_id"])
    anew = set(table.filter(pl.col("as_of_s") == as_of_s + 10)["user_id"])
    assert anew == {active, late} | with_lost
    assert shown not in set(table.filter(user_id=late)["item_id"])
    assert len(with_lost) < sequences.height - 1
    quiet = pl.col("user_id").is_in(list(anew)).not_()
    assert table.filter(quiet).equals(before.filter(quiet))
    assert lost not in set(table["item_id"])
    assert "new-book" not in set(table.filter(user_id=active)["item_id"])
    assert rows(made, "user_vectors").height == 2 * sequences.height


def test_run_goes_on_after_one_that_was_killed_while_it_removed_its_shards(
    artifacts: dict[str, Path], batch: dict[str, Path], tmp_path: Path
):
    run = Run(tmp_path / "shards")
    for name, folder in batch.items():
        if name in publish.TABLES:
            shutil.copytree(folder / name, run.shards / name)
    next((run.shards / "user_vectors").glob("*.parquet")).unlink()
    made = make(artifacts, tmp_path / "made", Recommendations(top_k=10), run)
    assert rows(made, "user_vectors").equals(rows(batch, "user_vectors"))
