import functools
from pathlib import Path

import polars as pl
import pytest
import torch

from semacdr.dataset import DatasetConfig, load_dataset
from semacdr.pipeline import Context
from semacdr.settings import Settings
from semacdr.store import Store
from semacdr.tables import TABLES
from semacdr.testing.toy import Toy, write_toy
from tests.toy_store import TOML, publish


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def write_semantics(output: Path, items: pl.DataFrame) -> None:
    """The toy has vectors and no texts: rows of the table as the linter reads it."""
    schema = TABLES["semantics"]["semantics"]
    views = pl.DataFrame({"view": ["agnostic", "specific"]})
    rows = items.filter(pl.col("text").is_not_null()).select("domain", "item_id", "text").join(views, how="cross")
    rows = rows.with_columns(source=pl.lit("imported"), text_hash=pl.col("item_id")).sort("domain", "item_id", "view")
    missing = {name: column for name, column in schema.columns().items() if name not in rows.columns}
    rows = rows.with_columns(pl.lit(None, column.dtype).alias(name) for name, column in missing.items())
    rows.select(list(schema.columns())).write_parquet(output / "semantics.parquet")
    TABLES["semantics"]["semantics_audit"].create_empty().write_parquet(output / "semantics_audit.parquet")


def copy(output: Path, folder: Path) -> None:
    for file in folder.iterdir():
        (output / file.name).write_bytes(file.read_bytes())


@pytest.fixture(scope="session")
def toy_store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, DatasetConfig, Path]:
    folder = tmp_path_factory.mktemp("comparison")
    made = write_toy(folder / "made", Toy(num_users=40, items_per_domain=60, events_per_user=10))
    (folder / "toy.toml").write_text(TOML)
    store = Store(folder / "store", folder / "cache")
    for name in ("interactions", "items", "embeddings"):
        publish(store, name, functools.partial(copy, folder=made[name]))
    items = pl.read_parquet(made["items"] / "items.parquet")
    publish(store, "semantics", functools.partial(write_semantics, items=items))
    return store, load_dataset(folder / "toy.toml"), folder


@pytest.fixture
def context(toy_store: tuple[Store, DatasetConfig, Path]) -> Context:
    store, dataset, folder = toy_store
    settings = Settings(store=str(folder / "store"), cache=folder / "cache", threads=1)
    return Context(dataset=dataset, settings=settings, store=store)
