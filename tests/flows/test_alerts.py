"""Who is told when the gate refuses and when a run is late; a failed run's alert is in test_deployments.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from semacdr.store import Store
from tests.flows.conftest import Prefect
from tests.raw_logs import write_raw_logs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_gate_that_refuses_calls_the_webhook(prefect: Prefect, tmp_path: Path):
    """Another model recommends other items, and the gate has been told to let none through."""
    toml = write_raw_logs(tmp_path / "raw")
    text = toml.read_text().replace("three-domains", "refused").replace("items = 6", "items = 0")
    toml.write_text(text)
    night(prefect, toml)
    store = Store(prefect.store)
    before = store.get("refused", "recommendations", "production").manifest.version
    toml.write_text(text.replace("max_epochs = 3", "max_epochs = 1") + "\n[gate]\nmin_overlap = 1.0\n")
    night(prefect, toml)
    assert store.get("refused", "recommendations", "production").manifest.version == before
    told = prefect.alerts.wait_for("semacdr: the gate refused")
    assert "The gate refused recommendations of refused: " in told["text"]


def night(prefect: Prefect, toml: Path) -> None:
    arguments = ("--param", f"dataset={toml}", "--param", "refresh=[]", "--watch")
    done = prefect("deployment", "run", "pipeline/nightly", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def test_late_run_calls_the_webhook(prefect: Prefect, tmp_path: Path):
    assert prefect("work-pool", "pause", "semacdr").returncode == 0
    try:
        assert prefect("deployment", "run", "ingest/load", "--param", f"dataset={tmp_path}").returncode == 0
        told = prefect.alerts.wait_for("semacdr: a run is late")
    finally:
        assert prefect("work-pool", "resume", "semacdr").returncode == 0
    assert f"ingest of {tmp_path} is late: no worker took it" in told["text"]
