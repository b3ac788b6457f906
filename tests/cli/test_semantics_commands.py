from __future__ import annotations

import json
from pathlib import Path

import duckdb
import polars as pl
import pytest
from click.testing import CliRunner, Result

from semacdr.cli import main
from semacdr.cli.semantics import semantics
from semacdr.database import read_sql
from semacdr.dataset import load_dataset
from semacdr.errors import ConfigError
from semacdr.pipeline import Context, find_stage, run_stage
from semacdr.settings import load_settings
from semacdr.store import Store

TEXTS = {
    "specific": "a sturdy steel pan for searing meat over high heat",
    "agnostic": "patient people who value slow evenings and lasting things",
}


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ingested data set of three items, whose model is never reached."""
    monkeypatch.setenv("SEMACDR_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("SEMACDR_LLM__URLS", '["http://127.0.0.1:9/v1"]')
    monkeypatch.setenv("SEMACDR_LLM__SERVED_NAME", "nobody")
    events = [{"u": "u1", "i": item, "t": 1_400_000_000 + n} for n, item in enumerate("abc")]
    items = [{"i": item, "title": title} for item, title in zip("abc", ("Steel Pan", "Oak Spoon", "Mug"), strict=True)]
    for name, rows in (("events", events), ("items", items)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "dataset.toml").write_text(
        """
        name = "toy"
        [domains.kitchen]
        [domains.kitchen.interactions]
        files = ["events.jsonl"]
        columns = { user_id = "u", item_id = "i", timestamp = "t" }
        [domains.kitchen.items]
        files = ["items.jsonl"]
        columns = { item_id = "i", title = "title" }
        [semantics.budget]
        items = 0
        """
    )
    run(tmp_path, "ingest")
    return tmp_path


def run(folder: Path, stage: str) -> None:
    settings = load_settings()
    context = Context(dataset=load_dataset(str(folder), ()), settings=settings, store=Store(settings.store))
    run_stage(find_stage(stage), context)


def call(*arguments: object) -> Result:
    result = CliRunner().invoke(semantics, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_semantics_commands_bring_in_a_batch_from_request_to_catalog(dataset: Path):
    requests = dataset / "requests.jsonl"
    exported = call("export-requests", requests, "--dataset", dataset, "--model", "gpt-x", "--limit", 2)
    assert exported.output.startswith("2 requests")
    fields = {"need": "making", "occasions": ["work"], "audience": "anyone", "tastes": ["bold"]}
    fields |= {"price_attitude": "saves"}
    answers = []
    for number, line in enumerate(requests.read_text().splitlines()):
        text = json.dumps({**TEXTS, **fields, "specific": TEXTS["specific"] + f" number {number}"})
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 10, "completion_tokens": 5}
        body = {"choices": [choice], "usage": usage}
        answers.append({"custom_id": json.loads(line)["custom_id"], "response": {"status_code": 200, "body": body}})
    (dataset / "answers.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    run(dataset, "semantics")
    taken = call("import", dataset / "answers.jsonl", "--dataset", dataset, "--model", "gpt-x").output
    assert "accepted" in taken
    run(dataset, "semantics")

    with duckdb.connect(str(dataset / "store" / "catalog.duckdb"), read_only=True) as catalog:
        changed = catalog.sql(read_sql("examples/changed_texts")).pl()
        assert changed.select("source_before", "source_now").unique().rows() == [("fallback", "imported")]
        assert changed.height == 4
        cost = catalog.sql(read_sql("examples/cost_per_domain")).pl()
        assert cost.select("domain", "num_items", "prompt_tokens", "completion_tokens").rows() == [
            ("kitchen", 2, 20, 10)
        ]
        leaks = catalog.sql(read_sql("examples/worst_leaks")).pl()
        assert leaks.is_empty()
        rules = catalog.execute("select distinct rule from semantics_audit order by rule").fetchall()
        assert rules == [("duplicate",), ("near_duplicate",)]


def test_dry_run_says_what_would_run_and_what_is_asked(dataset: Path, tmp_path: Path):
    arguments = [str(dataset), "--dry-run"]
    output = CliRunner().invoke(main, ["run", *arguments], catch_exceptions=False).output
    rows = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in output.splitlines() if "│" in line}
    assert (rows["ingest"], rows["sequences"]) == ("unchanged", "runs")
    assert rows["embeddings"] == "runs: semantics, sequences are made anew"
    assert rows["texts without an answer"] == "3"
    assert rows["calls of a run that asks"] == "0"
    assert rows["minutes"] == "unknown: the model has not answered yet"
    asked = CliRunner().invoke(main, ["run", *arguments, "--refresh", "semantics"], catch_exceptions=False).output
    assert "runs: gathers more" in asked
    only = CliRunner().invoke(main, ["run", *arguments, "--only", "semantics"], catch_exceptions=False).output
    assert "runs: gathers more" in only
    empty = CliRunner().invoke(main, ["run", *arguments, "--store", str(tmp_path / "none")], catch_exceptions=False)
    assert "runs: interactions is made anew" in empty.output
    assert "tokens" not in empty.output
    assert not (tmp_path / "none").exists()


def test_semantics_import_leaks_are_shown_by_the_example_query(dataset: Path):
    texts = {**TEXTS, "agnostic": "those who like an honest oak spoon on slow days"}
    pl.DataFrame([{"item_id": "b", "domain": "shop", **texts}]).write_parquet(dataset / "texts.parquet")
    arguments = ("import", dataset / "texts.parquet", "--dataset", dataset, "--model", "me", "--domain", "shop=kitchen")
    assert "title_leak" in call(*arguments).output
    run(dataset, "semantics")
    with duckdb.connect(str(dataset / "store" / "catalog.duckdb"), read_only=True) as catalog:
        leaks = catalog.sql(read_sql("examples/worst_leaks")).pl()
    assert leaks.select("item_id", "rule", "leaked_words", "title").rows() == [
        ("b", "title_leak", "oak spoon", "Oak Spoon")
    ]


def test_semantics_bad_arguments_are_config_errors(dataset: Path):
    pl.DataFrame([{"item_id": "b", "domain": "kitchen", **TEXTS}]).write_parquet(dataset / "texts.parquet")
    with pytest.raises(ConfigError, match="THEIRS=OURS"):
        call("import", dataset / "texts.parquet", "--dataset", dataset, "--model", "me", "--domain", "shop")
    with pytest.raises(ConfigError, match=r"no file .*absent.parquet"):
        call("import", dataset / "absent.parquet", "--dataset", dataset, "--model", "me")
    with pytest.raises(ConfigError, match="is there already"):
        call("export-requests", dataset / "texts.parquet", "--dataset", dataset)
    with pytest.raises(ConfigError, match="no folder"):
        call("export-requests", dataset / "no" / "file.jsonl", "--dataset", dataset)
