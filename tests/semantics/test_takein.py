from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from semacdr.dataset import DatasetConfig, Import
from semacdr.errors import ConfigError, DataError
from semacdr.progress import Progress
from semacdr.semantics import Inputs, Responses, answers_digest, assemble, gather
from semacdr.semantics.batch import export_requests, read_batch
from semacdr.semantics.selection import select
from semacdr.semantics.takein import TakenIn, take_in
from semacdr.settings import LlmSettings

from .conftest import make_config, write_interactions, write_items
from .fake_openai import GOOD, FakeOpenAiServer

ITEMS = [
    {"domain": "food", "item_id": "f1", "title": "Green Tea"},
    {"domain": "food", "item_id": "f2", "title": "Black Tea"},
    {"domain": "food", "item_id": "f3", "title": "Black Tea"},
    {"domain": "films", "item_id": "m1", "title": "The Apartment"},
]
TEXTS = {view: GOOD[view] for view in ("specific", "agnostic")}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    write_items(tmp_path / "items", ITEMS)
    write_interactions(tmp_path / "interactions", {("films", "m1"): 2})
    (tmp_path / "out").mkdir()
    return tmp_path


def taken(world: Path, config: DatasetConfig, file: str, **source: object) -> TakenIn:
    named = Import.model_validate({"file": str(world / file), "model": "gpt-x", **source})
    return take_in(config, world / "items", Responses(world / "responses"), named)


def exported(world: Path, config: DatasetConfig, llm: LlmSettings, limit: int | None = None) -> list[dict[str, Any]]:
    responses = Responses(world / "responses")
    with select(config, llm, Inputs(world / "items", world / "interactions"), responses, world) as selection:
        export_requests(config, selection, world / "requests.jsonl", "gpt-x", limit)
    return [json.loads(line) for line in (world / "requests.jsonl").read_text(encoding="utf-8").splitlines()]


def answered(world: Path, requests: list[dict[str, Any]], content: object = GOOD, status: int = 200) -> None:
    """Write what a batch API gives back, in another order than it was asked."""
    message = {"content": content if isinstance(content, str) else json.dumps(content)}
    body = {
        "choices": [{"message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 200, "completion_tokens": 50},
    }
    lines = [
        {"id": "x", "custom_id": request["custom_id"], "response": {"status_code": status, "body": body}, "error": None}
        for request in reversed(requests)
    ]
    (world / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def test_batch_round_trip_is_imported_with_its_model_and_asks_nothing(
    world: Path, llm: LlmSettings, fake_server: FakeOpenAiServer
):
    config = make_config(world)
    requests = exported(world, config, llm)
    assert len(requests) == 3  # two items share a text
    first = requests[0]
    assert (first["method"], first["url"], first["body"]["model"]) == ("POST", "/v1/chat/completions", "gpt-x")
    assert "The Apartment" in first["body"]["messages"][-1]["content"]  # most-interacted first
    before = answers_digest(config, llm, world / "items", Responses(world / "responses"))
    answered(world, requests)
    report = taken(world, config, "answers.jsonl")
    assert (report.rows, report.accepted, report.unchanged, report.not_taken) == (3, 3, 0, {})
    assert report.findings == {"duplicate": 4}

    responses = Responses(world / "responses")
    assert answers_digest(config, llm, world / "items", responses) != before
    gather(config, llm, Inputs(world / "items", world / "interactions"), responses, world, Progress())
    assert fake_server.chats == []
    assert exported(world, config, llm) == []
    assemble(config, llm, world / "items", responses, world / "out")
    rows = pl.read_parquet(world / "out" / "semantics.parquet")
    told = rows.select("source", "model", "prompt", "prompt_tokens", "need").unique().rows()
    assert told == [("imported", "gpt-x", "dual-view@2", 200, GOOD["need"])]
    assert rows.height == 8
    again = taken(world, config, "answers.jsonl")
    assert (again.accepted, again.unchanged) == (3, 3)


def test_batch_limit_takes_the_most_interacted(world: Path, llm: LlmSettings):
    (request,) = exported(world, make_config(world), llm, limit=1)
    assert "The Apartment" in request["body"]["messages"][-1]["content"]


def test_batch_bad_answers_are_counted_by_reason(world: Path, llm: LlmSettings):
    config = make_config(world)
    requests = exported(world, config, llm)
    answered(world, requests, {"specific": "no fields"})
    with pytest.raises(DataError, match="not the schema 3"):
        taken(world, config, "answers.jsonl")
    answered(world, requests, status=500)
    with pytest.raises(DataError, match="refused by the server 3"):
        taken(world, config, "answers.jsonl")
    for agnostic, reason in (
        ("For busy Christian mothers over sixty who cook for many", "guesses a protected trait 3"),
        ("Für alle, die abends gern zu Hause bleiben und etwas Ruhe suchen", "another language 3"),
    ):
        answered(world, requests, GOOD | {"agnostic": agnostic})
        with pytest.raises(DataError, match=reason):
            taken(world, config, "answers.jsonl")
    answered(world, [{"custom_id": "films/m1"}, {"custom_id": "films/m1"}, {"custom_id": "films/none"}])
    report = taken(world, config, "answers.jsonl")
    assert (report.accepted, report.not_taken) == (1, {"duplicates": 1, "unknown items": 1})


@pytest.mark.parametrize(
    ("content", "named"),
    [("no json\n", "line 1"), ('{"custom_id": "a"}\n', "line 1"), ("[1]\n", "line 1"), ("\n", "no answers")],
)
def test_batch_file_that_is_none_is_a_config_error(world: Path, content: str, named: str):
    (world / "answers.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=named):
        taken(world, make_config(world), "answers.jsonl")
    with pytest.raises(ConfigError, match="no file"):
        list(read_batch(world / "absent.jsonl"))


def test_parquet_taken_in_is_used_whatever_the_model_and_the_last_import_wins(world: Path, llm: LlmSettings):
    config = make_config(world)
    pl.DataFrame([{"item_id": "f1", "domain": "Grocery", **TEXTS}]).write_parquet(world / "a.parquet")
    domains = {"Grocery": "food"}
    assert taken(world, config, "a.parquet", domains=domains).accepted == 1
    better = {**TEXTS, "specific": "loose green tea with a mild and grassy taste"}
    pl.DataFrame([{"item_id": "f1", "domain": "Grocery", **better}]).write_parquet(world / "b.parquet")
    taken(world, config, "b.parquet", domains=domains, model="another")
    responses = Responses(world / "responses")
    for settings in (llm, llm.model_copy(update={"served_name": "other-llm"})):
        assemble(config, settings, world / "items", responses, world / "out")
        rows = pl.read_parquet(world / "out" / "semantics.parquet").filter(item_id="f1", view="specific")
        told = rows.select("text", "source", "model", "prompt", "prompt_tokens", "need").row(0)
        assert told == (better["specific"], "imported", "another", None, None, None)


def test_parquet_fields_are_held_to_the_prompts_lists(world: Path):
    row = {"item_id": "f1", "domain": "food", **TEXTS, "need": "comfort", "tastes": ["simple"]}
    pl.DataFrame([row, {**row, "item_id": "f2", "need": "status"}]).write_parquet(world / "a.parquet")
    report = taken(world, make_config(world), "a.parquet")
    assert (report.accepted, report.not_taken) == (1, {"need: not the schema": 1})
    assert report.examples == ("food/f2: need: not the schema",)
    pl.DataFrame([{**row, "tastes": "simple"}]).write_parquet(world / "a.parquet")
    with pytest.raises(ConfigError, match="tastes"):
        taken(world, make_config(world), "a.parquet")


def test_reference_semantics_are_taken_in_whole(world: Path):
    """The real file: 7,402 texts of a large language model."""
    file = Path(__file__).parents[2] / "examples" / "amazon-food-kitchen" / "reference_semantics.parquet"
    domains = {"Grocery_and_Gourmet_Food": "food", "Home_and_Kitchen": "films"}
    rows = pl.read_parquet(file).with_columns(pl.col("domain").replace(domains))
    items = rows.select("domain", "item_id", title=pl.col("item_id")).to_dicts()
    write_items(world / "items", items)
    report = taken(world, make_config(world), str(file), domains=domains)
    assert (report.rows, report.accepted, report.not_taken) == (7_402, 7_402, {})
    assert 700 < report.findings.pop("protected_trait") < 1_100
    assert set(report.findings) <= {"duplicate", "near_duplicate"}
