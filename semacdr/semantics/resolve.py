"""From settings to endpoints that answer: those that were given, or a server of our own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from semacdr.semantics.models import has_gpu, identify, model_to_serve
from semacdr.semantics.vllm_server import ServerSpec, VllmServer
from semacdr.settings import LlmSettings

VLLM_PYTHON = Path(".venv-vllm") / "bin" / "python"


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """Where a model is served."""

    urls: tuple[str, ...]
    model: str
    api_key: SecretStr | None
    local: bool
    """On this machine: proxies of the environment do not apply."""


@contextmanager
def resolve_engine(llm: LlmSettings, cache: Path) -> Iterator[Endpoints]:
    """Yield the endpoints of the settings, or those of a server that lives as long as the context.

    Raises:
        ConfigError: no vLLM or no model to start.
        EngineError: the server does not start.
    """
    model = identify(llm).name
    if llm.urls:
        yield Endpoints(urls=llm.urls, model=model, api_key=llm.api_key, local=False)
        return
    gpu = has_gpu()
    spec = ServerSpec(
        model=model_to_serve(llm, cache),
        served_name=model,
        python=llm.python or vllm_python(),
        gpu=gpu,
        max_model_len=llm.max_model_len,
        start_timeout_s=llm.start_timeout_s,
        log_folder=cache / "logs",
    )
    with VllmServer(spec) as server:
        yield Endpoints(urls=(server.url,), model=model, api_key=SecretStr(server.api_key), local=True)


def vllm_python() -> Path:
    """Return the interpreter of the vLLM environment: below the working directory, or beside our environment."""
    beside = Path(sys.prefix).parent / VLLM_PYTHON
    return VLLM_PYTHON.absolute() if VLLM_PYTHON.exists() or not beside.exists() else beside
