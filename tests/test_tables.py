from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from semacdr import tables
from semacdr.errors import DataError, StoreError
from semacdr.table_docs import DOCS, GOLDEN, Contracts, contracts, incompatible_changes, tables_markdown, write_docs

ITEM_VECTORS = pl.DataFrame(
    {"domain": ["a", "a", "b"], "item_id": ["i", "j", "i"]},
).with_columns(
    pl.Series("vector", [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]], dtype=pl.Array(pl.Float32, 2)),
    *(pl.lit(0.5).alias(f"weight_{view}") for view in ("agnostic", "specific", "id")),
)


def check(folder: Path, frame: pl.DataFrame) -> dict[str, int]:
    frame.write_parquet(folder / "item_vectors.parquet")
    return tables.check("item_vectors", folder)


def test_docs_are_current():
    assert DOCS.read_text(encoding="utf-8") == tables_markdown(), "run `make docs`"


def test_contracts_are_the_published_ones_or_compatible_with_them():
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    changes = incompatible_changes(golden, contracts())
    assert changes == [], "raise the artifact's number in CONTRACT_VERSIONS (semacdr/tables.py), then `make docs`"
    assert golden == contracts(), "a compatible change: run `make docs`"


def test_every_artifact_has_a_version_and_every_column_a_description():
    assert set(tables.CONTRACT_VERSIONS) == set(tables.TABLES)
    assert set(tables.FILES) <= set(tables.TABLES)
    for schemas in tables.TABLES.values():
        for schema in schemas.values():
            assert (schema.__doc__ or "").startswith("One row per ")
            assert [name for name, column in schema.columns().items() if not column.description] == []
            assert set(schema.sort_order) <= set(schema.columns())


def test_docs_name_every_table_column_rule_and_file():
    text = tables_markdown()
    assert "| `vector` | fixed-size list of float32 | never | as the model fuses" in text
    assert "| `view` (key) | one of specific, agnostic | never |" in text
    assert "- The five lists describe the same events." in text
    assert "- Sorted by `domain`, `user_id`, `timestamp_s`, `item_id`." in text
    assert "- `whitening.safetensors`" in text
    for schemas in tables.TABLES.values():
        for schema in schemas.values():
            assert all(f"| `{name}`" in text for name in schema.columns())


def column(new: Contracts) -> dict[str, Any]:
    columns: dict[str, Any] = new["items"]["tables"]["items"]["columns"]
    return columns


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda new: new.pop("items"), "items: is gone"),
        (lambda new: new["items"]["tables"].pop("items"), "items: table items is gone"),
        (lambda new: column(new).pop("price"), "column price is gone"),
        (lambda new: column(new)["price"].update(type="string"), "column price was"),
        (lambda new: column(new)["has_text"].update(nullable=True), "column has_text was"),
        (lambda new: column(new)["item_id"].update(min_length=2), "column item_id was"),
        (
            lambda new: column(new).update(stock={"type": "int64", "nullable": False}),
            "new column stock may not be null",
        ),
        (lambda new: new["items"]["tables"]["items"].update(key=["item_id"]), "key was"),
        (lambda new: new["items"]["tables"]["items"].update(sort_order=[]), "sort_order was"),
        (lambda new: new["items"]["tables"]["items"].update(rules=[]), "rules was"),
        (lambda new: new["items"].update(version=0), "contract version fell from 1 to 0"),
    ],
)
def test_change_that_breaks_readers_is_told_unless_the_version_is_raised(
    change: Callable[[Contracts], Any], message: str
):
    new = copy.deepcopy(contracts())
    change(new)
    (found,) = incompatible_changes(contracts(), new)
    assert message in found
    if "items" in new:
        new["items"]["version"] = 2
        assert incompatible_changes(contracts(), new) == []


def test_new_column_that_may_be_null_and_new_table_are_compatible():
    new = copy.deepcopy(contracts())
    column(new)["stock"] = {"type": "int64", "nullable": True}
    new["prices"] = {"version": 1, "tables": {}}
    assert incompatible_changes(contracts(), new) == []


def test_write_docs_refuses_a_change_that_breaks_readers_and_writes_nothing(tmp_path: Path):
    docs, golden = tmp_path / "tables.md", tmp_path / "contracts.json"
    old = copy.deepcopy(contracts())
    column(old)["stock"] = {"type": "int64", "nullable": True}
    golden.write_text(json.dumps(old))
    with pytest.raises(DataError, match="column stock is gone"):
        write_docs(docs, golden)
    assert json.loads(golden.read_text()) == old
    assert not docs.exists()
    golden.unlink()
    write_docs(docs, golden)
    assert json.loads(golden.read_text()) == contracts()
    assert docs.read_text() == tables_markdown()


@pytest.mark.parametrize(
    ("artifact", "found", "message"),
    [
        ("items", 2, "a newer contract(.|\n)*found: .*version 2(.|\n)*expected: .*version 1(.|\n)*upgrade"),
        ("items", 0, "an older contract(.|\n)*found: .*version 0(.|\n)*run the stage that makes it again"),
        ("prices", 1, "a newer contract(.|\n)*an artifact that this version of SemaCDR makes(.|\n)*upgrade"),
    ],
)
def test_artifact_of_another_contract_is_refused(artifact: str, found: int, message: str):
    with pytest.raises(StoreError, match=message):
        tables.check_contract(artifact, found, f"{artifact}@2026.01.01")
    tables.check_contract("items", 1, "items@2026.01.01")


def test_check_counts_the_rows_of_whole_tables(tmp_path: Path):
    assert check(tmp_path, ITEM_VECTORS) == {"item_vectors": 3}
    assert check(tmp_path, ITEM_VECTORS.clear()) == {"item_vectors": 0}
    assert check(tmp_path, ITEM_VECTORS.head(1)) == {"item_vectors": 1}


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (ITEM_VECTORS.with_columns(vector=pl.col("vector").cast(pl.List(pl.Float32))), "has other types"),
        (ITEM_VECTORS.with_columns(vector=pl.col("vector").cast(pl.Array(pl.Float64, 2))), "has other types"),
        (ITEM_VECTORS.with_columns(vector=pl.lit(None, pl.Array(pl.Float32, 2))), "breaks its contract in 3 rows"),
        (
            ITEM_VECTORS.with_columns(
                pl.Series("vector", [[1, 1], [1, float("nan")], [float("inf"), 1]], dtype=pl.Array(pl.Float32, 2))
            ),
            "breaks its contract in 2 rows",
        ),
        (ITEM_VECTORS.reverse(), "is not sorted"),
        (ITEM_VECTORS[[0, 2, 1]], "is not sorted"),
        (ITEM_VECTORS[[1, 0, 2]], "is not sorted"),
        (ITEM_VECTORS.drop("weight_id"), "expected"),
    ],
)
def test_table_that_breaks_its_contract_is_refused(tmp_path: Path, frame: pl.DataFrame, message: str):
    with pytest.raises(DataError, match=message):
        check(tmp_path, frame)


@pytest.mark.parametrize(
    ("rows", "message"),
    [([0, 1, 1, 2], "is not sorted"), ([0, 2, 1], "is not sorted"), ([1, 0, 2], "is not sorted"), ([0, 1, 2], None)],
)
def test_order_is_checked_across_the_parts_that_a_table_is_read_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[int], message: str | None
):
    monkeypatch.setattr(tables, "_ROWS_TO_CHECK", 2)
    if message is None:
        assert check(tmp_path, ITEM_VECTORS[rows]) == {"item_vectors": 3}
        return
    with pytest.raises(DataError, match=message):
        check(tmp_path, ITEM_VECTORS[rows])
