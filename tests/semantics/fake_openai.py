"""A fake LLM server: real HTTP on a free port, answers by a function. It counts what it is asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD = {
    "specific": "a sturdy steel pan for searing meat over high heat",
    "agnostic": "patient people who value slow evenings and lasting things",
    "need": "pleasure",
    "occasions": ["leisure"],
    "audience": "enthusiasts",
    "tastes": ["durable"],
    "price_attitude": "pays for quality",
}

Reply = tuple[int, Any]
"""Status and JSON body."""
Behaviour = Callable[[dict[str, Any], int], Reply]
"""From the request's body and its number, from 0, to the reply."""


def completion(content: object = GOOD, finish_reason: str = "stop") -> Reply:
    text = content if isinstance(content, str) else json.dumps(content)
    return 200, {
        "choices": [{"message": {"content": text}, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 30},
    }


def always_good(_body: dict[str, Any], _number: int) -> Reply:
    return completion()


class FakeOpenAiServer:
    def __init__(self, behaviour: Behaviour = always_good, *, served: str = "fake-llm", tokenizes: bool = True) -> None:
        self.behaviour = behaviour
        self.served = served
        self.tokenizes = tokenizes
        self.tokenizer_is_down = False
        self.chats: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: list[str | None] = []
        self.url = ""
        self.healthy: Callable[[], bool] = lambda: True
        """Asked at each look at ``/health``."""
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()

    def answer(self, body: dict[str, Any], number: int) -> Reply:
        """Reply to a chat, and note how many are answered at once."""
        with self.lock:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return self.behaviour(body, number)
        finally:
            with self.lock:
                self.in_flight -= 1

    def tokenizer(self, path: str, body: dict[str, Any]) -> Reply:
        """Reply to what is no chat; a token is a byte."""
        if path == "/tokenize" and self.tokenizer_is_down:
            return 503, {"error": {"message": "overloaded"}}
        if path == "/tokenize" and self.tokenizes:
            return 200, {"tokens": list(body["prompt"].encode())}
        if path == "/detokenize" and self.tokenizes:
            return 200, {"prompt": bytes(body["tokens"]).decode(errors="replace")}
        return 404, {"error": {"message": "Not Found"}}

    @property
    def asked(self) -> list[str]:
        """The item text of each chat, in the order of their arrival."""
        return [chat["messages"][-1]["content"].splitlines()[1] for chat in self.chats]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # 5 by default: more connections at once would wait for a second


@contextmanager
def serving(fake: FakeOpenAiServer) -> Iterator[FakeOpenAiServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status = 503 if self.path == "/health" and not fake.healthy() else 200
            self._reply(status, {"data": [{"id": fake.served}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with fake.lock:
                fake.paths.append(self.path)
                fake.keys.append(self.headers["Authorization"])
                number = len(fake.chats)
                if self.path == "/v1/chat/completions":
                    fake.chats.append(body)
            is_chat = self.path == "/v1/chat/completions"
            self._reply(*(fake.answer(body, number) if is_chat else fake.tokenizer(self.path, body)))

        def _reply(self, status: int, body: object) -> None:
            if status == 0:  # a broken connection
                self.close_connection = True
                return
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
