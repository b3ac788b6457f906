from __future__ import annotations

import json
import resource
import signal
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from structlog.testing import capture_logs

from semacdr.dataset import DatasetConfig
from semacdr.errors import ConfigError, EngineError, StoreError, TransientError
from semacdr.progress import Progress
from semacdr.semantics import GatherReport, Inputs, Responses, gather
from semacdr.semantics.selection import Plan, plan, select
from semacdr.settings import LlmSettings

from .conftest import make_config, write_interactions, write_items
from .fake_openai import GOOD, FakeOpenAiServer, Reply, completion

ITEMS = [
    {"domain": "food", "item_id": "f1", "title": "Green Tea"},
    {"domain": "food", "item_id": "f2", "title": "Black Tea"},
    {"domain": "food", "item_id": "f3", "title": None},
    {"domain": "films", "item_id": "m1", "title": "The Apartment"},
    {"domain": "films", "item_id": "m2", "title": "Sunset Boulevard"},
]
COUNTS = {("films", "m2"): 9, ("food", "f2"): 5, ("food", "f3"): 30}
BY_COUNT = ["Sunset Boulevard", "Black Tea", "The Apartment", "Green Tea"]


@pytest.fixture
def world(tmp_path: Path) -> Path:
    write_items(tmp_path / "items", ITEMS)
    write_interactions(tmp_path / "interactions", COUNTS)
    return tmp_path


def run(world: Path, llm: LlmSettings, config: DatasetConfig | None = None, **semantics: object) -> GatherReport:
    responses = Responses(world / "responses")
    try:
        return gather(
            config or make_config(world, **semantics),
            llm,
            Inputs(world / "items", world / "interactions"),
            responses,
            world / "cache",
            Progress(),
        )
    finally:
        responses.close()


def one_at_a_time(llm: LlmSettings) -> LlmSettings:
    return llm.model_copy(update={"concurrency": 1})


def test_gather_asks_every_item_with_text_once_most_interacted_first(
    world: Path, llm: LlmSettings, fake_server: FakeOpenAiServer
):
    report = run(world, one_at_a_time(llm))
    assert fake_server.asked == BY_COUNT
    assert (report.wanted, report.asked, report.accepted, report.left_out) == (4, 4, 4, 0)
    assert (report.prompt_tokens, report.completion_tokens, report.stopped_by) == (400, 120, None)
    again = run(world, llm)
    assert (again.wanted, again.reused, again.asked, len(fake_server.chats)) == (0, 4, 0, 4)


def test_gather_nothing_wanted_starts_no_engine(world: Path, llm: LlmSettings):
    run(world, llm)
    no_one_there = llm.model_copy(update={"urls": ("http://127.0.0.1:9/v1",)})
    assert run(world, no_one_there).reused == 4


def test_gather_budget_of_items_leaves_the_rest_to_the_next_run(
    world: Path, llm: LlmSettings, fake_server: FakeOpenAiServer
):
    report = run(world, one_at_a_time(llm), budget={"items": 3})
    assert fake_server.asked == BY_COUNT[:3]
    assert (report.asked, report.left_out, report.left_out_first) == (3, 1, ("food/f1",))
    assert report.stopped_by == "items"
    assert run(world, llm, budget={"items": 3}).left_out == 0
    assert fake_server.asked == BY_COUNT


def test_gather_budget_of_tokens_is_met_not_passed(world: Path, llm: LlmSettings, fake_server: FakeOpenAiServer):
    report = run(world, one_at_a_time(llm), budget={"tokens": 260})  # an item costs 130
    assert (report.asked, report.stopped_by) == (2, "tokens")
    assert fake_server.asked == BY_COUNT[:2]


@pytest.mark.parametrize("limit", ["items", "tokens", "minutes"])
def test_gather_budget_of_nothing_asks_nothing(
    world: Path, llm: LlmSettings, fake_server: FakeOpenAiServer, limit: str
):
    report = run(world, llm, budget={limit: 0})
    assert (report.asked, report.left_out, report.stopped_by) == (0, 4, limit)
    assert fake_server.paths == []


def test_gather_budget_of_minutes_awaits_what_is_in_flight(
    world: Path, llm: LlmSettings, fake_server: FakeOpenAiServer
):
    report = run(world, one_at_a_time(llm), budget={"minutes": 1e-9})
    assert report.asked <= 1
    assert report.stopped_by == "minutes"
    assert report.asked == len(fake_server.chats) == report.accepted


def test_gather_budget_of_minutes_begins_nothing_that_would_end_too_late(
    world: Path, llm: LlmSettings, fake_server: FakeOpenAiServer
):
    def slow(_body: dict[str, Any], _number: int) -> Reply:
        time.sleep(1.2)
        return completion()

    fake_server.behaviour = slow
    report = run(world, one_at_a_time(llm), budget={"minutes": 3 / 60})
    assert report.asked <= 2  # the third would end at 3.6 s
    assert report.stopped_by == "minutes"


def test_gather_invalid_answer_is_repaired_with_another_seed(
    world: Path, llm: LlmSettings, fake_server: FakeOpenAiServer
):
    fake_server.behaviour = lambda body, _: completion("{broken" if body["seed"] == 0 else GOOD)
    report = run(world, one_at_a_time(llm), budget={"items": 1})
    assert (report.accepted, report.failed, report.prompt_tokens) == (1, {}, 200)
    first, second = fake_server.chats
    assert (first["seed"], second["seed"]) == (0, 1)
    assert first["temperature"] == 0
    assert second["temperature"] > 0
    assert first["messages"] == second["messages"]


@pytest.mark.parametrize(
    ("agnostic", "reason"),
    [
        ("devout mothers who want their evenings to be calm", "agnostic: guesses a protected trait"),
        ("des gens qui veulent une soirée calme avec les amis et le soleil", "agnostic: another language"),
    ],
)
def test_gather_text_that_breaks_a_rule_gets_a_second_try(
    world: Path, llm: LlmSettings, fake_server: FakeOpenAiServer, agnostic: str, reason: str
):
    answers = [completion({**GOOD, "agnostic": agnostic}), completion("{broken")]
    fake_server.behaviour = lambda body, _: answers[body["seed"]]
    report = run(world, one_at_a_time(llm), budget={"items": 1})
    assert (report.accepted, report.failed) == (0, {reason: 1})
    # What can be read is kept rather than what came last: its specific text is of use.
    (record,) = Responses(world / "responses").all().collect().iter_rows(named=True)
    assert (json.loads(record["raw"])["specific"], record["calls"]) == (GOOD["specific"], 2)
    assert run(
        world, one_at_a_time(llm), budget={"items": 1}, audit={"protected_trait": "warn", "language": "warn"}
    ).accepted


def test_gather_failure_is_kept_with_its_reason_and_not_paid_twice(
    world: Path, llm: LlmSettings, fake_server: FakeOpenAiServer
):
    fake_server.behaviour = lambda *_: completion("{broken")
    assert run(world, llm).failed == {"not JSON": 4}
    assert len(fake_server.chats) == 8
    assert run(world, llm).wanted == 0
    assert len(fake_server.chats) == 8


def test_gather_same_text_is_asked_once(tmp_path: Path, llm: LlmSettings, fake_server: FakeOpenAiServer):
    write_items(tmp_path / "items", [{"domain": "food", "item_id": f"f{n}", "title": "Green Tea"} for n in range(5)])
    write_interactions(tmp_path / "interactions", {})
    assert run(tmp_path, llm).asked == 1
    assert len(fake_server.chats) == 1


def test_gather_changed_title_costs_one_call_changed_prompt_words_cost_their_domain(world: Path, llm: LlmSettings):
    run(world, llm)
    write_items(world / "items", [{**ITEMS[0], "title": "White Tea"}, *ITEMS[1:]])
    assert run(world, llm).asked == 1
    config = make_config(world)
    food = config.domains["food"].model_copy(update={"expert": "a cook"})
    reworded = config.model_copy(update={"domains": {**config.domains, "food": food}})
    reworded._path = world / "dataset.toml"
    assert run(world, llm, reworded).asked == 2
    renamed = config.model_copy(update={"name": "another"})
    renamed._path = world / "dataset.toml"
    assert run(world, llm, renamed).asked == 0


@pytest.mark.parametrize("change", [{"temperature": 0.5}, {"max_tokens": 99}, {"seed": 1}, {"max_item_tokens": 99}])
def test_gather_what_shapes_an_answer_is_in_its_key(world: Path, llm: LlmSettings, change: dict[str, Any]):
    run(world, llm)
    assert run(world, llm, **change).asked == 4
    assert run(world, llm.model_copy(update={"revision": "2"})).asked == 4


def test_gather_server_gone_keeps_what_was_answered(world: Path, llm: LlmSettings, fake_server: FakeOpenAiServer):
    fake_server.behaviour = lambda _, number: completion() if number < 2 else (500, {})
    with pytest.raises(TransientError):
        run(world, one_at_a_time(llm))
    fake_server.behaviour = lambda *_: completion()
    assert run(world, llm).asked == 2


def test_gather_item_that_the_server_refuses_does_not_fail_the_rest(
    world: Path, llm: LlmSettings, fake_server: FakeOpenAiServer
):
    def picky(body: dict[str, Any], _number: int) -> Reply:
        refused = "Sunset" in body["messages"][-1]["content"]
        return (400, {"error": {"message": "no sunsets"}}) if refused else completion()

    fake_server.behaviour = picky
    report = run(world, one_at_a_time(llm))
    assert (report.accepted, report.failed) == (3, {"refused by the server": 1})


def test_gather_server_that_refuses_everything_is_an_engine_error(
    world: Path, llm: LlmSettings, fake_server: FakeOpenAiServer
):
    fake_server.behaviour = lambda *_: (400, {"error": {"message": "schema not supported"}})
    with pytest.raises(EngineError, match="schema not supported"):
        run(world, llm)
    fake_server.behaviour = lambda *_: completion()
    assert run(world, llm).asked == 4


def test_gather_long_item_text_is_cut_by_tokens(tmp_path: Path, llm: LlmSettings, fake_server: FakeOpenAiServer):
    write_items(tmp_path / "items", [{"domain": "food", "item_id": "f1", "title": "tea " * 500}])
    write_interactions(tmp_path / "interactions", {})
    run(tmp_path, llm, max_item_tokens=16)
    assert fake_server.asked == ["tea tea tea tea"]


def test_gather_without_model_or_engine_says_what_to_do(world: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match="make vllm-cpu"):
        run(world, LlmSettings())
    with pytest.raises(ConfigError, match="served_name"):
        run(world, LlmSettings(urls=("http://127.0.0.1:9/v1",)))


def test_gather_answers_that_cannot_be_kept_stop_the_run(world: Path, llm: LlmSettings, fake_server: FakeOpenAiServer):
    (world / "responses").write_text("a file where the folder should be")
    with pytest.raises(StoreError):
        run(world, one_at_a_time(llm))
    assert len(fake_server.chats) == 1


@pytest.mark.parametrize(
    ("status", "message", "do"),
    [
        (401, "invalid key", "SEMACDR_LLM__API_KEY"),
        (404, "no such model", "llm.served_name"),
        (403, "quota", "api_key"),
    ],
)
def test_gather_server_that_refuses_to_work_says_what_to_set(
    world: Path, llm: LlmSettings, fake_server: FakeOpenAiServer, status: int, message: str, do: str
):
    fake_server.served = "another"
    fake_server.behaviour = lambda *_: (status, {"error": {"message": message}})
    with pytest.raises(EngineError, match=do):
        run(world, one_at_a_time(llm))
    assert len(fake_server.chats) == 1


def test_gather_context_shorter_than_the_prompt_says_what_to_set(
    world: Path, llm: LlmSettings, fake_server: FakeOpenAiServer
):
    fake_server.behaviour = lambda *_: (400, {"error": {"message": "maximum context length is 256 tokens"}})
    with pytest.raises(EngineError, match=r"256 tokens[\s\S]*llm.max_model_len"):
        run(world, one_at_a_time(llm))
    assert len(fake_server.chats) == 2  # an item, and the harmless text that tells whether it was the item


def test_gather_item_that_makes_the_server_fail_is_left_to_the_next_run(
    world: Path, llm: LlmSettings, fake_server: FakeOpenAiServer
):
    def fragile(body: dict[str, Any], _number: int) -> Reply:
        return (500, {}) if "Sunset" in body["messages"][-1]["content"] else completion()

    fake_server.behaviour = fragile
    report = run(world, llm)
    assert (report.asked, report.left_out, report.left_out_first) == (3, 1, ("films/m2",))
    fake_server.behaviour = lambda *_: completion()
    assert run(world, llm).asked == 1


def test_gather_another_data_set_reuses_answers_to_the_same_items(
    world: Path, tmp_path_factory: pytest.TempPathFactory, llm: LlmSettings, fake_server: FakeOpenAiServer
):
    run(world, llm)
    other = tmp_path_factory.mktemp("other")
    write_items(other / "items", [ITEMS[0], {**ITEMS[1], "item_id": "renamed"}, {**ITEMS[3], "title": "Ninotchka"}])
    write_interactions(other / "interactions", {})
    (other / "responses").symlink_to(world / "responses")
    config = make_config(other).model_copy(update={"name": "another"})
    config._path = other / "dataset.toml"
    report = run(other, llm, config)
    assert (report.reused, report.asked) == (2, 1)
    assert fake_server.asked[-1] == "Ninotchka"


@pytest.mark.parametrize("while_asking", [True, False])
def test_gather_disk_that_fills_up_keeps_what_was_answered(
    world: Path, llm: LlmSettings, fake_server: FakeOpenAiServer, *, while_asking: bool
):
    run(world, llm, budget={"items": 2})
    size = next((world / "responses").glob("*.jsonl")).stat().st_size
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_up() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 4, limits[1]))

    def full_now(_body: dict[str, Any], _number: int) -> Reply:
        fill_up()
        return completion()

    if while_asking:
        fake_server.behaviour = full_now
    else:
        fill_up()
    try:
        # pytest's own capture is a file, too: no log may reach it now.
        with pytest.raises(StoreError, match="make room"), capture_logs():
            run(world, one_at_a_time(llm))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    fake_server.behaviour = lambda *_: completion()
    assert run(world, llm).asked == 2


def planned(world: Path, llm: LlmSettings, **semantics: object) -> Plan:
    responses, config = Responses(world / "responses"), make_config(world, **semantics)
    with select(config, llm, Inputs(world / "items", world / "interactions"), responses, world) as selection:
        return plan(config, llm, responses, selection)


def test_plan_says_what_a_run_would_ask_and_asks_nothing(world: Path, llm: LlmSettings, fake_server: FakeOpenAiServer):
    before = planned(world, llm, budget={"items": 3})
    assert (before.items, before.wanted, before.calls, before.left_out) == (4, 4, 3, 1)
    assert (before.tokens_measured, before.seconds, before.answered_otherwise) == (False, None, 0)
    assert before.tokens > 3 * 160
    assert fake_server.paths == []
    run(world, llm, budget={"items": 3})
    after = planned(world, llm)
    assert (after.reused, after.wanted, after.calls) == (3, 1, 1)
    assert after.tokens_measured
    assert after.tokens == 130
    assert after.seconds is not None
    assert after.seconds >= 0
    assert planned(world, llm, budget={"tokens": 50}).tokens == 50


def test_plan_changed_prompt_says_that_it_costs_all(world: Path, llm: LlmSettings):
    run(world, llm)
    assert planned(world, llm).wanted == 0
    changed = planned(world, llm, prompt="dual-view@1")
    assert (changed.wanted, changed.answered_otherwise, changed.reused) == (4, 4, 0)
    assert changed.seconds is not None  # at the rate that this model has shown with the other prompt


def test_items_that_are_new_since_the_last_run_come_before_other_cold_ones(world: Path, llm: LlmSettings):
    last_run = world / "last"
    last_run.mkdir()
    known = pl.DataFrame({"domain": ["films", "food"], "item_id": ["m1", "f2"], "view": "specific"})
    known.write_parquet(last_run / "semantics.parquet")
    responses = Responses(world / "responses")
    inputs = Inputs(world / "items", world / "interactions", last_run)
    with select(make_config(world), llm, inputs, responses, world) as selection:
        assert selection.names(0, 9) == ["films/m2", "food/f2", "food/f1", "films/m1"]
        assert [row for part in selection.texts() for row in part["item_id"]] == ["m2", "f2", "f1", "m1"]
