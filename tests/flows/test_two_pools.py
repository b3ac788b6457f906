"""Work pools of their own for CPU and GPU: ``pipeline/nightly`` starts each step as a deployment, where it belongs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from semacdr.pipeline import STAGES
from semacdr.store import Store
from tests.flows.conftest import Prefect, serving
from tests.raw_logs import write_raw_logs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

APART = {"SEMACDR_GPU_POOL": "semacdr-gpu", "SEMACDR_APART": "true"}


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    folder = tmp_path_factory.mktemp("two-pools")
    with serving(folder, APART) as running, running.worker("semacdr"), running.worker("semacdr-gpu"):
        yield running


def runs(prefect: Prefect) -> list[dict[str, str]]:
    """Return the runs that have ended, in the order of their starts."""
    url = f"{prefect.environment['PREFECT_API_URL']}/flow_runs/filter"
    body = {"sort": "START_TIME_ASC", "flow_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED"]}}}}
    return httpx.post(url, json=body).raise_for_status().json()


def night(prefect: Prefect, toml: Path) -> int:
    arguments = ("--param", f"dataset={toml}", "--param", "refresh=[]", "--watch")
    return prefect("deployment", "run", "pipeline/nightly", *arguments).returncode


def test_each_step_runs_in_its_pool(prefect: Prefect, tmp_path: Path):
    toml = write_raw_logs(tmp_path / "raw")
    toml.write_text(toml.read_text().replace("items = 6", "items = 0"))
    assert night(prefect, toml) == 0
    assert [(run["name"].split()[0], run["work_pool_name"], run["state_type"]) for run in runs(prefect)] == [
        ("pipeline", "semacdr", "COMPLETED"),
        ("ingest", "semacdr", "COMPLETED"),
        ("semantics", "semacdr-gpu", "COMPLETED"),
        ("embeddings", "semacdr-gpu", "COMPLETED"),
        ("training", "semacdr-gpu", "COMPLETED"),
        ("recommendations", "semacdr-gpu", "COMPLETED"),
    ]
    made = {m.name for m in Store(prefect.store).manifests("three-domains")}
    assert made == {name for stage in STAGES for name in stage.outputs}


def test_step_that_fails_ends_the_night_and_is_named(prefect: Prefect, tmp_path: Path):
    assert night(prefect, tmp_path) != 0
    parent, step = runs(prefect)[-2:]
    assert (parent["state_type"], step["state_type"]) == ("FAILED", "FAILED")
    said = prefect("flow-run", "logs", parent["id"]).stdout
    assert "ingest/load of" in said
    assert f"no data set '{tmp_path}'" in " ".join(said.split())
