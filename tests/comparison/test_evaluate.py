"""Rows on a real store: trained, ranked, published, compared."""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import duckdb
import optuna
import polars as pl
import pytest
from click.testing import CliRunner
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from semacdr.cli import comparison as comparison_commands
from semacdr.cli import main
from semacdr.comparison import (
    Predictions,
    Request,
    alias_of,
    compare,
    demand_alike,
    evaluate,
    evaluate_row,
    figures,
    find_row,
    per_target,
    row_of,
)
from semacdr.comparison import score as score_predictions
from semacdr.comparison.inputs import MODEL_INPUTS, prepare
from semacdr.comparison.own_words import masked_text
from semacdr.comparison.rows import FLOORS, SWITCHES, Row, Source
from semacdr.comparison.transfer import transfer_report
from semacdr.dataset import Protocol
from semacdr.errors import ConfigError, DataError
from semacdr.evaluation.task import Setting
from semacdr.model.config import load_preset, preset_names
from semacdr.model.ranking import ndcg
from semacdr.pipeline import Context
from semacdr.store import Artifact, names
from semacdr.tables import Candidates, FitOn, View, table_files
from tests.toy_store import TOML

GTS = Setting(Protocol.GTS, Candidates.FULL, FitOn.REFIT)
LOO = Setting(Protocol.LOO, Candidates.FULL, FitOn.TRAIN)


def evaluated(context: Context, name: str, setting: Setting = GTS, seeds: int = 1) -> Artifact:
    base = name.partition(":")[0]
    overrides = None if base in FLOORS else context.dataset.training.overrides
    return evaluate_row(context, Request(find_row(name, overrides), setting, seeds))


def test_evaluate_row_says_all_that_a_result_has_to(context: Context, tmp_path: Path):
    request = Request(find_row("semacdr", context.dataset.training.overrides), GTS, 2, tmp_path / "predictions")
    artifact = evaluate_row(context, request)
    details = artifact.manifest.details
    assert {name: details[name] for name in ("model", "protocol", "candidates", "fit", "part", "seeds")} == {
        "model": "semacdr", "protocol": "gts", "candidates": "full", "fit": "refit", "part": "test", "seeds": [0, 1]
    }  # fmt: skip
    assert details["ties"] == "seeded permutation of each domain's items"
    assert {one["check"]: one["verdict"] for one in details["leaks"]}["whitening"] == "ok"
    assert {one["check"] for one in details["leaks"]} >= {"cuts", "histories", "selection", "candidates", "texts"}
    assert [one["seed"] for one in details["trained"]] == [0, 1]
    rows = artifact.scan().collect()
    assert sorted(rows["seed"].unique()) == [0, 1]
    ranks = artifact.scan("evaluation_ranks").collect()
    assert artifact.manifest.metrics["ndcg_10"] == pytest.approx(
        ranks.with_columns(value=ndcg(ranks["rank"].to_numpy(), 10))
        .group_by("seed", "domain").agg(pl.col("value").mean())["value"].mean()
    )  # fmt: skip
    for seed in (0, 1):
        found = pl.read_parquet(tmp_path / "predictions" / f"semacdr-seed-{seed}.parquet")
        assert found.columns == ["user_id", "domain", "rank", "item_id"]
        # The domains have fewer items than predictions may hold ranks.
        sizes = found.group_by("user_id", "domain").len().join(ranks.filter(seed=seed), on=["user_id", "domain"])
        assert (sizes["len"] == sizes["num_candidates"]).all()
        hits = found.join(ranks.filter(seed=seed), on=["user_id", "domain", "item_id"])
        assert (hits["rank"] == hits["rank_right"]).all()
        assert hits.height == ranks.filter(pl.col("rank") <= 100, seed=seed).height
    connection = duckdb.connect(str(context.store.catalog), read_only=True)
    query = "select count(*) from evaluation_versions where version = ?"
    assert connection.execute(query, [artifact.manifest.version]).fetchone() == (rows.height,)


def test_evaluate_row_rolling_ranks_the_checkpoint_of_refit_with_the_memory_of_each_moment(context: Context):
    rolling = replace(GTS, fit=FitOn.ROLLING)
    fitted, rolled = (evaluated(context, "semacdr", setting) for setting in (GTS, rolling))
    assert rolled.manifest.details["fit"] == "rolling"
    assert rolled.manifest.details["trained"] == fitted.manifest.details["trained"]
    assert rolled.manifest.metrics != fitted.manifest.metrics
    # Without experts there is no memory.
    plain, also_plain = (evaluated(context, "sasrec-target", setting) for setting in (GTS, rolling))
    ranks = [one.scan("evaluation_ranks").select("user_id", "domain", "rank").collect() for one in (plain, also_plain)]
    assert ranks[0].equals(ranks[1])
    with pytest.raises(ConfigError, match="results of different fit cannot share a table"):
        figures([fitted, rolled])


def test_evaluate_row_again_trains_and_publishes_nothing(context: Context):
    first = evaluated(context, "popularity")
    versions = len(context.store.manifests("toy", "evaluation"))
    assert evaluated(context, "popularity").reference == first.reference
    assert len(context.store.manifests("toy", "evaluation")) == versions
    assert context.store.aliases("toy", "evaluation")["gts-full-refit-popularity"] == first.manifest.version
    assert "current" not in context.store.aliases("toy", "evaluation")


def test_evaluate_row_after_a_change_of_training_is_not_what_was_evaluated_before(
    context: Context, monkeypatch: pytest.MonkeyPatch
):
    floor, trained = evaluated(context, "popularity"), evaluated(context, "semacdr")
    checkpoints = context.settings.cache / "comparison" / "toy" / "checkpoints"
    before = len(list(checkpoints.glob("*/")))
    stage = evaluate.find_stage("training")
    monkeypatch.setattr(evaluate, "find_stage", lambda _: replace(stage, revision=stage.revision + 1))
    assert evaluated(context, "popularity").reference == floor.reference
    assert evaluated(context, "semacdr").reference != trained.reference
    assert len(list(checkpoints.glob("*/"))) == before + 1


def test_evaluate_row_of_a_killed_run_trains_no_seed_twice(context: Context):
    base = Request(find_row("semacdr", {**context.dataset.training.overrides, "dim": 12}), GTS, 1)
    trained = evaluate_row(context, base).manifest.details["trained"]
    again = evaluate_row(context, replace(base, seeds=2)).manifest.details["trained"]
    assert again[0] == trained[0]
    assert again[1]["seed"] == 1


def test_evaluate_row_twice_at_once_trains_once(context: Context):
    overrides = {**context.dataset.training.overrides, "dim": 20}
    rows = [find_row(name, overrides) for name in ("semacdr", "semacdr", "semacdr:source-off")]
    checkpoints = context.settings.cache / "comparison" / "toy" / "checkpoints"
    before = set(checkpoints.glob("*/"))
    with ThreadPoolExecutor(len(rows)) as threads:
        found = list(threads.map(lambda row: evaluate_row(context, Request(row, GTS, 1)), rows))
    assert found[0].reference == found[1].reference != found[2].reference
    assert len(set(checkpoints.glob("*/")) - before) == 1
    trained = [one.manifest.details["trained"] for one in found]
    assert trained[0] == trained[1] == trained[2]  # the very seconds, too


def test_evaluate_row_protocols_have_targets_of_their_own(context: Context):
    gts, loo = (evaluated(context, "hybrid", setting) for setting in (GTS, LOO))
    interactions = context.store.get("toy", "interactions").scan().collect()
    ranks = loo.scan("evaluation_ranks").collect()
    last = interactions.sort("timestamp_s", "domain", "item_id").group_by("user_id").last().sort("user_id")
    assert ranks.sort("user_id").select("user_id", "domain", "item_id").rows() == (
        last.select("user_id", "domain", "item_id").rows()
    )
    assert gts.scan("evaluation_ranks").collect().height != ranks.height
    assert loo.manifest.details["chosen"]["title_weight"] in {0.1, 0.3, 1.0, 3.0}
    assert len(loo.manifest.details["tried"]) == 12 + 4 + 4


def test_results_of_different_settings_share_no_table(context: Context):
    found = [evaluated(context, "popularity", setting) for setting in (GTS, LOO)]
    with pytest.raises(ConfigError, match="results of different protocol cannot share a table"):
        figures(found)
    train = Setting(Protocol.GTS, Candidates.FULL, FitOn.TRAIN)
    with pytest.raises(ConfigError, match="results of different fit cannot share a table"):
        per_target([found[0], evaluated(context, "popularity", train)], "hr_10")
    with pytest.raises(ConfigError, match="no evaluation"):
        demand_alike([])


def test_compare_is_paired_over_the_same_targets(context: Context):
    found = [evaluated(context, "title"), evaluated(context, "random")]
    values = per_target(found, "ndcg_10")
    better = compare(values, "title", ["random"], "ndcg_10")[0]
    worse = compare(values, "random", ["title"], "ndcg_10")[0]
    assert better.difference.mean == pytest.approx(-worse.difference.mean)
    assert better.difference.mean == pytest.approx(
        found[0].manifest.metrics["ndcg_10"] - found[1].manifest.metrics["ndcg_10"]
    )
    with pytest.raises(ConfigError, match="no evaluation of 'ease' in this table"):
        compare(values, "ease", ["title"], "ndcg_10")


def test_two_evaluations_of_a_model_are_not_taken_for_one(context: Context):
    found = [evaluated(context, "random", seeds=seeds) for seeds in (1, 3)]
    said = f"two evaluations of random(.*\\n)+.*{found[0].reference} and {found[1].reference}"
    for ask in (figures, partial(per_target, metric="ndcg_10")):
        with pytest.raises(ConfigError, match=said):
            ask(found)


def test_transfer_report_adds_up(context: Context):
    names = ("semacdr", "semacdr:alone", "semacdr:source-off", "semacdr:source-shuffled")
    found = [evaluated(context, name) for name in names]
    report = transfer_report(found, "semacdr", "ndcg_10")
    groups = {one.group: one for one in report.groups}
    assert list(groups) == ["all", "books", "films", *sorted(groups.keys() - {"all", "books", "films"})]
    assert groups["all"].difference.mean == pytest.approx(
        report.macro["semacdr"] - report.macro["semacdr:alone"], abs=1e-9
    )
    assert groups["warm"].num_targets + groups["cold"].num_targets == groups["all"].num_targets
    assert groups["books"].num_targets + groups["films"].num_targets == groups["all"].num_targets
    assert all(one.shares.helped + one.shares.harmed <= 1 for one in report.groups)
    assert all(one.shares.by_chance is None for one in report.groups)  # of one seed
    assert [one.against for one in report.controls] == list(names[1:])


def test_own_words_and_random_texts_train_on_other_vectors(context: Context):
    given, drawn = evaluated(context, "semacdr"), evaluated(context, "semacdr:random-texts")
    ranks = [one.scan("evaluation_ranks").collect()["rank"].to_list() for one in (given, drawn)]
    assert ranks[0] != ranks[1]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            ("Acme Green Tea, 20 bags", "ACME", "Grocery > Tea", "Teapots love green tea."),
            "Green , 20 bags. Teapots love green .",
        ),
        (("Müller's café au lait", "Müller's", None, None), "café au lait"),
        (("Tea", None, "Grocery > Tea", None), None),
        (("green_tea", None, "Tea", None), "green_"),
        ((None, "Acme", "Tea", None), None),
        ((None, None, None, "Nothing to hide"), "Nothing to hide"),
    ],
)
def test_masked_text_has_no_word_of_brand_or_category(fields: tuple[str | None, ...], expected: str | None):
    assert masked_text(*fields) == expected


def test_own_words_and_masked_words_are_embedded_as_both_views(context: Context, tmp_path: Path):
    inputs = {name: context.store.get("toy", name) for name in MODEL_INPUTS}
    items = Path(shutil.copytree(inputs["items"].path, tmp_path / "items"))
    file = table_files(items, "items")[0]
    taste = pl.col("title").str.extract(r"(\d+)$")
    pl.read_parquet(file).with_columns(categories=pl.format("Things > {}", taste)).write_parquet(file)
    found = {}
    for name in ("own-words", "masked"):
        changed = {**inputs, "items": replace(inputs["items"], fetch=lambda: items)}
        row = find_row(f"semacdr:{name}")
        folders = prepare(context, changed, row, Protocol.GTS, tmp_path / name).folders
        found[name] = pl.read_parquet(folders["embeddings"] / "embeddings.parquet")
    own, masked = found["own-words"], found["masked"]
    assert own.height == masked.height == 2 * pl.read_parquet(file)["text"].count()
    for table in found.values():
        one, other = (table.filter(pl.col("view") == view)["vector"].to_numpy() for view in View)
        assert (one == other).all()
    # A taste's number is its category: without it all texts read "a thing of taste".
    assert own["vector"].n_unique() == 4
    assert masked["vector"].n_unique() == 1


def test_predictions_from_elsewhere_are_scored_alike(context: Context, tmp_path: Path):
    ours = evaluate_row(context, Request(find_row("title"), GTS, 1, tmp_path))
    theirs = score_predictions(context, Predictions("theirs", [tmp_path / "title-seed-0.parquet"], GTS))
    assert theirs.manifest.metrics == ours.manifest.metrics
    twice = [tmp_path / "title-seed-0.parquet"] * 2
    with pytest.raises(ConfigError, match="the same predictions are given twice"):
        score_predictions(context, Predictions("theirs", twice, GTS))
    with pytest.raises(ConfigError, match="no name"):
        score_predictions(context, Predictions(" ", twice[:1], GTS))
    halves = pl.read_parquet(twice[0]).with_columns(rank=pl.col("rank") + 0.5)
    halves.write_parquet(tmp_path / "halves.parquet")
    with pytest.raises(DataError, match="no whole numbers"):
        score_predictions(context, Predictions("theirs", [tmp_path / "halves.parquet"], GTS))
    with pytest.raises(ConfigError, match="--predictions"):
        evaluate_row(context, Request(find_row("title"), GTS, 1, twice[0]))
    with pytest.raises(ConfigError, match="the name of a model of SemaCDR"):
        score_predictions(context, Predictions("title", [tmp_path / "title-seed-0.parquet"], GTS))
    for name in ("semacdr-alone", "semacdr-no-texts-alone", "esasrec-tuned"):  # the alias is that of semacdr:alone
        with pytest.raises(ConfigError, match="the name of a model of SemaCDR"):
            score_predictions(context, Predictions(name, [tmp_path / "title-seed-0.parquet"], GTS))
    with pytest.raises(DataError, match=r"targets have no ranks|without a target"):
        score_predictions(context, Predictions("theirs", [tmp_path / "title-seed-0.parquet"], LOO))


def test_too_few_items_and_seeds_are_refused(context: Context):
    sampled = Setting(Protocol.LOO, Candidates.SAMPLED_999, FitOn.TRAIN)
    with pytest.raises(DataError, match="domain books has too few items for 999 candidates"):
        evaluated(context, "popularity", sampled)
    with pytest.raises(ConfigError, match="no seed"):
        evaluated(context, "popularity", seeds=0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("popularit", "did you mean 'popularity'"),
        ("semacdr:no-agnstic", "did you mean 'no-agnostic'"),
        ("popularity:no-agnostic", "a floor has no switches"),
    ],
)
def test_find_row_of_an_unknown_name_is_refused(name: str, message: str):
    with pytest.raises(ConfigError, match=message):
        find_row(name)


def test_find_row_takes_several_switches():
    row = find_row("semacdr:no-texts:alone", {"dim": 16})
    assert (row.overrides["views"], row.overrides["dim"], row.source) == (["id"], 16, Source.ALONE)
    assert row.slug == "semacdr-no-texts-alone"


def test_rows_of_any_name_have_aliases():
    long = Row("semacdr-paper-like:no-domain-alignment:short-half-life", None)
    longer = Row(f"{long.name}:alone", None)
    aliases = {
        alias_of(row, Setting(Protocol.GTS, Candidates.SAMPLED_999, fit))
        for row in (long, longer, *(Row(name, None) for name in ("LightGCN 1.0/Müller", "SASRec v1.0", "sasrec-v1-0")))
        for fit in FitOn
    }
    assert len(aliases) == 5 * len(FitOn)
    for alias in aliases:
        names.check_alias(alias)


def test_every_switch_makes_a_model_that_can_be():
    for switch in SWITCHES:
        row = find_row(f"semacdr:{switch}")
        config = load_preset("semacdr", row.overrides)
        assert row.source is not Source.REAL or row.texts.value != "given" or config != load_preset("semacdr")
    assert not set(FLOORS) & set(preset_names())


def test_a_tuned_row_stands_on_its_study_of_its_protocol(context: Context, toy_store: tuple[object, object, Path]):
    folder = toy_store[2]
    runner = CliRunner(env={"SEMACDR_CACHE": str(folder / "cache"), "SEMACDR_THREADS": "1"})
    toml, store = str(folder / "toy.toml"), ["--store", str(folder / "store")]
    name = "semacdr:no-texts:mixed-only"
    asked = runner.invoke(main, ["evaluate", toml, *store, "--model", f"{name}:tuned", "--protocol", "loo"])
    assert asked.exit_code == 2
    assert f"run `semacdr tune toy --model {name} --protocol loo` first" in " ".join(asked.output.split())
    done = runner.invoke(main, ["tune", toml, *store, "--model", name, "--protocol", "loo", "--trials", "3"])
    assert done.exit_code == 0, done.output
    kept = folder / "store" / "studies" / "toy-loo-semacdr-no-texts-mixed-only.log"
    storage = JournalStorage(JournalFileBackend(str(kept)))
    (summary,) = optuna.get_all_study_summaries(storage)
    study = optuna.load_study(study_name=summary.study_name, storage=storage)
    assert len(study.trials) == 3
    row = row_of(context, f"{name}:tuned", Protocol.LOO)
    assert row.overrides == study.best_trial.user_attrs["overrides"]
    assert {
        **context.dataset.training.overrides,
        "threads": ["mixed"],
        "views": ["id"],
    }.items() <= row.overrides.items()
    tuned = evaluate_row(context, Request(row, LOO, 1))
    assert tuned.manifest.config["overrides"] == row.overrides
    assert tuned.manifest.details["model"] == f"{name}:tuned"
    assert tuned.manifest.details["trained"][0]["validation"]["ndcg_10"] == pytest.approx(study.best_value)
    best = row.overrides | {"dropout": 0.5}
    study.add_trial(optuna.trial.create_trial(value=study.best_value + 1, user_attrs={"overrides": best}))
    assert (
        row_of(context, f"{name}:tuned", Protocol.LOO).overrides
        == best
        != row_of(context, name, Protocol.LOO).overrides
    )
    # A control at test asks the model that was tuned, and has no study of its own.
    assert row_of(context, f"{name}:tuned:source-off", Protocol.LOO).overrides == best
    # So does its twin, unless it is tuned itself; a switch behind goes over what was found.
    twin = row_of(context, f"{name}:tuned:alone", Protocol.LOO)
    assert (twin.overrides, twin.source) == (best, Source.ALONE)
    with pytest.raises(ConfigError, match=f"{name}:alone has not been tuned"):
        row_of(context, f"{name}:alone:tuned", Protocol.LOO)
    switched = row_of(context, f"{name}:tuned:no-half-life", Protocol.LOO)
    assert switched.overrides == best | {"half_life": None}
    control = runner.invoke(main, ["tune", toml, *store, "--model", f"{name}:source-off", "--trials", "1"])
    assert (control.exit_code, f"do: tune {name}" in " ".join(control.output.split())) == (2, True), control.output
    with pytest.raises(ConfigError, match="no trial over its overrides of today in"):
        row_of(context, f"{name}:tuned", Protocol.GTS)
    with pytest.raises(ConfigError, match="ask for title"):
        row_of(context, "title:tuned", Protocol.GTS)


def test_commands_print_tables_and_refuse_what_is_unknown(
    context: Context, toy_store: tuple[object, object, Path], tmp_path: Path
):
    folder = toy_store[2]
    runner = CliRunner(env={"SEMACDR_CACHE": str(folder / "cache"), "SEMACDR_THREADS": "1"})
    toml, store = str(folder / "toy.toml"), ["--store", str(folder / "store")]
    done = runner.invoke(main, ["evaluate", toml, *store, "--model", "random", "--model", "popularity", "--seeds", "2"])
    assert done.exit_code == 0, done.output
    assert "protocol gts, candidates full, fit refit" in done.output.replace("\n", " ")
    evaluated(context, "title")
    done = runner.invoke(main, ["compare", toml, *store, "--model", "title"])
    assert done.exit_code == 0, done.output
    assert "(Holm)" in done.output
    evaluated(context, "popularity", LOO)
    both = ["gts-full-refit-popularity", "loo-full-train-popularity"]
    mixed = runner.invoke(main, ["compare", toml, *both, *store])
    assert mixed.exit_code == 2
    assert "cannot share a table" in mixed.output
    assert runner.invoke(main, ["evaluate", toml, *store, "--model", "title", "--protocol", "gtx"]).exit_code == 2
    unknown = runner.invoke(main, ["evaluate", toml, *store, "--model", "semacdrr"])
    assert unknown.exit_code == 2
    assert "did you mean 'semacdr'" in unknown.output
    unknown = runner.invoke(main, ["evaluate", toml, *store, "--model", "semacdr:tunned"])
    assert (unknown.exit_code, "did you mean 'tuned'" in unknown.output) == (2, True)
    for arguments, shown in (
        (["transfer", toml, "--seeds", "1"], "semacdr:source-unrelated"),
        (["ablate", toml, "--seeds", "1", "--switch", "no-experts"], "semacdr:no-experts"),
        (["evaluate", toml, "--model", "title", "--seeds", "1", "--predictions", str(tmp_path)], "title"),
        (["score", toml, str(tmp_path / "title-seed-0.parquet"), "--name", "mine"], "mine"),
    ):
        done = runner.invoke(main, [*arguments, *store])
        assert done.exit_code == 0, done.output
        assert shown in done.output


def test_ablate_leaves_out_what_the_model_cannot_be_switched_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    monkeypatch.setattr(comparison_commands, "_evaluated", lambda _, names, *__: asked.extend(names) or [])
    monkeypatch.setattr(comparison_commands, "_print_figures", lambda _: None)
    monkeypatch.setattr(comparison_commands, "_print_comparisons", lambda *_: None)
    (tmp_path / "dataset.toml").write_text(TOML)
    arguments = ["ablate", str(tmp_path), "--store", str(tmp_path / "store"), "--model"]
    done = CliRunner().invoke(main, [*arguments, "sasrec-mixed"])
    assert done.exit_code == 0, done.output
    assert "sasrec-mixed cannot be switched by experts-alone: `--switch NAME` tells why" in done.output
    assert ("sasrec-mixed" in asked, "sasrec-mixed:towers" in asked) == (True, True)
    assert "sasrec-mixed:experts-alone" not in asked
    unknown = CliRunner().invoke(main, [*arguments, "sasrec-mixt"])
    assert (unknown.exit_code, "did you mean 'sasrec-mixed'" in unknown.output) == (2, True)


def test_transfer_within_one_domain_is_refused(tmp_path: Path):
    (tmp_path / "dataset.toml").write_text(re.sub(r"\[domains\.films.*?\n\n", "", TOML, flags=re.DOTALL))
    done = CliRunner().invoke(main, ["transfer", str(tmp_path), "--store", str(tmp_path / "store")])
    assert done.exit_code == 2
    assert "toy: nothing can be transferred" in done.output
