"""A web hook's other end: an HTTP server that keeps what is posted to it."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """What was posted, oldest first; ``url`` is where to."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.bodies: queue.Queue[bytes] = queue.Queue()

    def wait_for(self, word: str, timeout_s: float = 240) -> dict[str, Any]:
        """Return the first JSON post from now on that holds the word; queue.Empty if none comes in time."""
        while True:
            body = self.bodies.get(timeout=timeout_s)
            if word.encode() in body:
                return json.loads(body)


@contextmanager
def receiving(answer: bytes = b"{}", status: int = 200) -> Iterator[Receiver]:
    """Run a receiver on a free port; every request is answered with the same status and body."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.bodies.put(self.rfile.read(int(self.headers.get("content-length", 0))))
            self.do_GET()

        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver = Receiver(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield receiver
        server.shutdown()
        thread.join()
