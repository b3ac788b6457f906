"""What answers a chat: the Protocol that the stage asks, and what it says of an engine and of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import SecretStr

from semacdr.errors import EngineError
from semacdr.semantics.prompt import Messages
from semacdr.semantics.replicas import Server

MOST_CHARS_PER_TOKEN = 32
"""Longer texts are cut to this many characters a token before they are counted; no text is denser in practice."""


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """Where a model is served."""

    urls: tuple[str, ...]
    """Base URLs that end in ``/v1``."""
    model: str
    """The name that they serve."""
    api_key: SecretStr | None = None
    """Sent as bearer token."""
    local: bool = False
    """On this machine: proxies of the environment do not apply."""
    servers: tuple[Server, ...] = ()
    """Those of ours behind the URLs, in their order: started anew when they die."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How tokens are chosen; part of an answer's identity."""

    temperature: float
    max_tokens: int
    repetition_penalty: float = 1.1
    """vLLM's own field; others ignore it. Without it SmolLM2-135M loops at temperature 0."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back for one request."""

    text: str
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int
    seconds: float


class RequestRefusedError(EngineError):
    """The server will not take this one request (400, 413, 422); another item's may be fine."""


class UnansweredError(EngineError):
    """The server has no answer to this one request, while it answers others: it may in another run."""


class Engine(Protocol):
    """Something that answers a chat by a JSON schema."""

    async def generate(self, messages: Messages, schema: Mapping[str, Any], seed: int, temperature: float) -> Answer:
        """Return the answer to one chat.

        Raises:
            RequestRefusedError: this request is refused.
            UnansweredError: this request fails, again and again.
            EngineError: no request can be answered.
            TransientError: the engine cannot be reached, after all retries.
        """
        ...

    async def room(self) -> None:
        """Wait until a request would be sent at once."""
        ...

    async def cut(self, text: str, max_tokens: int) -> str:
        """Return the text, cut to ``max_tokens`` of the model's own tokens."""
        ...
