"""A Prefect server of a benchmark's own, set up by ``make deploy``, with a worker when one is wanted."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

BIN = Path(sys.executable).parent
POOL = "semacdr"
PATIENCE_S = 300
"""With a server that is busy beside what is measured."""


class PrefectServer:
    """A running server: its API's URL, and the environment of who talks to it."""

    def __init__(self, api: str, environment: dict[str, str], folder: Path) -> None:
        self.api = api
        self.environment = environment
        self.folder = folder
        self._client = httpx.Client(base_url=api, timeout=60)

    @contextmanager
    def worker(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run a worker; what it runs ends with it."""
        with _background(self.folder / "worker.log", self.environment, "worker", "start", "--pool", POOL) as process:
            yield process

    def start_run(self, deployment: str, parameters: dict[str, object]) -> str:
        """Create a run of a deployment; return its id."""
        flow, name = deployment.split("/")
        found = self._ask("GET", f"/deployments/name/{flow}/{name}")
        # With a key the server makes one run, however often it is asked.
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}, "idempotency_key": secrets.token_hex(8)}
        return str(self._ask("POST", f"/deployments/{found['id']}/create_flow_run", body)["id"])

    def run(self, run_id: str) -> dict[str, object]:
        """Return what the server knows of a run."""
        found: dict[str, object] = self._ask("GET", f"/flow_runs/{run_id}")
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
        return sum(limit["active_slots"] for limit in self._ask("POST", "/v2/concurrency_limits/filter", {}))

    def first_task_at(self, run_id: str) -> str:
        """Return when the first task of a run started."""
        return min(str(task["start_time"]) for task in self._tasks(run_id))

    def stage_of(self, run_id: str) -> str:
        """Return the stage that a run came to last; empty: none yet."""
        tasks = sorted(self._tasks(run_id), key=lambda task: str(task["start_time"]))
        return str(tasks[-1]["name"]).split()[0] if tasks else ""

    def _tasks(self, run_id: str) -> list[dict[str, Any]]:
        tasks = self._ask("POST", "/task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
        return [task for task in tasks if task["start_time"]]

    def _ask(self, method: str, path: str, body: dict[str, object] | None = None) -> Any:  # noqa: ANN401 (JSON)
        """Return the server's answer; asks again while it is too busy to give one."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self._client.request(method, path, json=body).raise_for_status().json()
            except httpx.HTTPError as error:
                refused = isinstance(error, httpx.HTTPStatusError) and error.response.is_client_error
                if refused or time.monotonic() > deadline:
                    raise
            time.sleep(1)


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
