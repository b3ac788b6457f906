"""PostgreSQL as Prefect's database, a nightly run on it, a worker that is lost in its middle, and two runs at once."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from semacdr.store import Store
from tests.flows.conftest import Prefect
from tests.raw_logs import write_raw_logs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NIGHTLY = ("deployment", "run", "pipeline/nightly", "--param", "refresh=[]", "--param")


def test_nightly_goes_on_where_a_lost_worker_was(prefect_on_postgres: Prefect, tmp_path: Path):
    """SIGKILL for the worker and its run once the first stage has published: a machine that is gone."""
    prefect = prefect_on_postgres
    toml = write_raw_logs(tmp_path / "raw")
    toml.write_text(toml.read_text().replace("items = 6", "items = 0"))
    store = Store(prefect.store)
    with prefect.worker() as worker:
        assert prefect(*NIGHTLY, f"dataset={toml}").returncode == 0
        deadline = time.monotonic() + 120
        while not store.manifests("three-domains", "interactions"):
            assert time.monotonic() < deadline, "nothing was published"
            time.sleep(0.1)
        for process in [*children(worker), worker]:
            os.kill(process, signal.SIGKILL)
    first = {m.reference for m in store.manifests("three-domains")}
    assert not any(reference.startswith("recommendations@") for reference in first)
    with prefect.worker(), ThreadPoolExecutor(2) as pool:
        for again in pool.map(lambda _: prefect(*NIGHTLY, f"dataset={toml}", "--watch"), range(2)):
            assert again.returncode == 0, again.stdout + again.stderr
    manifests = store.manifests("three-domains")
    assert first < {m.reference for m in manifests}
    names = [m.name for m in manifests]
    assert len(names) == len(set(names)) == 14, "each artifact is made once"


def children(process: int) -> list[int]:
    listed = subprocess.run(["pgrep", "--parent", str(process)], capture_output=True, text=True, check=False)
    return [int(child) for child in listed.stdout.split()]
