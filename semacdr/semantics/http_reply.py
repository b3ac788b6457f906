"""What an HTTP endpoint replied, and by which proxy it is reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import orjson

from semacdr.errors import EngineError


@dataclass(frozen=True)
class Reply:
    """A response, read to its end."""

    url: str
    status: int
    body: bytes
    retry_after_s: float | None


def proxy_of(url: str) -> str | None:
    """Return the proxy that the environment names for a URL (``HTTPS_PROXY``, ``NO_PROXY`` ...)."""
    parts = urlsplit(url)
    if not parts.hostname or proxy_bypass(parts.netloc):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def read_json(reply: Reply) -> Any:  # noqa: ANN401
    """Return the body.

    Raises:
        EngineError: it is no JSON.
    """
    try:
        return orjson.loads(reply.body)
    except ValueError as error:
        raise EngineError(
            f"{reply.url} does not answer with JSON", found=f"{_text(reply):.200}", do="check llm.urls"
        ) from error


def _text(reply: Reply) -> str:
    return reply.body.decode(errors="replace")


def message_of(reply: Reply) -> str:
    """Return what the server says of its refusal, without the JSON around it."""
    try:
        body = orjson.loads(reply.body)
        error = body.get("error", body)
        message = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        message = _text(reply)
    return f"{message!s:.500}"
