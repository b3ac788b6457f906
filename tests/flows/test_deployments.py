from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from semacdr.store import Store
from tests.flows.conftest import Prefect
from tests.raw_logs import write_raw_logs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DEPLOYMENTS = {
    "flows/ingest.py:load:load",
    "flows/semantics.py:generate:generate",
    "flows/embeddings.py:index:index",
    "flows/training.py:train:train",
    "flows/recommendations.py:publish:publish",
    "flows/pipeline.py:nightly:nightly",
}
"""Entry point and name."""


@pytest.fixture(scope="module")
def toml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raw_logs(tmp_path_factory.mktemp("raw"))


def run(prefect: Prefect, deployment: str, toml: Path) -> str:
    result = prefect("deployment", "run", deployment, "--param", f"dataset={toml}", "--watch")
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_all_six_are_registered_and_the_night_is_scheduled(prefect: Prefect):
    listed = json.loads(prefect("deployment", "ls", "--output", "json").stdout)
    assert {row["entrypoint"] + ":" + row["name"] for row in listed} == DEPLOYMENTS
    shown = prefect("deployment", "inspect", "pipeline/nightly", "--output", "json").stdout
    schedules = json.loads(shown)["schedules"]
    assert [(s["schedule"]["cron"], s["schedule"]["timezone"], s["active"]) for s in schedules] == [
        ("0 2 * * *", "UTC", True)
    ]


def test_semantics_by_a_worker_publishes_new_versions(prefect: Prefect, toml: Path):
    """The issue's own words: a deployment run against a real server, worker and vLLM server."""
    run(prefect, "ingest/load", toml)
    run(prefect, "semantics/generate", toml)
    store = Store(prefect.store)
    (first,) = store.manifests("three-domains", "semantics")
    assert asked(store) == 6
    run(prefect, "semantics/generate", toml)
    _, second = store.manifests("three-domains", "semantics")
    assert second.fingerprint != first.fingerprint
    assert asked(store) == 12
    assert store.get("three-domains", "semantics").manifest.version == second.version
    kinds = {row["key"]: row["type"] for row in json.loads(prefect("artifact", "ls", "--output", "json").stdout)}
    assert kinds["semantics-audit"] == "markdown"
    assert kinds["semantics"] == "progress"
    shown = prefect("artifact", "inspect", "semantics").stdout
    assert "6 of 6" in shown
    assert "tokens_per_s" in shown


def asked(store: Store) -> int:
    """Items of the current table that the LLM was asked for, whether or not its answer was good enough."""
    table = store.get("three-domains", "semantics").scan().collect()
    not_asked = (pl.col("source") == "fallback") & (pl.col("fallback_reason") == "not asked")
    return table.filter(~not_asked)["item_id"].n_unique()


def test_failed_run_says_why_and_exits_with_an_error(prefect: Prefect, tmp_path: Path):
    result = prefect("deployment", "run", "ingest/load", "--param", f"dataset={tmp_path}", "--watch")
    assert result.returncode != 0
    logs = prefect("flow-run", "ls", "--output", "json").stdout
    failed = [row for row in json.loads(logs) if row["state_type"] == "FAILED"]
    assert "no data set" in prefect("flow-run", "logs", failed[0]["id"]).stdout
