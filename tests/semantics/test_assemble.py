from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from semacdr.progress import Progress
from semacdr.semantics import Responses, answers_digest, assemble, gather
from semacdr.settings import LlmSettings
from semacdr.tables import Semantics, check

from .conftest import make_config, write_interactions, write_items
from .fake_openai import GOOD, FakeOpenAiServer, completion

ITEMS = [
    {"domain": "food", "item_id": "f1", "title": "Acme Green Tea, 20 Count", "brand": "Acme"},
    {"domain": "food", "item_id": "f2", "title": "Black Tea"},
    {"domain": "food", "item_id": "f3", "title": None},
    {"domain": "films", "item_id": "m1", "title": "The Apartment"},
    {"domain": "films", "item_id": "m2", "title": "Sunset Boulevard"},
]
IMPORTS = [{"file": "texts.parquet", "model": "somebody"}]


@pytest.fixture
def world(tmp_path: Path) -> Path:
    write_items(tmp_path / "items", ITEMS)
    write_interactions(tmp_path / "interactions", {("films", "m2"): 2})
    pl.DataFrame([{"item_id": "m1", "domain": "films", **GOOD}]).write_parquet(tmp_path / "texts.parquet")
    (tmp_path / "out").mkdir()
    return tmp_path


def test_assemble_takes_imported_then_generated_then_own_words(
    world: Path, llm: LlmSettings, fake_server: FakeOpenAiServer
):
    fake_server.behaviour = lambda body, _: completion(
        "{broken" if "Black" in body["messages"][-1]["content"] else GOOD
    )
    config = make_config(world, imports=IMPORTS, budget={"items": 2})
    llm = llm.model_copy(update={"concurrency": 1})
    responses = Responses(world / "responses")
    gather(config, llm, world / "items", world / "interactions", responses, world, Progress())
    # The import is not asked; m2 has most events, then f1 by name: f2 is beyond the budget.
    assert fake_server.asked == ["Sunset Boulevard", "Acme Green Tea, 20 Count"]
    gather(config, llm, world / "items", world / "interactions", responses, world, Progress())

    facts = assemble(config, llm, world / "items", responses, world / "out")
    assert check("semantics", world / "out") == {"semantics": 8}
    table = pl.read_parquet(world / "out" / "semantics.parquet")
    assert table.columns == list(Semantics.columns())
    rows = {(row["item_id"], row["view"]): row for row in table.iter_rows(named=True)}
    assert list(rows) == [(item, view) for item in ("m1", "m2", "f1", "f2") for view in ("agnostic", "specific")]
    imported, generated, own = rows["m1", "agnostic"], rows["m2", "specific"], rows["f2", "agnostic"]
    assert (imported["source"], imported["model"], imported["prompt"]) == ("imported", "somebody", None)
    assert (generated["source"], generated["text"]) == ("generated", GOOD["specific"])
    assert (generated["model"], generated["prompt"], generated["prompt_tokens"]) == ("fake-llm", "dual-view@1", 100)
    assert (own["source"], own["text"], own["model"]) == ("fallback", "Black Tea", None)
    assert own["fallback_reason"] == "failed: not JSON"
    assert (facts.rows_in, dict(facts.dropped)) == (5, {"no text": 1})
    assert facts.details["items_by_source"] == {"generated": 2, "imported": 1, "fallback": 1}
    assert facts.details["items_by_domain"] == {
        "films": {"generated": 1, "imported": 1},
        "food": {"fallback": 1, "generated": 1},
    }
    assert facts.details["failures"] == {"not JSON": 1}
    assert facts.details["spent_tokens"] == 4 * 130
    responses.close()


def test_assemble_without_any_answer_is_all_own_words(world: Path, llm: LlmSettings):
    assemble(make_config(world), llm, world / "items", Responses(world / "responses"), world / "out")
    table = pl.read_parquet(world / "out" / "semantics.parquet")
    assert set(table["source"]) == {"fallback"}
    assert set(table["fallback_reason"]) == {"not asked"}
    texts = dict(table.filter(item_id="f1").select("view", "text").rows())
    assert texts == {"specific": "Acme Green Tea, 20 Count", "agnostic": "Green Tea"}


def test_assemble_of_no_items_with_text_is_an_empty_table(tmp_path: Path, llm: LlmSettings):
    write_items(tmp_path / "items", [ITEMS[2]])
    assemble(make_config(tmp_path), llm, tmp_path / "items", Responses(tmp_path / "responses"), tmp_path)
    assert check("semantics", tmp_path) == {"semantics": 0}


def test_assemble_is_the_same_after_an_interrupted_run(world: Path, llm: LlmSettings):
    tables, digests = [], []
    for name, budgets in (("whole", [None]), ("parts", [1, 1, 2])):
        responses = Responses(world / name)
        for items in budgets:
            config = make_config(world, budget={"items": items})
            gather(config, llm, world / "items", world / "interactions", responses, world, Progress())
        config = make_config(world)
        assemble(config, llm, world / "items", responses, world / "out")
        tables.append((world / "out" / "semantics.parquet").read_bytes())
        digests.append(answers_digest(config, llm, world / "items", responses))
        responses.close()
    assert tables[0] == tables[1]
    assert digests[0] == digests[1]


def test_answers_digest_moves_with_answers_and_imports_only(world: Path, llm: LlmSettings):
    config = make_config(world, imports=IMPORTS)
    responses = Responses(world / "responses")
    empty = answers_digest(config, llm, world / "items", responses)
    assert empty["answers"] == 0
    gather(config, llm, world / "items", world / "interactions", responses, world, Progress())
    filled = answers_digest(config, llm, world / "items", responses)
    assert filled["answers"] == 3
    assert filled["answers_sha256"] != empty["answers_sha256"]
    assert answers_digest(config, llm, world / "items", Responses(world / "responses")) == filled
    pl.DataFrame([{"item_id": "m2", "domain": "films", **GOOD}]).write_parquet(world / "texts.parquet")
    assert answers_digest(config, llm, world / "items", responses)["imports"] != filled["imports"]
    responses.close()
