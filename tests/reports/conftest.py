from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import torch
from playwright.sync_api import Browser, sync_playwright

from semacdr.dataset import load_dataset
from semacdr.manifest import Facts
from semacdr.pipeline import Context, find_stage, run_stage
from semacdr.settings import Settings
from semacdr.store import Store
from semacdr.tables import TABLES
from semacdr.testing.toy import Toy, write_toy
from tests.toy_store import TOML, publish

LISTS = """
[recommendations]
top_k = 12
"""
HOSTILE = (
    "</script><script>document.title = 'run'</script>",
    "<img src=x onerror=\"document.title = 'run'\">",
    "<!-- script --> & <b>bold</b> \u2028 \"quoted\" 'too'",
)
"""Titles in turn; every text of an item is one of them, too."""


def hostile(item: str) -> pl.Expr:
    """A hostile title for each row, by its item."""
    kind = pl.col(item).str.slice(-1).str.to_integer(strict=False).fill_null(0) % len(HOSTILE)
    return pl.concat_str(
        kind.replace_strict(dict(enumerate(HOSTILE)), return_dtype=pl.String), pl.lit(" "), pl.col(item)
    )


PROBE = {
    "all_texts": {"specific": 0.9, "items_per_domain_specific": 99, "agnostic": 0.6, "items_per_domain_agnostic": 99}
    | {"chance": 0.5}
}


def write_items(output: Path, items: pl.DataFrame) -> None:
    items.with_columns(title=hostile("item_id")).write_parquet(output / "items.parquet")


def write_semantics(output: Path, items: pl.DataFrame) -> None:
    schema = TABLES["semantics"]["semantics"]
    views = pl.DataFrame({"view": ["agnostic", "specific"]})
    rows = items.filter(pl.col("text").is_not_null()).select("domain", "item_id").join(views, how="cross")
    rows = rows.with_columns(text=hostile("item_id"), source=pl.lit("imported"), text_hash=pl.col("item_id"))
    missing = {name: column for name, column in schema.columns().items() if name not in rows.columns}
    rows = rows.with_columns(pl.lit(None, column.dtype).alias(name) for name, column in missing.items())
    rows = rows.with_columns(model=pl.lit(HOSTILE[1])).sort("domain", "item_id", "view")
    rows.select(list(schema.columns())).write_parquet(output / "semantics.parquet")
    TABLES["semantics"]["semantics_audit"].create_empty().write_parquet(output / "semantics_audit.parquet")


@pytest.fixture(scope="session")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """A toy that has gone through every stage from training to the lists; its titles and texts are hostile."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("reports")
    made = write_toy(folder / "made", Toy(num_users=40, items_per_domain=110, events_per_user=10))
    (folder / "toy.toml").write_text(TOML + LISTS)
    store = Store(folder / "store", folder / "cache")
    items = pl.read_parquet(made["items"] / "items.parquet")
    probed = Facts(details={"domain_probe": PROBE})
    for name, facts in (("interactions", None), ("sequences", None), ("embeddings", probed)):
        publish(store, name, lambda output, name=name: shutil.copytree(made[name], output, dirs_exist_ok=True), facts)
    publish(store, "items", lambda output: write_items(output, items))
    publish(store, "semantics", lambda output: write_semantics(output, items))
    settings = Settings(store=str(folder / "store"), cache=folder / "cache", threads=1)
    context = Context(dataset=load_dataset(folder / "toy.toml"), settings=settings, store=store)
    for name in ("training", "evaluation", "recommendations"):
        run_stage(find_stage(name), context)
    return context


@pytest.fixture(scope="session")
def page(context: Context) -> Path:
    """The page of the run's own evaluation."""
    return run_stage(find_stage("report"), context)["report"].path / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium as the machine has it; Playwright's own would have to be fetched.

    Of one module: while it is open an event loop runs in this thread, and asyncio.run elsewhere would fail.
    """
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on the PATH: make browser")
    # Chromium's sandbox does not start as root, which CI is; the pages are our own.
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-background-networking"]
        ) as browser,
    ):
        yield browser
