"""One run of the pipeline for the chaos test: a process that can be killed at any moment.

    python -m tests.semantics.chaos_run WORLD MODEL ASKED

Fills WORLD/responses from WORLD/items with a vLLM server of its own, and appends a line to ASKED for every prompt that
is sent: what the engine is asked, whoever asks it again.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from semacdr.dataset import DatasetConfig
from semacdr.progress import Progress
from semacdr.semantics import Inputs, OpenAiEngine, Responses, gather, vllm_python
from semacdr.settings import LlmSettings

from .conftest import make_config

IN_FLIGHT = 4


def settings(model: str) -> LlmSettings:
    return LlmSettings(model=model, python=vllm_python(), concurrency=IN_FLIGHT, restarts=100)


def config(world: Path) -> DatasetConfig:
    # A token of the tiny model is often one character, so the answers need more of them.
    return make_config(world, prompt="dual-view@1", max_tokens=420)


def main() -> None:
    world, model, asked = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    plain = OpenAiEngine._send
    log = os.open(asked, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def send(self: OpenAiEngine, base: str, url: str, data: bytes) -> Any:  # noqa: ANN401
        if url.endswith("/chat/completions"):
            os.write(log, data + b"\n")
        return await plain(self, base, url, data)

    OpenAiEngine._send = send  # type: ignore[method-assign]
    responses = Responses(world / "responses")
    gather(
        config(world),
        settings(model),
        Inputs(world / "items", world / "interactions"),
        responses,
        world / "cache",
        Progress(),
    )


if __name__ == "__main__":
    main()
