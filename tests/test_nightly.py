"""Nights of one data set, by the stages themselves: no LLM, a real encoder, a real store."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import duckdb
import polars as pl
import pytest
import torch

from semacdr import pipeline
from semacdr.cli import main
from semacdr.dataset import load_dataset
from semacdr.errors import ConfigError, StoreError
from semacdr.model import checkpoint
from semacdr.pipeline import STAGES, Context, find_stage, outlook, run_stage
from semacdr.recommendations import Recommender
from semacdr.settings import Settings
from semacdr.store import Artifact, Store, rebuild_catalog
from semacdr.store.promotion import promote
from tests.raw_logs import write_raw_logs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
NEW = "f-new"


class Nights:
    """A data set with its store, and what each night published."""

    after_second: set[str]
    """In production, as SQL says, after the second night."""

    def __init__(self, folder: Path) -> None:
        self.toml = write_raw_logs(folder / "raw")
        self.change("items = 6", "items = 0")
        self.change("[training]", "[training]\nmax_age_days = 3")
        # What libraries take for a pattern of names, or for a partition, is a folder like any other.
        self.store = Store(folder / "item_id=5" / "st[o]re *")
        self.settings = Settings(cache=folder / "cache", threads=1)

    def change(self, old: str, new: str) -> None:
        text = self.toml.read_text()
        assert old in text
        self.toml.write_text(text.replace(old, new))

    @property
    def context(self) -> Context:
        return Context(dataset=load_dataset(self.toml), settings=self.settings, store=self.store)

    def run(self) -> dict[str, Artifact]:
        made: dict[str, Artifact] = {}
        for stage in STAGES:
            made |= run_stage(stage, self.context)
        return made

    def in_production(self) -> set[str]:
        with duckdb.connect(str(self.store.catalog), read_only=True) as catalog:
            found = catalog.execute("select name from aliases where alias = 'production' and is_now").fetchall()
        return {name for (name,) in found}

    def version(self, name: str, at: str = "production") -> str:
        return self.store.get("three-domains", name, at).manifest.version


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Nights, list[dict[str, Artifact]]]:
    """A first night, an unchanged one, and one with a new item and a new user's events."""
    torch.set_num_threads(1)
    nights = Nights(tmp_path_factory.mktemp("nights"))
    made = [nights.run()]
    # As if killed before all that had passed was in production: the next night makes up for it.
    (nights.store.root / "three-domains" / "index" / "production").unlink()
    rebuild_catalog(nights.store)
    assert "index" not in nights.in_production()
    made.append(nights.run())
    nights.after_second = nights.in_production()
    folder = nights.toml.parent
    with (folder / "film-items.csv").open("a", newline="") as file:
        csv.writer(file).writerow([NEW, "A movie about dragons, volume 99", "Maker1"])
    with (folder / "films.csv").open("a", newline="") as file:
        csv.writer(file).writerows([["newcomer", "f00", 1_626_000_000, 5], ["newcomer", "f06", 1_626_000_000, 5]])
    made.append(nights.run())
    return nights, made


def test_unchanged_night_makes_nothing(nights: tuple[Nights, list[dict[str, Artifact]]]):
    _, (first, second, _) = nights
    assert {artifact.reference for artifact in first.values()} == {artifact.reference for artifact in second.values()}


def test_unchanged_night_promotes_what_a_killed_one_did_not(nights: tuple[Nights, list[dict[str, Artifact]]]):
    assert nights[0].after_second == {"checkpoint", "index", "recommendations", "user_vectors", "item_vectors"}


def test_new_item_and_user_go_through_one_night_without_training(nights: tuple[Nights, list[dict[str, Artifact]]]):
    _, (first, _, third) = nights
    assert third["checkpoint"].reference == first["checkpoint"].reference
    details = third["recommendations"].manifest.details
    assert details["new_items"] == 1
    assert third["embeddings"].manifest.details["texts_encoded"] == 1
    known = third["index"].scan("index_ids").filter(pl.col("item_id") == NEW).collect()
    assert known["view"].to_list() == ["agnostic", "specific"]
    table = third["recommendations"].scan().collect()
    films = table.filter(domain="films")
    with_new = films.filter(item_id=NEW)
    assert with_new.height > 0
    # A cold item finds its place; it does not take the first one of everybody.
    assert with_new["rank"].n_unique() > 1
    assert (with_new["rank"] == 1).mean() < 0.5
    assert films.filter(user_id="newcomer").height == 20
    cold = details["cold"]["films"]
    assert 0 <= cold["top_10"] <= 1
    assert third["recommendations"].manifest.metrics["cold_share_top_10"] == details["cold"]["all"]["top_10"]


def test_checkpoint_that_this_version_cannot_read_is_not_kept(
    nights: tuple[Nights, list[dict[str, Artifact]]], monkeypatch: pytest.MonkeyPatch
):
    context, training = nights[0].context, find_stage("training")
    assert training.keeps is not None
    inputs = {name: context.store.get(context.dataset.name, name) for name in training.inputs}
    kept = training.keeps(context, inputs)
    assert kept is not None
    assert kept["checkpoint"].reference == nights[1][0]["checkpoint"].reference
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", checkpoint.FORMAT_VERSION + 1)
    assert training.keeps(context, inputs) is None


def test_checkpoint_that_saw_what_is_a_target_now_does_not_serve_on(nights: tuple[Nights, list[dict[str, Artifact]]]):
    nights_, (first, _, third) = nights
    # Logs of years before, taken in later, move the cut back.
    manifest = third["sequences"].manifest
    details = manifest.details | {"t_test_s": first["sequences"].manifest.details["t_test_s"] - 1}
    older = replace(third["sequences"], manifest=manifest.model_copy(update={"details": details}))
    assert _keeps(nights_, sequences=third["sequences"])[0]
    assert not _keeps(nights_, sequences=older)[0]


def test_checkpoint_is_not_kept_where_todays_items_cannot_be_added_to_it(
    nights: tuple[Nights, list[dict[str, Artifact]]], monkeypatch: pytest.MonkeyPatch
):
    context, training = nights[0].context, find_stage("training")
    assert training.keeps is not None
    inputs = {name: context.store.get(context.dataset.name, name) for name in training.inputs}
    other = inputs["embeddings"].manifest.model_copy(update={"config": {"embeddings": {"model": "another"}}})
    assert training.keeps(context, inputs | {"embeddings": replace(inputs["embeddings"], manifest=other)}) is None
    assert training.keeps(context, inputs) is not None
    scan = Artifact.scan
    added = pl.LazyFrame({"domain": ["plants"], "item_id": ["p1"]})
    monkeypatch.setattr(Artifact, "scan", lambda *of: pl.concat([scan(*of), added], how="diagonal"))
    assert training.keeps(context, inputs) is None


def test_evaluation_serves_on_with_its_checkpoint_and_the_gate_says_of_which_day(
    nights: tuple[Nights, list[dict[str, Artifact]]],
):
    nights_, (first, _, third) = nights
    evaluation = first["evaluation"].reference
    assert third["evaluation"].reference == evaluation
    assert third["sequences"].reference != first["sequences"].reference
    compared = third["gate"].scan("gate_checks").filter(check="ndcg_10").collect()
    assert all(f"({evaluation})" in reason for reason in compared["reason"])
    context = nights_.context
    assert outlook([find_stage("evaluation")], context) == {"evaluation": "keeps what it made"}


def _keeps(nights: Nights, **changed: Artifact) -> tuple[bool, bool]:
    """Whether training and evaluation keep what they made, were some of their inputs others."""
    context, kept = nights.context, []
    for name in ("training", "evaluation"):
        stage = find_stage(name)
        inputs = {one: context.store.get(context.dataset.name, one) for one in stage.inputs}
        assert stage.keeps is not None
        kept.append(stage.keeps(context, inputs | changed) is not None)
    return kept[0], kept[1]


def test_evaluation_is_not_kept_for_another_checkpoint(nights: tuple[Nights, list[dict[str, Artifact]]]):
    nights_, (*_, third) = nights
    assert _keeps(nights_) == (True, True)
    other = third["checkpoint"].manifest.model_copy(update={"version": "2020.01.01"})
    assert _keeps(nights_, checkpoint=replace(third["checkpoint"], manifest=other)) == (True, False)


def test_evaluation_is_not_kept_by_other_code(
    nights: tuple[Nights, list[dict[str, Artifact]]], monkeypatch: pytest.MonkeyPatch
):
    changed = [replace(stage, revision=stage.revision + 1) if stage.name == "evaluation" else stage for stage in STAGES]
    monkeypatch.setattr(pipeline, "STAGES", tuple(changed))
    assert _keeps(nights[0]) == (True, False)


def test_checkpoint_and_evaluation_are_not_kept_under_another_split(nights: tuple[Nights, list[dict[str, Artifact]]]):
    nights_, (*_, third) = nights
    manifest = third["sequences"].manifest
    split = manifest.config["split"] | {"protocol": "loo"}
    other = replace(third["sequences"], manifest=manifest.model_copy(update={"config": {"split": split}}))
    assert _keeps(nights_, sequences=other) == (False, False)


def test_evaluation_is_not_kept_for_other_targets(nights: tuple[Nights, list[dict[str, Artifact]]], tmp_path: Path):
    nights_, (*_, third) = nights
    (file,) = third["sequences"].files()
    pl.read_parquet(file, glob=False)[::2].write_parquet(tmp_path / file.name)
    assert _keeps(nights_, sequences=replace(third["sequences"], fetch=lambda: tmp_path)) == (True, False)


def test_what_passed_is_in_production_and_sql_tells_why(nights: tuple[Nights, list[dict[str, Artifact]]]):
    nights_, (first, _, third) = nights
    checks = third["gate"].scan("gate_checks").collect()
    assert checks["passed"].all(), checks.filter(~pl.col("passed"))["reason"].to_list()
    assert nights_.version("recommendations") == third["recommendations"].manifest.version
    assert nights_.version("checkpoint") == first["checkpoint"].manifest.version
    compared = checks.filter(check="overlap_10", domain="films")
    assert compared["production"].to_list() == [first["recommendations"].manifest.version]
    assert 0.5 < compared["value"][0] <= 1
    with duckdb.connect(str(nights_.store.catalog), read_only=True) as catalog:
        rows = catalog.execute("select count(*) filter (where not passed), count(*) from gate_checks").fetchall()
        assert rows == [(0, checks.height)]
        (live,) = catalog.execute("select any_value(version) from recommendations_production").fetchall()[0]
        assert live == third["recommendations"].manifest.version


def test_recommender_answers_as_the_published_batch(nights: tuple[Nights, list[dict[str, Artifact]]]):
    nights_, (*_, third) = nights
    recommender = Recommender.open(nights_.store, "three-domains")
    table = third["recommendations"].scan().collect()
    sequences = third["sequences"].scan().collect()
    for user in ("newcomer", "u003"):
        row = sequences.filter(user_id=user).to_dicts()[0]
        history = list(zip(row["domains"], row["item_ids"], row["timestamps_s"], strict=True))
        for domain in recommender.domains:
            (found,) = recommender.recommend([history], domain)
            expected = table.filter(user_id=user, domain=domain)
            assert [line.item_id for line in found] == expected["item_id"].to_list()
            assert [line.score for line in found] == pytest.approx(expected["score"].to_list(), abs=2e-4)
            assert [line.reason for line in found] == expected["reason"].to_list()


def test_recommend_prints_a_list_and_counts_unknown_items(
    nights: tuple[Nights, list[dict[str, Artifact]]], capsys: pytest.CaptureFixture[str]
):
    nights_, (*_, third) = nights
    store = ["--store", str(nights_.store.root)]
    history = f'films:{NEW}, books:b00,"books:no, thing",book:b00'

    def call(*options: str) -> tuple[int, str, str]:
        code = main(["recommend", "three-domains", "--history", history, *store, *options], standalone_mode=False)
        return code, *capsys.readouterr()

    _, out, err = call("--domain", "films", "--top", "3")
    items = third["items"].scan().filter(domain="films").collect()["item_id"]
    assert sum(f" {item} " in out for item in items) == 3
    assert "movie about" in out
    assert "2 of 4 events left out" in err
    assert "no domain 'book': did you mean 'books'?" in err
    code, _, err = call("--domain", "films", "--strict")
    assert (code, "books:no, thing" in err) == (2, True)
    code, _, err = call("--domain", "film")
    assert (code, "did you mean 'films'" in err) == (2, True)
    code, _, err = call("--domain", "films", "--at", "yesterday")
    assert (code, "no recommendations@yesterday" in err) == (1, True)


def test_worse_candidate_is_published_and_refused_until_overridden(
    nights: tuple[Nights, list[dict[str, Artifact]]],
):
    nights_, (*_, third) = nights
    before = nights_.toml.read_text()
    try:
        # A model without experts, of almost no learning: far worse, and its lists are others.
        nights_.change("max_epochs = 3", "experts = [], learning_rate = 1e-9, max_epochs = 1")
        worse = nights_.run()
        checks = worse["gate"].scan("gate_checks").filter(~pl.col("passed")).collect()
        assert set(checks["artifact"]) == {"checkpoint", "recommendations"}
        assert "ndcg_10" in set(checks["check"])
        assert nights_.store.get("three-domains", "checkpoint").reference == worse["checkpoint"].reference
        assert nights_.version("checkpoint") == third["checkpoint"].manifest.version
        assert nights_.version("recommendations") == third["recommendations"].manifest.version
        with pytest.raises(ConfigError, match=r"refused by the gate(.*\n)+.*NDCG@10"):
            promote(nights_.store, worse["checkpoint"], "production")
        promote(nights_.store, worse["checkpoint"], "production", override="to see it work")
        history = nights_.store.alias_history("three-domains", "checkpoint", "production")
        assert history[-1].reason == "refused by the gate, overridden: to see it work"
        # As bad as what is in production now, and still worse than what was there before: no slow decline.
        nights_.change("learning_rate = 1e-9", "learning_rate = 1.1e-9")
        as_bad = nights_.run()["gate"].scan("gate_checks").filter(artifact="checkpoint").collect()
        assert as_bad.filter(check="ndcg_10")["passed"].all()
        slow = as_bad.filter(check="ndcg_10_best")
        assert not slow["passed"].all()
        assert "the best of late" in slow["reason"][0]
    finally:
        nights_.toml.write_text(before)


def test_recommendations_of_another_checkpoint_are_not_judged(nights: tuple[Nights, list[dict[str, Artifact]]]):
    nights_, _ = nights
    store, name = nights_.store, "three-domains"
    others = [
        m.version for m in store.manifests(name, "checkpoint") if m.version != nights_.version("checkpoint", "current")
    ]
    at = nights_.version("checkpoint", "current")
    store.move_alias(name, "checkpoint", "current", others[0])
    try:
        with pytest.raises(StoreError, match=rf"was not made from checkpoint@{others[0]}"):
            run_stage(find_stage("gate"), nights_.context)
    finally:
        store.move_alias(name, "checkpoint", "current", at)
