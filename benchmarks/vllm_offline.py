"""Answers chats by vLLM's own offline engine; run by ``semantics_throughput.py`` in the environment that has vLLM.

    .venv-vllm/bin/python benchmarks/vllm_offline.py REQUESTS.json

REQUESTS.json: how the model is loaded (as the server loads it), how tokens are chosen, and the requests, each with
messages, seed and temperature. Prints one JSON line: completion tokens, and the seconds
and CPU seconds of ``LLM.chat``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from vllm import LLM, SamplingParams  # type: ignore[import-not-found]
from vllm.sampling_params import StructuredOutputsParams  # type: ignore[import-not-found]


def main() -> None:
    """Answer and print."""
    work: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    llm = LLM(
        model=work["model"],
        max_model_len=work["max_model_len"],
        dtype=work["dtype"],
        enforce_eager=work["enforce_eager"],
        distributed_executor_backend=work["executor"],
        enable_chunked_prefill=work["enable_chunked_prefill"],
        structured_outputs_config={"backend": "xgrammar", "disable_any_whitespace": True},
    )
    parameters = [
        SamplingParams(
            temperature=request["temperature"],
            seed=request["seed"],
            max_tokens=work["max_tokens"],
            repetition_penalty=work["repetition_penalty"],
            structured_outputs=StructuredOutputsParams(json=work["schema"]),
        )
        for request in work["requests"]
    ]
    messages = [request["messages"] for request in work["requests"]]
    llm.chat(messages[:1], parameters[:1], use_tqdm=False)  # the first answer compiles the grammar
    started, cpu_before_s = time.monotonic(), time.process_time()
    outputs = llm.chat(messages, parameters, use_tqdm=False)
    spent = {"seconds": round(time.monotonic() - started, 2), "cpu_s": round(time.process_time() - cpu_before_s, 2)}
    tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    print(json.dumps({"requests": len(outputs), "tokens": tokens, **spent}))


if __name__ == "__main__":
    main()
