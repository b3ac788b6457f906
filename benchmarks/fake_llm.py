"""A fake LLM server that answers every chat at once, with the same good answer; raw asyncio, so as to be no bottleneck.

python -m benchmarks.fake_llm    prints its base URL and serves until it is killed
"""

from __future__ import annotations

import asyncio
import json

ANSWER = {
    "specific": "a sturdy steel pan for searing meat over high heat",
    "agnostic": "patient people who value slow evenings and lasting things",
    "need": "pleasure",
    "occasions": ["leisure"],
    "audience": "enthusiasts",
    "tastes": ["durable"],
    "price_attitude": "pays for quality",
}
_BODY = json.dumps(
    {
        "choices": [{"message": {"content": json.dumps(ANSWER)}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 300, "completion_tokens": 60},
    }
).encode()
_REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_BODY) + _BODY
_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class Chat(asyncio.Protocol):
    """Answers each request of a connection when its body is complete."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer what is complete."""
        self._received += data
        while (head := self._received.find(_END)) >= 0:
            headers = self._received[:head].lower()
            place = headers.find(_LENGTH)
            length = int(headers[place + len(_LENGTH) :].split(b"\r\n", 1)[0]) if place >= 0 else 0
            end = head + len(_END) + length
            if len(self._received) < end:
                return
            self._received = self._received[end:]
            self._transport.write(_REPLY)


async def serve() -> None:
    """Serve on a free port."""
    server = await asyncio.get_running_loop().create_server(Chat, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
