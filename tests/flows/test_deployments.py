from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from semacdr import __version__
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
    shown = json.loads(prefect("deployment", "inspect", "pipeline/nightly", "--output", "json").stdout)
    assert shown["version"] == __version__
    form = shown["parameter_openapi_schema"]
    assert form["required"] == ["dataset"]
    assert all(field["description"] for field in form["properties"].values())
    schedules = shown["schedules"]
    listed = json.loads(prefect("gcl", "ls", "--output", "json").stdout)
    assert ("semacdr-gpu", 1) in {(limit["name"], limit["limit"]) for limit in listed}
    assert [(s["schedule"]["cron"], s["schedule"]["timezone"], s["active"]) for s in schedules] == [
        ("0 2 * * *", "UTC", True)
    ]


def test_semantics_by_a_worker_publishes_new_versions(prefect: Prefect, toml: Path):
    """A real server, worker and vLLM server; the first run is cancelled, and ends its vLLM server with it."""
    run(prefect, "ingest/load", toml)
    cancel_while_vllm_starts(prefect, toml)
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
    assert kinds["semantics-audit-three-domains"] == "markdown"
    assert kinds["ingest-counts-three-domains"] == kinds["ingest-rejects-three-domains"] == "table"
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
    told = prefect.alerts.wait_for(str(tmp_path))
    assert told["title"] == "semacdr: a run failed"
    assert f"no data set '{tmp_path}'" in told["text"]


@pytest.mark.parametrize(
    ("wrong", "said"), [("only=trainin", "'trainin' is not one of"), ("retries=99", "maximum of 10")]
)
def test_wrong_parameter_starts_no_run(prefect: Prefect, toml: Path, wrong: str, said: str):
    result = prefect("deployment", "run", "pipeline/nightly", "--param", f"dataset={toml}", "--param", wrong)
    assert result.returncode != 0
    assert said in " ".join((result.stdout + result.stderr).split())


def test_run_as_of_a_day_is_a_data_set_of_its_own(prefect: Prefect, toml: Path):
    arguments = ("--param", f"dataset={toml}", "--param", "until=2020-12-01", "--watch")
    assert prefect("deployment", "run", "ingest/load", *arguments).returncode == 0
    events = Store(prefect.store).get("three-domains-until-2020-12-01", "interactions").scan().collect()
    assert 0 < events["timestamp_s"].max() < 1_606_867_200  # 2020-12-02


def cancel_while_vllm_starts(prefect: Prefect, toml: Path) -> None:
    """The servers' guards are children of the flow's process: their command names the model that is served."""
    created = prefect("deployment", "run", "semantics/generate", "--param", f"dataset={toml}").stdout
    (run_id,) = set(re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", created))
    served = prefect.environment["SEMACDR_LLM__MODEL"]
    wait_until(lambda: processes_of(served))
    assert prefect("flow-run", "cancel", run_id).returncode == 0
    wait_until(lambda: not processes_of(served))
    wait_until(lambda: state_of(prefect, run_id) == "CANCELLED")
    assert not list((prefect.store / ".staging").iterdir())


def processes_of(model: str) -> list[str]:
    found = subprocess.run(["pgrep", "-f", f"api_server --model {model}"], capture_output=True, text=True, check=False)
    return found.stdout.split()


def state_of(prefect: Prefect, run_id: str) -> str:
    return json.loads(prefect("flow-run", "inspect", run_id, "--output", "json").stdout)["state_type"]


def wait_until(holds: Callable[[], object], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.5)
