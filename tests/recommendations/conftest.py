from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest
import torch

from semacdr.dataset import Recommendations, Split, Training
from semacdr.progress import Progress
from semacdr.recommendations import Run, recommend_all
from semacdr.testing.toy import Toy, write_toy
from semacdr.training import Run as TrainingRun
from semacdr.training import train

OVERRIDES = {
    "expert_history": "mixed",
    "dim": 16,
    "num_blocks": 1,
    "batch_users": 16,
    "max_epochs": 2,
    "learning_rate": 1e-2,
}
OUTPUTS = ("recommendations", "user_vectors", "item_vectors")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


NEW = {"books": "new-book", "films": "new-film"}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Toy artifacts of two domains, with a checkpoint."""
    folder = tmp_path_factory.mktemp("toy")
    made = write_toy(folder, Toy(num_users=48, items_per_domain=40, events_per_user=10))
    checkpoint = folder / "checkpoint"
    train(Training(overrides=OVERRIDES), Split(max_length=20), made, checkpoint, TrainingRun(1), Progress())
    return made | {
        "checkpoint": checkpoint,
        "trained_embeddings": made["embeddings"],
    }


@pytest.fixture(scope="session")
def artifacts(trained: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same a day later: a new item in each domain, with the texts of the domain's most taken one."""
    folder = tmp_path_factory.mktemp("later")
    for name in ("items", "embeddings"):
        shutil.copytree(trained[name], folder / name)
    events = pl.read_parquet(trained["interactions"] / "interactions.parquet")
    embeddings = pl.read_parquet(trained["embeddings"] / "embeddings.parquet")
    events = events.join(embeddings.select("domain", "item_id").unique(), on=["domain", "item_id"], how="semi")
    taken = events.group_by("domain", "item_id").len().sort("len", "item_id").group_by("domain").last()
    for name in ("items", "embeddings"):
        file = folder / name / f"{name}.parquet"
        table = pl.read_parquet(file)
        twins = table.join(taken.select("domain", "item_id"), on=["domain", "item_id"], how="semi")
        twins = twins.with_columns(item_id=pl.col("domain").replace_strict(NEW))
        order = ["domain", "item_id", *(["view"] if name == "embeddings" else [])]
        pl.concat([table, twins]).sort(order).write_parquet(file)
    return trained | {name: folder / name for name in ("items", "embeddings")}


def make(artifacts: dict[str, Path], folder: Path, config: Recommendations, run: Run | None = None) -> dict[str, Path]:
    outputs = {name: folder / name for name in OUTPUTS}
    for output in outputs.values():
        output.mkdir(parents=True)
    recommend_all(config, artifacts, outputs, run or Run(folder / "shards"), Progress())
    return outputs


def rows(outputs: dict[str, Path], table: str = "recommendations") -> pl.DataFrame:
    return pl.read_parquet(sorted((outputs[table] / table).glob("*.parquet")))


@pytest.fixture(scope="session")
def batch(artifacts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.set_num_threads(1)
    return make(artifacts, tmp_path_factory.mktemp("batch"), Recommendations(top_k=10))
