"""Engines that answer a chat: a Protocol, and the one over HTTP for vLLM and other OpenAI-compatible servers."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import httpx
import structlog

from semacdr.errors import EngineError, TransientError, close_names
from semacdr.semantics.prompt import Messages

log = structlog.get_logger()

MAX_TRIES = 5
FIRST_DELAY_S = 0.5
"""Doubled at every try: a request is given up after some 8 s of a server that refuses connections."""
AVOID_S = 10.0
"""How long an endpoint that failed is left alone while there are others."""
CHARS_PER_TOKEN = 32
"""Longer texts are cut to this many characters a token before they are counted; no text is denser in practice."""

_BAD_REQUEST = frozenset({400, 413, 422})
_TRY_AGAIN = frozenset({408, 429})


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


class Engine(Protocol):
    """Something that answers a chat by a JSON schema."""

    async def generate(self, messages: Messages, schema: Mapping[str, Any], seed: int, temperature: float) -> Answer:
        """Return the answer to one chat.

        Raises:
            RequestRefusedError: this request is refused.
            EngineError: no request can be answered.
            TransientError: the engine cannot be reached, after all retries.
        """
        ...

    async def cut(self, text: str, max_tokens: int) -> str:
        """Return the text, cut to ``max_tokens`` of the model's own tokens."""
        ...


@dataclass
class _Endpoint:
    url: str
    in_flight: int = 0
    avoided_until: float = 0.0
    """Set by a fault, for a while: the others are asked first."""
    tokenizes: bool = True

    def avoid(self) -> None:
        self.avoided_until = time.monotonic() + AVOID_S


class OpenAiEngine:
    """One or many endpoints that serve the same model.

    Args:
        urls: base URLs that end in ``/v1``.
        model: the name that they serve.
        decoding: how tokens are chosen.
        api_key: sent as bearer token.
        timeout_s: of one request.
        concurrency: requests in flight per endpoint; bounds the connections.
        local: the endpoints are on this machine, so no proxy of the environment is used.
    """

    def __init__(
        self,
        urls: Sequence[str],
        model: str,
        decoding: Decoding,
        *,
        api_key: str | None = None,
        timeout_s: float = 300,
        concurrency: int = 16,
        local: bool = False,
    ) -> None:
        self.model = model
        self.decoding = decoding
        self.in_flight_limit = concurrency * len(urls)
        self._endpoints = [_Endpoint(url.rstrip("/")) for url in urls]
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 10)),
            limits=httpx.Limits(
                max_connections=self.in_flight_limit + len(urls),
                # Servers end idle connections after 5 s by default: give them up first.
                keepalive_expiry=3,
            ),
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            trust_env=not local,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def generate(self, messages: Messages, schema: Mapping[str, Any], seed: int, temperature: float) -> Answer:
        """Return the answer to one chat; see ``Engine``."""
        started = time.monotonic()
        body = await self._post(
            "/chat/completions",
            {
                "model": self.model,
                "messages": messages,
                "temperature": temperature,
                "max_tokens": self.decoding.max_tokens,
                "repetition_penalty": self.decoding.repetition_penalty,
                "seed": seed,
                "response_format": {"type": "json_schema", "json_schema": {"name": "item", "schema": schema}},
            },
        )
        try:
            choice, usage = body["choices"][0], body.get("usage") or {}
            return Answer(
                text=choice["message"]["content"] or "",
                finish_reason=choice["finish_reason"],
                prompt_tokens=int(usage.get("prompt_tokens") or 0),
                completion_tokens=int(usage.get("completion_tokens") or 0),
                seconds=time.monotonic() - started,
            )
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise EngineError(
                "the LLM endpoint's answer is no chat completion",
                found=f"{body!s:.300}",
                expected="choices[0].message.content, as OpenAI's API has it",
                do="check llm.urls: it must be the base URL of an OpenAI-compatible server, with /v1",
            ) from error

    async def cut(self, text: str, max_tokens: int) -> str:
        """Return the text, cut to ``max_tokens`` of the model's own tokens.

        A token of a byte-level vocabulary holds at least one byte, so most texts need no count. The others are
        counted by vLLM's ``/tokenize``; a server without it gets as many characters as it may get tokens.
        """
        if len(text.encode()) <= max_tokens:
            return text
        text = text[: max_tokens * CHARS_PER_TOKEN]
        if not self._endpoints[0].tokenizes:
            return text[:max_tokens]
        question = {"model": self.model, "prompt": text, "add_special_tokens": False}
        try:
            tokens = (await self._post("/tokenize", question, below_v1=False))["tokens"]
            if len(tokens) <= max_tokens:
                return text
            question = {"model": self.model, "tokens": tokens[:max_tokens]}
            kept: str = (await self._post("/detokenize", question, below_v1=False))["prompt"]
        except (EngineError, KeyError, TypeError):
            self._endpoints[0].tokenizes = False
            log.warning("the LLM endpoint counts no tokens; long item texts are cut by characters", chars=max_tokens)
            return text[:max_tokens]
        return kept.rstrip("\ufffd").strip()  # the cut may fall within a character

    async def _post(self, path: str, body: Mapping[str, Any], *, below_v1: bool = True) -> Any:  # noqa: ANN401
        """Post to the least loaded endpoint, and on a fault that may pass to the next one, a while later."""
        fault = ""
        for attempt in range(MAX_TRIES):
            if attempt:
                # Jitter, so that requests that failed together do not come back together.
                await asyncio.sleep(FIRST_DELAY_S * 2 ** (attempt - 1) * random.uniform(0.5, 1))  # noqa: S311
            endpoint = self._least_loaded()
            endpoint.in_flight += 1
            base = endpoint.url if below_v1 else endpoint.url.removesuffix("/v1")
            try:
                response = await self._client.post(base + path, json=body)
            except httpx.InvalidURL as error:
                raise EngineError(f"{base} is no URL", found=error) from error
            except httpx.TransportError as error:
                endpoint.avoid()
                fault = f"{base}: {type(error).__name__} {error}".strip()
                continue
            finally:
                endpoint.in_flight -= 1
            if response.is_success:
                endpoint.avoided_until = 0.0
                return _json(response)
            fault = f"{base}: {response.status_code} {_message(response)}"
            if response.status_code < httpx.codes.INTERNAL_SERVER_ERROR and response.status_code not in _TRY_AGAIN:
                raise await self._refusal(endpoint, response)
            endpoint.avoid()
            log.warning("LLM endpoint fault", attempt=attempt + 1, fault=fault)
        raise TransientError(
            f"no LLM endpoint answers, after {MAX_TRIES} tries",
            found=fault,
            do="see the server's log; answers so far are kept, and a new run goes on from there",
        )

    def _least_loaded(self) -> _Endpoint:
        now = time.monotonic()
        return min(self._endpoints, key=lambda endpoint: (endpoint.avoided_until > now, endpoint.in_flight))

    async def _refusal(self, endpoint: _Endpoint, response: httpx.Response) -> EngineError:
        status, message = response.status_code, _message(response)
        if status in _BAD_REQUEST:
            return RequestRefusedError(f"the LLM server refuses a request ({status})", found=message)
        if status == httpx.codes.NOT_FOUND:
            served = await self._served(endpoint)
            if served and self.model not in served:
                return EngineError(
                    f"{endpoint.url} does not serve the model {self.model!r}",
                    found=", ".join(served),
                    expected=close_names(self.model, served),
                    do="set llm.served_name to one of these",
                )
        return EngineError(
            f"the LLM server at {endpoint.url} refuses to work ({status})",
            found=message,
            do="check llm.urls and llm.api_key" if status in {401, 403, 404} else "",
        )

    async def _served(self, endpoint: _Endpoint) -> list[str]:
        try:
            response = await self._client.get(f"{endpoint.url}/models")
            return [str(model["id"]) for model in response.json()["data"]]
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return []


def _json(response: httpx.Response) -> Any:  # noqa: ANN401
    try:
        return response.json()
    except ValueError as error:
        raise EngineError(
            f"{response.url} does not answer with JSON", found=f"{response.text:.200}", do="check llm.urls"
        ) from error


def _message(response: httpx.Response) -> str:
    """Return what the server says of its refusal, without the JSON around it."""
    try:
        body = response.json()
        error = body.get("error", body)
        message = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        message = response.text
    return f"{message!s:.500}"
