"""The stages that are cut into shards make the same bytes here, on Ray and on Dask: small clusters of this machine."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from semacdr.dataset import load_dataset
from semacdr.pipeline import STAGES, Context, run_stage
from semacdr.settings import Settings
from semacdr.store import Store
from tests.flows.conftest import Prefect
from tests.processes import PROJECT
from tests.raw_logs import DOMAINS, write_raw_logs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CLUSTER = {"SEMACDR_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
SHARDED = ("ingest", "embeddings", "recommendations")


@pytest.fixture(scope="module")
def toml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    toml = write_raw_logs(tmp_path_factory.mktemp("sharded"))
    toml.write_text(toml.read_text().replace("items = 6", "items = 0"))
    return toml


@pytest.fixture(scope="module")
def made_here(toml: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, ...]]:
    store = Store(tmp_path_factory.mktemp("here"))
    for stage in STAGES:
        run_stage(stage, Context(dataset=load_dataset(toml), settings=Settings(threads=1), store=store))
    return tables(store)


def tables(store: Store) -> dict[str, tuple[str, ...]]:
    """Artifact -> the hashes of its tables, of the stages that are cut into shards."""
    manifests = [m for m in store.manifests("three-domains") if m.stage in SHARDED]
    return {m.name: tuple(file.sha256 for file in m.files if file.path.endswith(".parquet")) for m in manifests}


def shards(prefect: Prefect) -> int:
    """Return how many domains were read by tasks, in all runs."""
    names = [f"ingest_domain {domain}" for domain in DOMAINS]
    body = {"task_runs": {"name": {"any_": names}}}
    return httpx.post(f"{prefect.environment['PREFECT_API_URL']}/task_runs/count", json=body).raise_for_status().json()


@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_cluster_makes_the_same_bytes(prefect: Prefect, toml: Path, made_here: dict, tmp_path: Path, runner: str):
    if find_spec(f"prefect_{runner}") is None:
        pytest.skip(f"the extra {runner!r} is not installed")
    script = "import sys; from flows.pipeline import nightly; nightly(sys.argv[1], store=sys.argv[2])"
    environment = prefect.environment | CLUSTER | {"SEMACDR_RUNNER": runner, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-c", script, str(toml), str(tmp_path / "store")]
    before = shards(prefect)
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert shards(prefect) - before == len(DOMAINS)
    assert tables(Store(tmp_path / "store")) == made_here
