import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from structlog.testing import capture_logs

from semacdr import tables
from semacdr.dataset import Split, Training
from semacdr.errors import ConfigError, DataError
from semacdr.model.checkpoint import load_checkpoint
from semacdr.model.config import Expert
from semacdr.model.histories import queries_of_targets, read_events
from semacdr.progress import LogProgress, Progress
from semacdr.tables import Part
from semacdr.testing.toy import Toy, write_toy
from semacdr.training import Run, train

TINY = {"dim": 8, "num_blocks": 1, "batch_users": 16, "max_epochs": 2, "learning_rate": 5e-3}
SPLIT = Split(max_length=12)


def run(artifacts: dict[str, Path], output: Path, preset: str = "semacdr", seed: int = 0, **overrides: object):
    config = Training(preset=preset, overrides=TINY | overrides, seed=seed)
    return train(config, SPLIT, artifacts, output, Run(1), Progress())


def test_train_is_bit_equal_for_one_seed_and_differs_for_another(toy_artifacts: dict[str, Path], tmp_path: Path):
    facts = [run(toy_artifacts, tmp_path / name, seed=seed) for name, seed in (("a", 3), ("b", 3), ("c", 4))]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]
    assert facts[0].metrics == facts[1].metrics


@pytest.mark.slow
@pytest.mark.timeout(600)  # two threads wait for each other on a busy machine
def test_train_is_bit_equal_with_two_threads(tmp_path: Path):
    # Large enough for torch to share out the sums of gradients.
    artifacts = write_toy(tmp_path, Toy(num_users=100, items_per_domain=100, events_per_user=20))
    overrides = {"dim": 64, "num_blocks": 1, "batch_users": 100, "max_epochs": 1, "experts": []}
    weights = set()
    for name in "ab":
        train(Training(overrides=overrides), SPLIT, artifacts, tmp_path / name, Run(2), Progress())
        weights.add((tmp_path / name / "model.safetensors").read_bytes())
    assert len(weights) == 1
    assert not torch.are_deterministic_algorithms_enabled()


def test_without_an_epoch_the_experts_score_alone(toy_artifacts: dict[str, Path], tmp_path: Path):
    facts = run(toy_artifacts, tmp_path, max_epochs=0)
    counted = tables.check("checkpoint", tmp_path)
    assert (counted["training_history"], counted["training_steps"], facts.details["best_epoch"]) == (0, 0, 0)
    scorer = load_checkpoint(tmp_path)
    events = read_events(toy_artifacts["sequences"], scorer.vocabulary)
    queries = queries_of_targets(events, Part.TEST)
    chosen = np.flatnonzero(queries.domain == 0)
    score_XQI = scorer.scorer(events, queries).scores(chosen, 0)
    assert score_XQI[0].abs().max() < 1e-9
    assert score_XQI[1:].std() > 1
    assert facts.metrics["ndcg_10"] > facts.details["validation_trained_alone"]["ndcg_10"] > 0


def test_without_an_epoch_or_an_expert_there_is_nothing_to_score_by(toy_artifacts: dict[str, Path], tmp_path: Path):
    with pytest.raises(ConfigError, match=r"trains nothing.*: name some\n"):
        run(toy_artifacts, tmp_path, max_epochs=0, experts=[])


def test_train_leaves_the_callers_random_state_and_threads_alone(toy_artifacts: dict[str, Path], tmp_path: Path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(toy_artifacts, tmp_path, max_epochs=1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == 1


def test_train_writes_the_contract_and_says_what_it_did(toy_artifacts: dict[str, Path], tmp_path: Path):
    facts = run(toy_artifacts, tmp_path)
    assert tables.check("checkpoint", tmp_path)["training_history"] == 2 + 2 + facts.details["best_epoch"]
    history = pl.read_parquet(tmp_path / "training_history.parquet")
    trained_alone = facts.details["validation_trained_alone"]["ndcg_10"]
    kept = "train-mixed" if facts.details["threads"] == ["mixed"] else "train"
    assert history.filter(fit=kept)["validation_ndcg_10"].max() == trained_alone
    assert history.filter(fit="refit")["validation_ndcg_10"].null_count() == facts.details["best_epoch"]
    assert 0 < facts.metrics["ndcg_10"] <= facts.metrics["hr_10"] <= 1
    steps = pl.read_parquet(tmp_path / "training_steps.parquet")
    means = steps.group_by("fit", "epoch").agg(pl.col("loss").mean()).sort("fit", "epoch")
    assert means["loss"].to_list() == pytest.approx(history.sort("fit", "epoch")["loss"].to_list())
    assert facts.seed == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json", "model.safetensors", "tensorboard", "training_history.parquet", "training_steps.parquet",
        "vocabulary.parquet",
    ]  # fmt: skip


def test_train_looks_at_histories_as_validates_better(toy_artifacts: dict[str, Path], tmp_path: Path):
    """A fixed choice says what it is worth; the choice on validation is worth the better of them."""
    worth = {}
    for history in ("target", "mixed", "best"):
        facts = run(toy_artifacts, tmp_path / history, max_epochs=1, expert_history=history)
        worth[history] = facts.metrics["ndcg_10"]
        chosen = facts.details["expert_history"]
        assert load_checkpoint(tmp_path / history).scoring.memory.mixed == (chosen == "mixed")
        assert history in {"best", chosen}
    assert worth["target"] != worth["mixed"]
    assert worth["best"] == max(worth.values())
    assert worth[chosen] == worth["best"]


def test_train_reports_each_gate_and_what_it_is_worth(toy_artifacts: dict[str, Path], tmp_path: Path):
    config = Training(overrides=TINY | {"max_epochs": 1, "or_mixed_alone": False})
    with capture_logs() as logs:
        facts = train(config, SPLIT, toy_artifacts, tmp_path, Run(1), LogProgress(every_s=0))
    gates = [line for line in logs if line.get("task") == "training: gate train"]
    assert [(line["done"], line["total"], line["expert_history"]) for line in gates] == [
        (1, 2, "target"),
        (2, 2, "mixed"),
    ]
    assert max(line["validation_ndcg_10"] for line in gates) == pytest.approx(facts.metrics["ndcg_10"], abs=1e-5)


@pytest.mark.parametrize(
    ("experts", "seed", "kept"), [([], 1, ["target", "source", "mixed"]), (list(Expert), 3, ["mixed"])]
)
def test_train_keeps_the_threads_that_validate_better(
    toy_artifacts: dict[str, Path], tmp_path: Path, experts: list[Expert], seed: int, kept: list[str]
):
    """What is kept is, bit for bit, what a training of these threads alone makes."""
    ways: dict[str, dict[str, object]] = {"all": {"or_mixed_alone": False}, "mixed": {"threads": ["mixed"]}, "both": {}}
    facts = {
        name: run(toy_artifacts, tmp_path / name, seed=seed, max_epochs=3, experts=experts, **way)
        for name, way in ways.items()
    }
    worth = {name: facts[name].metrics["ndcg_10"] for name in ways}
    same = "mixed" if kept == ["mixed"] else "all"
    assert worth["both"] == worth[same] == max(worth.values()) > min(worth.values())
    assert facts["both"].details["threads"] == kept
    assert facts["both"].details["best_epoch"] == facts[same].details["best_epoch"]
    weights = {name: (tmp_path / name / "model.safetensors").read_bytes() for name in ways}
    assert weights["both"] == weights[same]
    assert load_checkpoint(tmp_path / "both").model.config.threads == tuple(kept)
    tables.check("checkpoint", tmp_path / "both")
    history = pl.read_parquet(tmp_path / "both" / "training_history.parquet")
    assert history["fit"].unique(maintain_order=True).to_list() == ["train", "train-mixed", "refit"]
    for fit, way in (("train", "all"), ("train-mixed", "mixed")):
        fitted = pl.read_parquet(tmp_path / way / "training_history.parquet").filter(fit="train")
        assert history.filter(fit=fit)["loss"].to_list() == fitted["loss"].to_list()


def test_train_stops_when_validation_stops_getting_better(toy_artifacts: dict[str, Path], tmp_path: Path):
    # A rate of almost nothing leaves the ranking as it is.
    run(toy_artifacts, tmp_path, learning_rate=1e-12, max_epochs=20, patience=2)
    history = pl.read_parquet(tmp_path / "training_history.parquet")
    assert history.filter(fit="train").height == 3
    assert history.filter(fit="refit").height == 1


def test_train_unknown_preset_is_refused(toy_artifacts: dict[str, Path], tmp_path: Path):
    with pytest.raises(ConfigError, match="no preset"):
        run(toy_artifacts, tmp_path, preset="nothing")


@pytest.mark.parametrize(
    ("part", "message"), [("train", "no event is in part train"), ("validation", "no validation target")]
)
def test_train_without_a_part_is_refused(toy_artifacts: dict[str, Path], tmp_path: Path, part: str, message: str):
    table = pl.read_parquet(toy_artifacts["sequences"] / "sequences.parquet")
    flat = table.explode("domains", "item_ids", "timestamps_s", "parts", "is_target").filter(pl.col("parts") != part)
    folder = tmp_path / "sequences"
    folder.mkdir()
    flat.group_by("user_id", maintain_order=True).all().write_parquet(folder / "sequences.parquet")
    with pytest.raises(DataError, match=message):
        run(toy_artifacts | {"sequences": folder}, tmp_path / "out")


def test_train_domain_of_one_item_is_refused(toy_artifacts: dict[str, Path], tmp_path: Path):
    folder = tmp_path / "items"
    shutil.copytree(toy_artifacts["items"], folder)
    items = pl.read_parquet(folder / "items.parquet")
    lone = items[:1].with_columns(domain=pl.lit("zoo"))
    pl.concat([items, lone]).write_parquet(folder / "items.parquet")
    with pytest.raises(DataError, match="zoo: 1"):
        run(toy_artifacts | {"items": folder}, tmp_path / "out")


def test_train_without_items_is_refused(toy_artifacts: dict[str, Path], tmp_path: Path):
    with pytest.raises(DataError, match="items has no file"):
        run(toy_artifacts | {"items": tmp_path}, tmp_path / "out")
