from pathlib import Path

import polars as pl
import pytest

from semacdr import tables
from semacdr.dataset import Protocol, Split, Training
from semacdr.errors import DataError
from semacdr.evaluation import evaluate
from semacdr.model.ranking import ndcg
from semacdr.progress import Progress
from semacdr.testing.toy import Toy, write_toy
from semacdr.training import Run, train


def test_evaluate_beats_popularity_where_histories_tell_all(artifacts: dict[str, Path], tmp_path: Path):
    facts = evaluate(Protocol.GTS, artifacts, tmp_path, seed=0, threads=1)
    for metric in ("ndcg_10", "hr_10"):
        for baseline in ("popularity", "recent_popularity"):
            assert facts.metrics[metric] > 1.3 * facts.metrics[f"{baseline}_{metric}"]


def test_evaluate_writes_the_contract_and_agrees_with_its_own_ranks(artifacts: dict[str, Path], tmp_path: Path):
    facts = evaluate(Protocol.GTS, artifacts, tmp_path, seed=0, threads=1)
    rows = tables.check("evaluation", tmp_path)
    assert rows["evaluation_ranks"] == 3 * facts.rows_in
    ranks = pl.read_parquet(tmp_path / "evaluation_ranks.parquet").filter(model="semacdr")
    by_domain = ranks.group_by("domain").agg(
        pl.col("rank").map_batches(lambda rank: pl.Series(ndcg(rank.to_numpy(), 10)), return_dtype=pl.Float64).mean()
    )
    assert by_domain["rank"].mean() == pytest.approx(facts.metrics["ndcg_10"])
    sequences = pl.read_parquet(artifacts["sequences"] / "sequences.parquet")
    flat = sequences.explode("domains", "item_ids", "timestamps_s", "parts", "is_target")
    targets = flat.filter(pl.col("is_target") & (pl.col("parts") == "test"))
    assert (
        ranks.select("user_id", "domain", "item_id").rows() == targets.select("user_id", "domains", "item_ids").rows()
    )


def test_evaluate_candidates_are_the_domains_items_less_the_history(artifacts: dict[str, Path], tmp_path: Path):
    evaluate(Protocol.GTS, artifacts, tmp_path, seed=0, threads=1)
    ranks = pl.read_parquet(tmp_path / "evaluation_ranks.parquet").filter(model="popularity")
    flat = pl.read_parquet(artifacts["sequences"] / "sequences.parquet").explode(
        "domains", "item_ids", "timestamps_s", "parts", "is_target"
    )
    for user, domain, item, found in ranks.select("user_id", "domain", "item_id", "num_candidates").rows()[:20]:
        own = flat.filter((pl.col("user_id") == user) & (pl.col("domains") == domain))
        time = own.filter(pl.col("is_target") & (pl.col("parts") == "test"))["timestamps_s"][0]
        had = set(own.filter(pl.col("timestamps_s") < time)["item_ids"])
        # Of all that the user had the target alone would be left: it would give itself away.
        assert found == 40 - (0 if item in had else len(had))


def test_evaluate_ranks_cold_targets_and_counts_them(artifacts: dict[str, Path], tmp_path: Path):
    evaluate(Protocol.GTS, artifacts, tmp_path, seed=0, threads=1)
    table = pl.read_parquet(tmp_path / "evaluation.parquet").filter(model="semacdr", metric="hr_20", domain="macro")
    counts = dict(table.select("group", "num_targets").rows())
    assert counts["cold"] > 0
    assert counts["warm"] + counts["cold"] == counts["all"]
    assert sum(value for name, value in counts.items() if name.startswith("own-")) == counts["all"]
    assert table.filter(group="cold")["value"][0] > 0


def test_evaluate_without_test_targets_is_refused(artifacts: dict[str, Path], tmp_path: Path):
    flat = pl.read_parquet(artifacts["sequences"] / "sequences.parquet").explode(
        "domains", "item_ids", "timestamps_s", "parts", "is_target"
    )
    flat.filter(pl.col("parts") != "test").group_by("user_id").all().write_parquet(tmp_path / "sequences.parquet")
    with pytest.raises(DataError, match="no test targets"):
        evaluate(Protocol.GTS, artifacts | {"sequences": tmp_path}, tmp_path / "out", seed=0)


def test_evaluate_other_items_than_the_checkpoints_are_refused(artifacts: dict[str, Path], tmp_path: Path):
    items = pl.read_parquet(artifacts["items"] / "items.parquet")
    items[3:].write_parquet(tmp_path / "items.parquet")
    with pytest.raises(DataError, match="do not belong together"):
        evaluate(Protocol.GTS, artifacts | {"items": tmp_path}, tmp_path / "out", seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("num_domains", [1, 3])
def test_train_and_evaluate_any_number_of_domains(tmp_path: Path, num_domains: int):
    made = write_toy(tmp_path, Toy(num_domains=num_domains, num_users=48))
    overrides = {"dim": 16, "num_blocks": 1, "batch_users": 16, "max_epochs": 8, "learning_rate": 1e-2}
    train(Training(overrides=overrides), Split(max_length=20), made, tmp_path / "checkpoint", Run(1), Progress())
    metrics = evaluate(
        Protocol.GTS, made | {"checkpoint": tmp_path / "checkpoint"}, tmp_path / "evaluation", seed=0
    ).metrics
    assert metrics["ndcg_10"] > 1.3 * metrics["popularity_ndcg_10"]
