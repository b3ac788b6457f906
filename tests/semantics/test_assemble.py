from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from semacdr.errors import DataError
from semacdr.progress import Progress
from semacdr.semantics import Inputs, Responses, answers_digest, assemble, gather, lexicon
from semacdr.settings import LlmSettings
from semacdr.tables import Semantics, check

from .conftest import make_config, write_interactions, write_items
from .fake_openai import GOOD, FakeOpenAiServer, Reply, completion
from .injections import INJECTIONS

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
    texts = {view: GOOD[view] for view in ("specific", "agnostic")}
    pl.DataFrame([{"item_id": "m1", "domain": "films", **texts}]).write_parquet(tmp_path / "texts.parquet")
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
    gather(config, llm, Inputs(world / "items", world / "interactions"), responses, world, Progress())
    # The import is not asked; m2 has most events, then f1 by name: f2 is beyond the budget.
    assert fake_server.asked == ["Sunset Boulevard", "Acme Green Tea, 20 Count"]
    gather(config, llm, Inputs(world / "items", world / "interactions"), responses, world, Progress())

    facts = assemble(config, llm, world / "items", responses, world / "out")
    assert check("semantics", world / "out") == {"semantics": 8, "semantics_audit": 6}
    table = pl.read_parquet(world / "out" / "semantics.parquet")
    assert table.columns == list(Semantics.columns())
    rows = {(row["item_id"], row["view"]): row for row in table.iter_rows(named=True)}
    assert list(rows) == [(item, view) for item in ("m1", "m2", "f1", "f2") for view in ("agnostic", "specific")]
    imported, generated, own = rows["m1", "agnostic"], rows["m2", "specific"], rows["f2", "agnostic"]
    assert (imported["source"], imported["model"], imported["prompt"]) == ("imported", "somebody", None)
    assert (generated["source"], generated["text"]) == ("generated", GOOD["specific"])
    assert (generated["model"], generated["prompt"], generated["prompt_tokens"]) == ("fake-llm", "dual-view@2", 100)
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
    assert check("semantics", tmp_path) == {"semantics": 0, "semantics_audit": 0}


def test_assemble_is_the_same_after_an_interrupted_run(world: Path, llm: LlmSettings):
    tables, digests = [], []
    for name, budgets in (("whole", [None]), ("parts", [1, 1, 2])):
        responses = Responses(world / name)
        for items in budgets:
            config = make_config(world, budget={"items": items})
            gather(config, llm, Inputs(world / "items", world / "interactions"), responses, world, Progress())
        config = make_config(world)
        assemble(config, llm, world / "items", responses, world / "out")
        tables.append((world / "out" / "semantics.parquet").read_bytes())
        digests.append(answers_digest(config, llm, world / "items", responses))
        responses.close()
    assert tables[0] == tables[1]
    assert digests[0] == digests[1]


def test_answers_digest_moves_with_the_word_lists(
    world: Path, llm: LlmSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    arguments = (make_config(world), llm, world / "items", Responses(world / "responses"))
    before = answers_digest(*arguments)
    words = tmp_path / "words.toml"
    words.write_bytes(lexicon.FILE.read_bytes() + b"\n")
    monkeypatch.setattr(lexicon, "FILE", words)
    assert answers_digest(*arguments) != before


def test_answers_digest_moves_with_answers_and_imports_only(world: Path, llm: LlmSettings):
    config = make_config(world, imports=IMPORTS)
    responses = Responses(world / "responses")
    empty = answers_digest(config, llm, world / "items", responses)
    assert empty["answers"] == 0
    gather(config, llm, Inputs(world / "items", world / "interactions"), responses, world, Progress())
    filled = answers_digest(config, llm, world / "items", responses)
    assert filled["answers"] == 3
    assert filled["answers_sha256"] != empty["answers_sha256"]
    assert answers_digest(config, llm, world / "items", Responses(world / "responses")) == filled
    pl.DataFrame([{"item_id": "m2", "domain": "films", **GOOD}]).write_parquet(world / "texts.parquet")
    assert answers_digest(config, llm, world / "items", responses)["imports"] != filled["imports"]
    responses.close()


FIELDS = {
    "need": "comfort",
    "occasions": ["everyday", "everyday"],
    "audience": "anyone",
    "tastes": ["simple", "durable"],
    "price_attitude": "saves",
}


def answers(world: Path, llm: LlmSettings, fake_server: FakeOpenAiServer, content: dict[str, object]) -> Responses:
    fake_server.behaviour = lambda *_: completion(content)
    responses = Responses(world / "responses")
    config = make_config(world, prompt="dual-view@2")
    gather(config, llm, Inputs(world / "items", world / "interactions"), responses, world, Progress())
    return responses


def test_assemble_structured_fields_are_columns_of_both_views(
    world: Path, llm: LlmSettings, fake_server: FakeOpenAiServer
):
    responses = answers(world, llm, fake_server, {**GOOD, **FIELDS})
    config = make_config(world, prompt="dual-view@2", imports=IMPORTS)
    assemble(config, llm, world / "items", responses, world / "out")
    rows = pl.read_parquet(world / "out" / "semantics.parquet").select("item_id", *FIELDS).unique()
    told = {row.pop("item_id"): row for row in rows.iter_rows(named=True)}
    assert told["f1"] == {**FIELDS, "occasions": ["everyday"]}
    assert told["m1"] == dict.fromkeys(FIELDS)  # imported, and its file has none


def test_assemble_text_that_fails_a_rule_falls_back_alone(world: Path, llm: LlmSettings, fake_server: FakeOpenAiServer):
    agnostic = "devout mothers who want their evenings to be calm"
    responses = answers(world, llm, fake_server, {**GOOD, **FIELDS, "agnostic": agnostic})
    config = make_config(world, prompt="dual-view@2")
    facts = assemble(config, llm, world / "items", responses, world / "out")
    table = pl.read_parquet(world / "out" / "semantics.parquet").filter(item_id="f1")
    rows = {row["view"]: row for row in table.iter_rows(named=True)}
    assert (rows["specific"]["source"], rows["specific"]["text"]) == ("generated", GOOD["specific"])
    assert (rows["agnostic"]["source"], rows["agnostic"]["text"]) == ("fallback", "Green Tea")
    assert (rows["agnostic"]["fallback_reason"], rows["agnostic"]["model"]) == ("rule: protected_trait", None)
    finding = pl.read_parquet(world / "out" / "semantics_audit.parquet").filter(item_id="f1", rule="protected_trait")
    assert finding.select("view", "action", "detail", "text", "model").row(0) == (
        "agnostic",
        "fallback",
        "religion: devout, family_role: mothers",
        agnostic,
        "fake-llm",
    )
    assert facts.metrics["protected_trait_rate"] == 1
    assert facts.details["texts_by_source"] == {"generated": 4, "imported": 0, "fallback": 4}
    assert facts.details["audit"]["protected_traits"] == {"family_role": 4, "religion": 4}

    warned = make_config(world, prompt="dual-view@2", audit={"protected_trait": "warn"})
    assemble(warned, llm, world / "items", responses, world / "out")
    assert set(pl.read_parquet(world / "out" / "semantics.parquet")["source"]) == {"generated"}


def test_assemble_rule_that_is_forgiven_uses_the_answer_that_was_kept_as_failed(
    world: Path, llm: LlmSettings, fake_server: FakeOpenAiServer
):
    copied = "for patient walkers who plan for comfort, dislike waste and pay more for what lasts"
    responses = answers(world, llm, fake_server, {**GOOD, **FIELDS, "agnostic": copied})
    num_calls = len(fake_server.chats)
    config = make_config(world, prompt="dual-view@2")
    assemble(config, llm, world / "items", responses, world / "out")
    table = pl.read_parquet(world / "out" / "semantics.parquet")
    assert set(table.filter(view="agnostic")["fallback_reason"]) == {"rule: copied_example"}
    forgiving = make_config(world, prompt="dual-view@2", audit={"copied_example": "accept"})
    assemble(forgiving, llm, world / "items", responses, world / "out")
    table = pl.read_parquet(world / "out" / "semantics.parquet")
    assert set(table.filter(view="agnostic")["text"]) == {copied}
    assert len(fake_server.chats) == num_calls


def test_assemble_too_many_failures_publish_nothing_and_say_why(
    tmp_path: Path, llm: LlmSettings, fake_server: FakeOpenAiServer
):
    write_items(tmp_path / "items", [{"domain": "food", "item_id": f"f{n}", "title": f"Tea {n}"} for n in range(12)])
    write_interactions(tmp_path / "interactions", {})
    (tmp_path / "out").mkdir()
    responses = answers(tmp_path, llm, fake_server, {"no": "texts"})
    config = make_config(tmp_path, prompt="dual-view@2")
    with pytest.raises(DataError, match=r"(?s)24 of 24: schema 24; such as food/f0 agnostic, schema .not the schema"):
        assemble(config, llm, tmp_path / "items", responses, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    lenient = make_config(tmp_path, prompt="dual-view@2", audit={"max_failure_share": 1})
    facts = assemble(lenient, llm, tmp_path / "items", responses, tmp_path / "out")
    assert facts.metrics["failure_share"] == 1


def test_assemble_injected_item_text_changes_nothing_but_itself(
    tmp_path: Path, llm: LlmSettings, fake_server: FakeOpenAiServer
):
    """End to end: what is sent differs in the item's line alone, and a server that repeats it is not believed."""

    def parrot(body: dict[str, Any], _number: int) -> Reply:
        said = body["messages"][-1]["content"].splitlines()[1]
        return completion({**GOOD, **FIELDS, "specific": said.ljust(20, "."), "agnostic": said[:180].ljust(20, ".")})

    rows = [{"domain": "food", "item_id": name, "title": text} for name, text in INJECTIONS.items()]
    write_items(tmp_path / "items", rows)
    write_interactions(tmp_path / "interactions", {})
    (tmp_path / "out").mkdir()
    fake_server.behaviour = parrot
    responses = Responses(tmp_path / "responses")
    config = make_config(tmp_path, prompt="dual-view@2", audit={"max_failure_share": 1})
    gather(config, llm, Inputs(tmp_path / "items", tmp_path / "interactions"), responses, tmp_path, Progress())
    first, *others = fake_server.chats
    assert len({chat["messages"][-1]["content"] for chat in fake_server.chats}) == len(INJECTIONS)
    for chat in others:
        assert chat["messages"][:-1] == first["messages"][:-1]
        assert chat["response_format"] == first["response_format"]
    for chat in fake_server.chats:
        opens, text, closes = chat["messages"][-1]["content"].splitlines()
        assert (opens, closes) == ("<item>", "</item>")
        assert "<" not in text
    assemble(config, llm, tmp_path / "items", responses, tmp_path / "out")
    check("semantics", tmp_path / "out")
    table = pl.read_parquet(tmp_path / "out" / "semantics.parquet")
    assert table["item_id"].n_unique() == len(INJECTIONS)
    assert set(table.filter(view="agnostic")["source"]) == {"fallback"}
