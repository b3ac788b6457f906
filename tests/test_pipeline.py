from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from semacdr.dataset import as_of, load_dataset
from semacdr.errors import ConfigError, DataError, StoreError
from semacdr.pipeline import STAGES, Context, Stage, check_dataset, find_stage, outlook, refreshable, run_stage
from semacdr.settings import Settings
from semacdr.store import Store
from semacdr.tables import TABLES
from tests.raw_logs import write_raw_logs


@pytest.fixture
def context(tmp_path: Path) -> Context:
    toml = write_raw_logs(tmp_path / "raw")
    return Context(dataset=load_dataset(toml), settings=Settings(), store=Store(tmp_path / "store"))


def test_every_input_is_made_by_an_earlier_stage():
    made: set[str] = set()
    for stage in STAGES:
        assert set(stage.inputs) <= made, stage.name
        assert not made & set(stage.outputs), stage.name
        made |= set(stage.outputs)
    assert made == set(TABLES)


def test_second_run_publishes_nothing_new(context: Context):
    first = run_stage(find_stage("ingest"), context)
    second = run_stage(find_stage("ingest"), context)
    assert {a.reference for a in first.values()} == {a.reference for a in second.values()}
    assert len(context.store.manifests()) == 3


def test_changed_raw_file_makes_new_versions(context: Context):
    run_stage(find_stage("ingest"), context)
    with (context.dataset.folder / "films.csv").open("a") as file:
        file.write("u999,f00,1600000000,5\n")
    run_stage(find_stage("ingest"), context)
    assert len(context.store.manifests(name="interactions")) == 2


def test_outlook_says_what_runs_and_why_and_does_nothing(context: Context):
    chosen = [find_stage(name) for name in ("ingest", "sequences")]
    anew = {"ingest": "runs", "sequences": "runs: interactions is made anew"}
    assert outlook(chosen, context) == anew
    for stage in chosen:
        run_stage(stage, context)
    assert outlook(chosen, context) == {"ingest": "unchanged", "sequences": "unchanged"}
    with (context.dataset.folder / "films.csv").open("a") as file:
        file.write("u999,f00,1600000000,5\n")
    assert outlook(chosen, context) == anew
    assert len(context.store.manifests(name="interactions")) == 1


def test_wording_of_a_domain_does_not_touch_ingest(context: Context):
    run_stage(find_stage("ingest"), context)
    films = context.dataset.domains["films"].model_copy(update={"label": "cinema"})
    dataset = context.dataset.model_copy(update={"domains": context.dataset.domains | {"films": films}})
    run_stage(find_stage("ingest"), Context(dataset=dataset, settings=context.settings, store=context.store))
    assert len(context.store.manifests(name="interactions")) == 1


def test_lost_output_is_made_again_and_the_others_stay(context: Context):
    first = run_stage(find_stage("ingest"), context)
    (first["items"].path / "manifest.json").unlink()
    second = run_stage(find_stage("ingest"), context)
    assert second["interactions"].reference == first["interactions"].reference
    assert second["items"].manifest.version != first["items"].manifest.version


def test_same_inputs_give_the_same_bytes(context: Context, tmp_path: Path):
    other = Context(dataset=context.dataset, settings=context.settings, store=Store(tmp_path / "other"))
    for name in ("ingest", "sequences"):
        first, second = (run_stage(find_stage(name), place) for place in (context, other))
        for output, artifact in first.items():
            assert artifact.manifest.files == second[output].manifest.files


def test_stage_without_its_inputs_says_which(context: Context):
    with pytest.raises(StoreError, match="no interactions@current"):
        run_stage(find_stage("sequences"), context)


def test_failing_stage_publishes_nothing(context: Context):
    (context.dataset.folder / "films.csv").write_text("user,item,time,stars\n")
    with pytest.raises(DataError, match="films"):
        run_stage(find_stage("ingest"), context)
    assert context.store.manifests() == []
    assert not list((context.store.root / ".staging").iterdir())


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-9]), "bytes, not"),
        (lambda file: file.unlink(), "missing"),
        (lambda file: file.write_bytes(bytes(file.stat().st_size)), "other content"),
    ],
)
@pytest.mark.parametrize("stage", ["sequences", "semantics"])
def test_broken_input_is_named_and_what_to_do(
    context: Context, stage: str, spoil: Callable[[Path], object], fault: str
):
    events = run_stage(find_stage("ingest"), context)["interactions"]
    spoil(events.path / events.manifest.files[0].path)
    with pytest.raises(StoreError, match=rf"{events.reference} .* is broken(.*\n)*.*{fault}(.*\n)*.*semacdr verify"):
        run_stage(find_stage(stage), context)
    assert {manifest.stage for manifest in context.store.manifests()} == {"ingest"}


def test_broken_input_that_is_removed_is_made_anew(context: Context):
    events = run_stage(find_stage("ingest"), context)["interactions"]
    shutil.rmtree(events.path)
    run_stage(find_stage("ingest"), context)
    assert run_stage(find_stage("sequences"), context)["sequences"].manifest.rows_in > 0


def test_only_stages_that_gather_can_be_refreshed():
    assert refreshable(["semantics", "training"]) == {"semantics", "training"}
    with pytest.raises(ConfigError, match=r"nothing to refresh(.*\n)*.*expected: semantics, training, evaluation"):
        refreshable(["index"])


def test_unknown_stage_names_the_near_one():
    with pytest.raises(ConfigError, match="did you mean 'semantics'"):
        find_stage("semantic")


@contextmanager
def work_by_another(context: Context, stage: Stage) -> Iterator[None]:
    """Stand for the wait while another run does the same work."""
    run_stage(stage, replace(context, turn=lambda _: nullcontext()))
    yield


def test_work_that_another_run_did_meanwhile_is_not_done_again(context: Context):
    waiting = replace(context, turn=lambda stage: work_by_another(context, stage))
    run_stage(find_stage("ingest"), waiting)
    assert len(context.store.manifests(name="interactions")) == 1


def test_run_as_of_a_day_sees_nothing_later(context: Context):
    """The same logs, cut after that day, give the same events and the items that they name."""
    until = date(2020, 12, 1)
    dated = as_of(context.dataset, until)
    assert dated.name == "three-domains-until-2020-12-01"
    whole = run_stage(find_stage("ingest"), context)
    then = run_stage(find_stage("ingest"), replace(context, dataset=dated))
    first_later_s = 1_606_867_200
    events = whole["interactions"].scan().filter(pl.col("timestamp_s") < first_later_s).collect()
    assert_frame_equal(then["interactions"].scan().collect(), events, check_row_order=False)
    named = events.select("domain", "item_id").unique()
    items = whole["items"].scan().collect().join(named, on=["domain", "item_id"], how="semi")
    assert_frame_equal(then["items"].scan().collect(), items, check_row_order=False)
    assert then["rejects"].scan().collect().is_empty()


def test_day_before_all_events_says_so(context: Context):
    dated = as_of(context.dataset, date(2001, 1, 1))
    with pytest.raises(DataError, match="until 2001-01-01"):
        run_stage(find_stage("ingest"), replace(context, dataset=dated))


def test_earlier_day_of_the_data_set_itself_counts(context: Context):
    assert as_of(as_of(context.dataset, date(2020, 1, 1)), date(2021, 1, 1)).filters.until == date(2020, 1, 1)


def test_two_data_sets_of_one_name_are_refused(tmp_path: Path):
    for folder in ("a", "b"):
        write_raw_logs(tmp_path / folder)
    settings = Settings(datasets=(tmp_path,))
    with pytest.raises(ConfigError, match="two data sets are named 'three-domains'"):
        check_dataset(load_dataset(tmp_path / "a"), settings, Store(tmp_path / "store"))


def test_data_set_with_the_name_of_another_in_the_store_is_refused(context: Context, tmp_path: Path):
    run_stage(find_stage("ingest"), context)
    write_raw_logs(tmp_path / "other")
    namesake = load_dataset(tmp_path / "other")
    # A copy, logs and all, is the same data set: a new version of the program beside the old one, say.
    check_dataset(namesake, context.settings, context.store)
    with (namesake.folder / "films.csv").open("a") as file:
        file.write("\n")
    with pytest.raises(ConfigError, match="two data sets are named 'three-domains'") as refused:
        check_dataset(namesake, context.settings, context.store)
    assert str(context.dataset.path) in str(refused.value.found)
    check_dataset(context.dataset, context.settings, context.store)
    # Whose TOML has another name now, is gone, or is no TOML any more, is no other.
    toml = context.dataset.path
    written = toml.read_text(encoding="utf-8")
    for text in (written.replace("three-domains", "four-domains"), "no TOML"):
        toml.write_text(text, encoding="utf-8")
        check_dataset(namesake, context.settings, context.store)
    toml.unlink()
    check_dataset(namesake, context.settings, context.store)


def test_stage_that_waited_for_its_turn_reads_what_was_made_meanwhile(context: Context):
    run_stage(find_stage("ingest"), context)

    @contextmanager
    def waited(_: Stage) -> Iterator[None]:
        with (context.dataset.folder / "films.csv").open("a") as file:
            file.write("u999,f00,1600000000,5\n")
        run_stage(find_stage("ingest"), context)
        yield

    made = run_stage(find_stage("sequences"), replace(context, turn=waited))["sequences"]
    assert context.store.get(context.dataset.name, "interactions").reference in made.manifest.inputs
