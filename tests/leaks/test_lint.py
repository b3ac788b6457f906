"""Canaries: an event, a text or a statistic from after the cut is planted, and the linter must trip."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file, save_file

from semacdr.dataset import Protocol, Split, Training
from semacdr.errors import DataError
from semacdr.leaks import Finding, Verdict, WrittenTexts, check_candidates, check_split, lint, written_texts
from semacdr.leaks.texts import text_finding
from semacdr.model.histories import Events, Visibility, events_of, queries_of_targets, read_events
from semacdr.model.text_vectors import read_text_vectors
from semacdr.model.vocabulary import Vocabulary
from semacdr.progress import Progress
from semacdr.tables import FitOn, Part
from semacdr.testing.toy import Toy, sequences_of, write_toy
from semacdr.training import Run, train

GTS, LOO = Visibility.EARLIER_IN_TIME, Visibility.EARLIER_IN_ORDER


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_toy(tmp_path_factory.mktemp("toy"), Toy(num_users=30, items_per_domain=20, events_per_user=8))


@pytest.fixture(scope="module")
def vocabulary(artifacts: dict[str, Path]) -> Vocabulary:
    return Vocabulary.of_items(pl.read_parquet(artifacts["items"] / "items.parquet"))


@pytest.fixture
def events(artifacts: dict[str, Path], vocabulary: Vocabulary) -> Events:
    return read_events(artifacts["sequences"], vocabulary)


def linted(vocabulary: Vocabulary, events: Events, artifacts: dict[str, Path], **changed: object) -> dict[str, Finding]:
    given = {
        "fit_events": events.up_to(Part.TRAIN),
        "selection_events": events.up_to(Part.VALIDATION),
        "visibility": GTS,
        "embeddings": artifacts["embeddings"],
        "text": read_text_vectors(artifacts["embeddings"], vocabulary),
        **changed,
    }
    return {one.check: one for one in lint(vocabulary, events, **given)}


def test_lint_of_clean_inputs_finds_nothing(vocabulary: Vocabulary, events: Events, artifacts: dict[str, Path]):
    found = linted(vocabulary, events, artifacts)
    assert set(found) == {"cuts", "histories", "selection", "core", "repeats", "sizes", "whitening"}
    # The toy's users all have as many events: that is a filter, too. They draw few items, with replacement.
    assert {name for name, one in found.items() if one.verdict is not Verdict.OK} == {"core", "repeats", "sizes"}
    assert "targets are items that their user had before" in found["repeats"].found
    assert "every user 8" in found["core"].found


def test_canary_event_from_after_the_cut_in_the_fit(vocabulary: Vocabulary, events: Events, artifacts: dict[str, Path]):
    with pytest.raises(DataError, match="leak: the fit train is given other events"):
        linted(vocabulary, events, artifacts, fit_events=events.up_to(Part.VALIDATION))
    with pytest.raises(DataError, match="leak: the fit refit is given other events"):
        check_split(vocabulary, events, events, GTS, FitOn.REFIT)


def test_canary_event_marked_as_training_though_it_lies_after_the_cut(
    vocabulary: Vocabulary, events: Events, artifacts: dict[str, Path]
):
    part = events.part.copy()
    part[np.flatnonzero((part == 2) & ~events.is_target)[0]] = 0
    with pytest.raises(DataError, match="leak: 1 events of part train lie at or after the cut of part validation"):
        linted(vocabulary, replace(events, part=part), artifacts)


def test_canary_stops_a_training_run(artifacts: dict[str, Path], tmp_path: Path):
    interactions = pl.read_parquet(artifacts["interactions"] / "interactions.parquet")
    rows = sequences_of(interactions)
    flat = rows.explode("domains", "item_ids", "timestamps_s", "parts", "is_target").with_row_index()
    planted = flat.filter((pl.col("parts") == "test") & ~pl.col("is_target"))["index"][0]
    parts = pl.when(pl.col("index") == planted).then(pl.lit("train")).otherwise("parts")
    lists = flat.with_columns(parts=parts).drop("index").group_by("user_id", maintain_order=True).all()
    lists.write_parquet(tmp_path / "sequences.parquet")
    with pytest.raises(DataError, match="leak"):
        train(
            Training(overrides={"dim": 8, "max_epochs": 1}),
            Split(),
            artifacts | {"sequences": tmp_path},
            tmp_path / "out",
            Run(1),
            Progress(),
        )
    assert not (tmp_path / "out").exists()


def test_canary_test_events_within_reach_of_early_stopping(
    vocabulary: Vocabulary, events: Events, artifacts: dict[str, Path]
):
    with pytest.raises(DataError, match="leak: early stopping and search can reach test events"):
        linted(vocabulary, events, artifacts, selection_events=events)


def test_canary_item_from_after_the_cut_in_the_whitening(
    vocabulary: Vocabulary, events: Events, artifacts: dict[str, Path], tmp_path: Path
):
    text = read_text_vectors(artifacts["embeddings"], vocabulary)
    support = events.up_to(Part.TRAIN).support(vocabulary.num_items)
    stored = load_file(artifacts["embeddings"] / "whitening.safetensors")
    for view, vectors in text.items():
        visible = vectors.present_I1.numpy() & (support > 0)
        planted = np.flatnonzero(vectors.present_I1.numpy() & (support == 0))[:1]
        with_future = np.concatenate([np.flatnonzero(visible), planted])
        stored[f"{view}.mean"] = vectors.raw_I1E.numpy()[with_future].mean(axis=0)
    save_file(stored, tmp_path / "whitening.safetensors")
    with pytest.raises(DataError, match="leak: the whitening of view"):
        linted(vocabulary, events, artifacts, embeddings=tmp_path)


def test_canary_history_with_an_event_after_its_target(
    vocabulary: Vocabulary, events: Events, artifacts: dict[str, Path]
):
    same_user = np.concatenate([[False], np.diff(events.user) == 0])
    both_test = (events.part == 2) & np.concatenate([[False], events.part[:-1] == 2])
    target = int(np.flatnonzero(events.is_target & same_user & both_test)[0])
    time_s = events.time_s.copy()
    time_s[target - 1] = time_s[target] + 1
    with pytest.raises(DataError, match="leak: histories of part test hold their target or later events"):
        linted(vocabulary, replace(events, time_s=time_s), artifacts)


def test_lint_leave_one_out_parts_out_of_order_are_refused(vocabulary: Vocabulary, events: Events):
    last = events.offsets[1:] - 1
    part, is_target = np.zeros_like(events.part), np.zeros_like(events.is_target)
    part[last], part[last - 1] = 2, 1
    is_target[last] = is_target[last - 1] = True
    good = replace(events, part=part, is_target=is_target)
    found = check_split(vocabulary, good, good.up_to(Part.TRAIN), LOO, FitOn.TRAIN)
    assert [one.verdict for one in found] == [Verdict.OK, Verdict.OK]
    part[last[3]], part[last[3] - 1] = 1, 2
    with pytest.raises(DataError, match="leave-one-out parts are out of order"):
        check_split(vocabulary, good, good.up_to(Part.TRAIN), LOO, FitOn.TRAIN)


def test_lint_warns_of_a_log_that_was_filtered_as_a_whole(
    vocabulary: Vocabulary, events: Events, artifacts: dict[str, Path]
):
    support = events.support(vocabulary.num_items)
    kept = support[events.item] >= 3
    counts = np.bincount(events.user[kept], minlength=events.num_users)
    columns = ("item", "domain", "time_s", "part", "is_target")
    core = Events(
        user_ids=events.user_ids,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        **{name: getattr(events, name)[kept] for name in columns},
    )
    found = linted(vocabulary, core, artifacts, embeddings=None)["core"]
    assert found.verdict is Verdict.WARNING
    assert "over the whole log every item has at least" in found.found


def test_lint_takes_a_few_long_histories_for_no_filter():
    vocabulary = Vocabulary.of_items(pl.DataFrame({"domain": ["a"] * 500, "item_id": [f"i{n:03}" for n in range(500)]}))
    lengths = range(5, 25, 2)
    rows = pl.DataFrame(
        {
            "user_id": [f"u{length:02}" for length in lengths],
            "domains": [["a"] * length for length in lengths],
            "item_ids": [[f"i{20 * length + n:03}" for n in range(length)] for length in lengths],
            "timestamps_s": [list(range(length)) for length in lengths],
            "parts": [["train"] * length for length in lengths],
            "is_target": [[False] * length for length in lengths],
        }
    )
    events = events_of(rows, vocabulary)
    parts = {"fit_events": events, "selection_events": events}
    found = {one.check: one for one in lint(vocabulary, events, **parts, visibility=GTS)}
    assert found["core"] == Finding("core", Verdict.OK, found["core"].found)
    assert "every user 5" in found["core"].found


def test_lint_warns_of_targets_without_history_and_of_domains_with_few_items():
    vocabulary = Vocabulary.of_items(
        pl.DataFrame({"domain": ["few"] * 2 + ["many"] * 21, "item_id": [f"i{number:02}" for number in range(23)]})
    )
    bursts = pl.DataFrame(
        {
            "user_id": ["a", "b", "c"],
            "domains": [["few", "many"], ["few", "many"], ["few", "many"]],
            "item_ids": [["i00", "i02"], ["i01", "i03"], ["i00", "i04"]],
            "timestamps_s": [[1, 1], [2, 2], [3, 4]],
            "parts": [["train"] * 2, ["validation"] * 2, ["test"] * 2],
            "is_target": [[False] * 2, [True] * 2, [True] * 2],
        }
    )
    events = events_of(bursts, vocabulary)
    parts = {"fit_events": events.up_to(Part.TRAIN), "selection_events": events.up_to(Part.VALIDATION)}
    found = {one.check: one for one in lint(vocabulary, events, **parts, visibility=GTS)}
    assert {name for name, one in found.items() if one.verdict is Verdict.WARNING} == {"histories", "sizes"}
    # Of c's two targets one is later than the other.
    assert "3 of 4 targets have no history" in found["histories"].found
    assert "(few 2)" in found["sizes"].found


@pytest.mark.parametrize("change", ["history", "domain", "twice", "target"])
def test_candidates_that_must_not_be_are_refused(vocabulary: Vocabulary, events: Events, change: str):
    queries = queries_of_targets(events, Part.TEST)
    rows = []
    for user, domain in zip(queries.user, queries.domain, strict=True):
        start, stop = vocabulary.bounds[domain]
        own = set(events.item[events.offsets[user] : events.offsets[user + 1]].tolist())
        rows.append([item for item in range(start, stop) if item not in own][:3])
    drawn = np.array(rows)
    assert check_candidates(events, queries, vocabulary, drawn).verdict is Verdict.OK
    start, _ = vocabulary.bounds[queries.domain[0]]
    own = events.item[events.offsets[queries.user[0]] : events.offsets[queries.user[0] + 1]]
    own = own[(own >= start) & (events.domain[events.offsets[queries.user[0]] :][: len(own)] == queries.domain[0])]
    planted = {
        "history": int(own[own != queries.item[0]][0]) if (own != queries.item[0]).any() else int(queries.item[0]),
        "domain": vocabulary.bounds[1 - queries.domain[0]][0],
        "twice": int(drawn[0, 1]),
        "target": int(queries.item[0]),
    }
    drawn[0, 0] = planted[change]
    with pytest.raises(DataError, match="leak: 1 targets have candidates that they must not have"):
        check_candidates(events, queries, vocabulary, drawn)


def texts_by(chosen: np.ndarray) -> WrittenTexts:
    return WrittenTexts(np.arange(len(chosen)) > 0, chosen)


def test_texts_given_by_training_support_pass_and_by_later_popularity_are_found():
    rng = np.random.default_rng(0)
    appeal = rng.gamma(0.5, size=2_001)
    support, later = rng.poisson(3 * appeal), rng.poisson(appeal)
    support[0] = later[0] = 0
    targets = np.flatnonzero(later)
    by_training = texts_by(support >= np.quantile(support, 0.7))
    assert not text_finding(by_training, support, targets)[0]
    by_future = texts_by(support + later >= np.quantile(support + later, 0.7))
    flattering, found = text_finding(by_future, support, targets)
    assert flattering
    assert "a written text tells the future" in found
    # Of the cold items only: the share among those that were asked for stands against that of all.
    cold = (support == 0) & (np.arange(2_001) > 0)
    only_cold = texts_by(np.where(cold, later > 0, support > 0))
    flattering, found = text_finding(only_cold, support, targets)
    assert flattering
    assert "100% have a written text" in found


def test_texts_of_few_targets_say_nothing():
    written = texts_by(np.array([False, True, False, True]))
    assert not text_finding(written, np.zeros(4, np.int64), np.array([1]))[0]
    assert "no cold validation target" in text_finding(written, np.ones(4, np.int64), np.array([1]))[1]


def test_written_texts_tells_writers_from_own_words(vocabulary: Vocabulary, tmp_path: Path):
    table = vocabulary.table
    rows = pl.DataFrame(
        {
            "domain": [table["domain"][0]] * 2 + [table["domain"][1]],
            "item_id": [table["item_id"][0]] * 2 + [table["item_id"][1]],
            "source": ["fallback", "imported", "fallback"],
        }
    )
    rows.write_parquet(tmp_path / "semantics.parquet")
    found = written_texts(tmp_path, vocabulary)
    assert found.has_words_I1[:4].tolist() == [False, True, True, False]
    assert found.is_written_I1[:4].tolist() == [False, True, False, False]


def test_training_writes_down_what_the_linter_found(artifacts: dict[str, Path], tmp_path: Path):
    torch.set_num_threads(1)
    overrides = {"dim": 8, "num_blocks": 1, "max_epochs": 1}
    facts = train(Training(overrides=overrides), Split(), artifacts, tmp_path / "out", Run(1), Progress(), FitOn.TRAIN)
    assert {one["check"]: one["verdict"] for one in facts.details["leaks"]}["whitening"] == "ok"
    assert facts.details["protocol"] == Protocol.GTS.value
    assert facts.details["fit"] == "train"
    ids = {"views": ["id"], "experts": []}
    facts = train(Training(overrides=overrides | ids), Split(), artifacts, tmp_path / "ids", Run(1), Progress())
    assert "whitening" not in {one["check"] for one in facts.details["leaks"]}
