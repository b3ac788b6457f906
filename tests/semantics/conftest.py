from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl
import pytest

from semacdr.dataset import DatasetConfig
from semacdr.semantics import openai_engine, replicas
from semacdr.settings import LlmSettings
from semacdr.tables import Interactions, Items

from .fake_openai import FakeOpenAiServer, serving

SOURCE = {"files": ["x.jsonl"], "columns": {"user_id": "u", "item_id": "i", "timestamp": "t"}}


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_engine, "FIRST_DELAY_S", 0.001)
    monkeypatch.setattr(replicas, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(replicas, "PATIENCE_AT_START_S", 0.1)


@pytest.fixture
def fake_server() -> Iterator[FakeOpenAiServer]:
    with serving(FakeOpenAiServer()) as fake:
        yield fake


@pytest.fixture
def llm(fake_server: FakeOpenAiServer) -> LlmSettings:
    return LlmSettings(
        urls=(fake_server.url,), served_name="fake-llm", concurrency=4, request_timeout_s=5, patience_s=0.5
    )


def schema_of(table: type[dy.Schema]) -> dict[str, pl.DataType]:
    return {name: column.dtype for name, column in table.columns().items()}


def make_config(folder: Path = Path(), **semantics: object) -> DatasetConfig:
    config = DatasetConfig.model_validate(
        {
            "name": "toy",
            "domains": {
                "food": {"interactions": SOURCE, "label": "food and groceries", "expert": "a grocer"},
                "films": {"interactions": SOURCE},
            },
            "semantics": semantics,
        }
    )
    config._path = folder / "dataset.toml"
    return config


def write_items(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """Write the ``items`` artifact; a row needs domain, item_id and title (None: no text)."""
    folder.mkdir(parents=True, exist_ok=True)
    full = []
    for row in rows:
        text = row.get("text", row["title"])
        full.append(
            {
                **dict.fromkeys(Items.columns()),
                **row,
                "text": text,
                "text_hash": hashlib.sha256(text.encode()).hexdigest() if text else None,
                "has_metadata": text is not None,
                "has_text": text is not None,
            }
        )
    frame = pl.DataFrame(full, schema=schema_of(Items)).sort("domain", "item_id")
    Items.validate(frame).write_parquet(folder / "items.parquet")
    return folder


def write_interactions(folder: Path, counts: dict[tuple[str, str], int]) -> Path:
    """Write events that training sees, and as many again and more of a later time that it does not."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"user_id": f"u{number}", "domain": domain, "item_id": item, "timestamp_s": 10**9 + number, "rating": None}
        for (domain, item), count in counts.items()
        for number in range(count)
    ]
    rows += [
        {"user_id": "late", "domain": "films", "item_id": "m1", "timestamp_s": 2 * 10**9, "rating": None}
        for _ in range(len(rows))
    ]
    frame = pl.DataFrame(rows, schema=schema_of(Interactions))
    frame.sort("domain", "user_id", "timestamp_s", "item_id").write_parquet(folder / "interactions.parquet")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from semacdr.testing.tiny_llm import make_tiny_llm  # noqa: PLC0415 (torch takes seconds to import)

    return make_tiny_llm(tmp_path_factory.mktemp("models") / "tiny-llm")
