"""From settings to endpoints that answer: those that were given, or servers of our own."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path

from pydantic import SecretStr

from semacdr.errors import ConfigError
from semacdr.semantics.engine import Endpoints
from semacdr.semantics.models import gpus, identify, model_to_serve
from semacdr.semantics.vllm_server import ServerSpec, VllmServer
from semacdr.settings import LlmSettings

VLLM_PYTHON = Path(".venv-vllm") / "bin" / "python"


@contextmanager
def resolve_engine(llm: LlmSettings, cache: Path) -> Iterator[Endpoints]:
    """Yield the endpoints of the settings, or those of servers that live as long as the context.

    Raises:
        ConfigError: no vLLM or no model to start, or more replicas than GPUs.
        EngineError: a server does not start.
    """
    model = identify(llm).name
    if llm.urls:
        yield Endpoints(urls=llm.urls, model=model, api_key=llm.api_key)
        return
    api_key = secrets.token_urlsafe(24)
    servers = [VllmServer(spec, api_key) for spec in server_specs(llm, cache)]
    with ExitStack() as stack:
        _start_all(servers, stack)
        yield Endpoints(
            urls=tuple(server.url for server in servers),
            model=model,
            api_key=SecretStr(api_key),
            local=True,
            servers=tuple(servers),
        )


def _start_all(servers: Sequence[VllmServer], stack: ExitStack) -> None:
    """Start them side by side, for a large model takes minutes to load; one that fails ends the others."""
    with ThreadPoolExecutor(len(servers)) as starting:
        # With this run's context, which the lines of their logs name.
        entered = [starting.submit(copy_context().run, stack.enter_context, server) for server in servers]
        try:
            for entry in as_completed(entered):
                entry.result()
        except BaseException:
            for server in servers:
                server.give_up()
            raise


def server_specs(llm: LlmSettings, cache: Path) -> list[ServerSpec]:
    """Return what each server of ours is to serve, and on which GPU.

    Raises:
        ConfigError: no model, or more replicas than GPUs.
    """
    devices = gpus()
    num_replicas = llm.replicas or len(devices) or 1
    if devices and num_replicas > len(devices):
        raise ConfigError(
            "llm.replicas: one GPU serves one replica",
            found=f"{num_replicas} replicas, {len(devices)} GPUs ({', '.join(devices)})",
            do="set llm.replicas to at most the number of GPUs, or to 0 for one on each",
        )
    spec = ServerSpec(
        model=model_to_serve(llm, cache),
        revision=llm.revision,
        served_name=identify(llm).name,
        python=llm.python or vllm_python(),
        gpu=bool(devices),
        max_model_len=llm.max_model_len,
        start_timeout_s=llm.start_timeout_s,
        log_folder=cache / "logs",
        restarts=llm.restarts,
    )
    if num_replicas == 1:
        return [spec]  # on all GPUs that are visible: vLLM takes the first
    return [replace(spec, device=devices[number] if devices else None) for number in range(num_replicas)]


def vllm_python() -> Path:
    """Return the interpreter of the vLLM environment: below the working directory, or beside our environment."""
    beside = Path(sys.prefix).parent / VLLM_PYTHON
    return VLLM_PYTHON.absolute() if VLLM_PYTHON.exists() or not beside.exists() else beside
