from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from structlog.testing import capture_logs

from semacdr.dataset import DatasetConfig
from semacdr.errors import ConfigError
from semacdr.semantics.imports import import_digests, read_imports
from semacdr.semantics.items import read_items

from .conftest import make_config, write_items
from .fake_openai import GOOD

ROWS = [
    {"item_id": "f1", "domain": "Groceries", **GOOD},
    {"item_id": "f2", "domain": "Groceries", **GOOD, "agnostic": "too short"},
    {"item_id": "f1", "domain": "Groceries", **GOOD, "specific": "a second line for the same item"},
    {"item_id": "m1", "domain": "films", **GOOD},
    {"item_id": "f3", "domain": "Groceries", **GOOD},
    {"item_id": "unheard-of", "domain": "films", **GOOD},
]


@pytest.fixture
def items(tmp_path: Path) -> pl.DataFrame:
    rows = [
        {"domain": "food", "item_id": "f1", "title": "Green Tea"},
        {"domain": "food", "item_id": "f2", "title": "Black Tea"},
        {"domain": "food", "item_id": "f3", "title": None},
        {"domain": "films", "item_id": "m1", "title": "The Apartment"},
    ]
    return read_items(write_items(tmp_path / "items", rows))[0]


def config_with(folder: Path, *sources: dict[str, Any]) -> DatasetConfig:
    full = [{"file": "texts.parquet", "model": "somebody", "domains": {"Groceries": "food"}, **s} for s in sources]
    return make_config(folder, imports=full)


def test_imports_are_mapped_checked_and_counted(tmp_path: Path, items: pl.DataFrame):
    pl.DataFrame(ROWS).write_parquet(tmp_path / "texts.parquet")
    imported = read_imports(config_with(tmp_path, {}), items)
    texts = imported.frame.select("domain", "item_id", "specific", "agnostic", "model")
    assert texts.rows() == [
        ("food", "f1", GOOD["specific"], GOOD["agnostic"], "somebody"),
        ("films", "m1", GOOD["specific"], GOOD["agnostic"], "somebody"),
    ]
    (count,) = imported.counts
    assert {name: count[name] for name in ("rows", "accepted", "excluded", "duplicates", "unknown_items")} == {
        "rows": 6,
        "accepted": 2,
        "excluded": 0,
        "duplicates": 1,
        "unknown_items": 2,
    }
    assert count["rejected"] == {"agnostic: too short": 1}


def test_imports_excluded_items_are_left_out(tmp_path: Path, items: pl.DataFrame):
    pl.DataFrame(ROWS).write_parquet(tmp_path / "texts.parquet")
    (tmp_path / "live.tsv").write_text("# left to the engine\nfood\tf1\n\n")
    imported = read_imports(config_with(tmp_path, {"exclude": "live.tsv"}), items)
    assert imported.frame["item_id"].to_list() == ["m1"]
    assert imported.counts[0]["excluded"] == 2


def test_imports_of_which_no_item_is_known_are_told(tmp_path: Path, items: pl.DataFrame):
    pl.DataFrame([ROWS[0], ROWS[3]]).write_parquet(tmp_path / "texts.parquet")
    with capture_logs() as logs:
        # The second file's items are known; that the first has given them all is nothing to tell.
        read_imports(config_with(tmp_path, {}, {}), items)
    assert logs == []
    pl.DataFrame(ROWS).with_columns(item_id=pl.lit("1.0")).write_parquet(tmp_path / "texts.parquet")
    with capture_logs() as logs:
        read_imports(config_with(tmp_path, {}), items)
    assert "no item of an import is known" in logs[0]["event"]
    assert logs[0]["found"].startswith("1.0")


def test_imports_first_file_wins(tmp_path: Path, items: pl.DataFrame):
    pl.DataFrame(ROWS[:1]).write_parquet(tmp_path / "texts.parquet")
    pl.DataFrame(ROWS).write_parquet(tmp_path / "more.parquet")
    config = config_with(tmp_path, {}, {"file": "more.parquet", "model": "another"})
    assert dict(read_imports(config, items).frame.select("item_id", "model").rows()) == {
        "f1": "somebody",
        "m1": "another",
    }
    first, second = import_digests(config)
    assert first["sha256"] != second["sha256"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"file": "absent.parquet"}, "no file 'absent.parquet'"),
        ({"file": "no.parquet"}, "no Parquet"),
        ({"file": "columns.parquet"}, "agnostic"),
        ({"domains": {}}, "Groceries"),
        ({"exclude": "absent.tsv"}, "no file 'absent.tsv'"),
        ({"exclude": "no_tab.tsv"}, "line 2"),
        ({"exclude": "domain.tsv"}, "did you mean 'food'"),
    ],
)
def test_imports_bad_file_is_a_config_error(tmp_path: Path, items: pl.DataFrame, change: dict[str, Any], named: str):
    pl.DataFrame(ROWS).write_parquet(tmp_path / "texts.parquet")
    (tmp_path / "no.parquet").write_text("text")
    pl.DataFrame(ROWS).drop("agnostic").write_parquet(tmp_path / "columns.parquet")
    (tmp_path / "no_tab.tsv").write_text("food\tf1\nfood f2\n")
    (tmp_path / "domain.tsv").write_text("foods\tf1\n")
    with pytest.raises(ConfigError, match=named):
        read_imports(config_with(tmp_path, change), items)
