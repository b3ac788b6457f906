"""A Prefect server of a benchmark's own, set up by ``make deploy``, with a worker when one is wanted."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

BIN = Path(sys.executable).parent
POOL = "semacdr"


class PrefectServer:
    """A running server: its API's URL, and the environment of who talks to it."""

    def __init__(self, api: str, environment: dict[str, str], folder: Path) -> None:
        self.api = api
        self.environment = environment
        self.folder = folder
        self._client = httpx.Client(base_url=api, timeout=60)  # it may be slow beside what is measured

    @contextmanager
    def worker(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run a worker; what it runs ends with it."""
        with _background(self.folder / "worker.log", self.environment, "worker", "start", "--pool", POOL) as process:
            yield process

    def start_run(self, deployment: str, parameters: dict[str, object]) -> str:
        """Create a run of a deployment; return its id."""
        flow, name = deployment.split("/")
        found = self._client.get(f"/deployments/name/{flow}/{name}").raise_for_status().json()
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        created = self._client.post(f"/deployments/{found['id']}/create_flow_run", json=body).raise_for_status()
        return str(created.json()["id"])

    def run(self, run_id: str) -> dict[str, object]:
        """Return what the server knows of a run."""
        found: dict[str, object] = self._client.get(f"/flow_runs/{run_id}").raise_for_status().json()
        return found

    def wait(self, run_id: str, timeout_s: float = 1_800) -> dict[str, object]:
        """Wait until a run has ended; return what the server knows of it."""
        deadline = time.monotonic() + timeout_s
        while (run := self.run(run_id))["state_type"] not in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}:
            if time.monotonic() > deadline:
                raise TimeoutError(f"run {run_id} is still {run['state_type']}")
            time.sleep(0.5)
        return run

    def slots_taken(self) -> int:
        """Return how many slots of all concurrency limits are in use."""
        limits = self._client.post("/v2/concurrency_limits/filter", json={}).raise_for_status().json()
        return sum(limit["active_slots"] for limit in limits)

    def first_task_at(self, run_id: str) -> str:
        """Return when the first task of a run started."""
        body = {"flow_runs": {"id": {"any_": [run_id]}}, "sort": "EXPECTED_START_TIME_ASC"}
        tasks = self._client.post("/task_runs/filter", json=body).raise_for_status().json()
        return min(str(task["start_time"]) for task in tasks if task["start_time"])


@contextmanager
def prefect_server(folder: Path, store: Path, **more: str) -> Iterator[PrefectServer]:
    """Start a server in a folder, with more variables in its environment and its workers', set it up, and end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    api = f"http://127.0.0.1:{port}/api"
    environment = os.environ | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_API_URL": api,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "SEMACDR_STORE": str(store),
        **more,
    }
    with _background(folder / "server.log", environment, "server", "start", "--port", str(port), "--no-ui"):
        deadline = time.monotonic() + 120
        while not _answers(f"{api}/health"):
            if time.monotonic() > deadline:
                raise TimeoutError("the Prefect server did not start")
            time.sleep(0.2)
        command = ["make", "--old-file", ".venv/.done", "deploy"]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        yield PrefectServer(api, environment, folder)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.TransportError:
        return False


@contextmanager
def _background(log: Path, environment: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        command = [str(BIN / "prefect"), *arguments]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
