"""The engine over HTTP: one or many replicas of vLLM, or of any other OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson
import structlog

from semacdr.errors import EngineError, TransientError, close_names
from semacdr.semantics.engine import (
    MOST_CHARS_PER_TOKEN,
    Answer,
    Decoding,
    Endpoints,
    RequestRefusedError,
    UnansweredError,
)
from semacdr.semantics.http_reply import Reply, message_of, proxy_of, read_json
from semacdr.semantics.prompt import Messages
from semacdr.semantics.replicas import Replica, Replicas
from semacdr.settings import LlmSettings

log = structlog.get_logger()

MAX_TRIES = 5
"""Of one request, at servers that are healthy otherwise."""
FIRST_DELAY_S = 0.5
MAX_DELAY_S = 30.0
"""Doubled at every try up to this, which also bounds what a server's Retry-After may ask."""
CONNECT_S = 10.0

_BAD_REQUEST = frozenset({400, 413, 422})
_TIMEOUT = 408
_TOO_MANY = 429
_SERVER_FAULT = 500
_NO_SUCH_ROUTE = frozenset({401, 403, 404, 405})


class OpenAiEngine:
    """Endpoints that serve the same model.

    Args:
        endpoints: where.
        decoding: how tokens are chosen.
        llm: the limits: requests in flight, seconds of a request, seconds without any answer.
    """

    def __init__(self, endpoints: Endpoints, decoding: Decoding, llm: LlmSettings) -> None:
        self.model = endpoints.model
        self.decoding = decoding
        self.in_flight_limit = llm.concurrency * len(endpoints.urls)
        self._tokenizes = True
        self._headers = {"Content-Type": "application/json"}
        if endpoints.api_key:
            self._headers["Authorization"] = f"Bearer {endpoints.api_key.get_secret_value()}"
        self._timeout_s = llm.request_timeout_s
        # Once: aiohttp's own trust_env looks in a thread, twice a request.
        self._proxies = {} if endpoints.local else {url.rstrip("/"): proxy_of(url) for url in endpoints.urls}
        self._session: aiohttp.ClientSession | None = None
        self._replicas = Replicas(
            endpoints.urls,
            most=llm.concurrency,
            timeout_s=llm.request_timeout_s,
            patience_s=llm.patience_s,
            is_healthy=self._is_healthy,
            servers=endpoints.servers,
        )

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            # aiohttp costs a tenth of httpx's CPU a request (0.2 against 2.2 ms): 2,000 items a second need that.
            # Servers end idle connections after 5 s by default: give them up first.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=3),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=min(self._timeout_s, CONNECT_S)),
            headers=self._headers,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._replicas.close()
        if self._session:
            await self._session.close()

    async def room(self) -> None:
        """Wait until a request would be sent at once; see ``Engine``."""
        await self._replicas.room()

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
        text = text[: max_tokens * MOST_CHARS_PER_TOKEN]
        if not self._tokenizes:
            return text[:max_tokens]
        question = {"model": self.model, "prompt": text, "add_special_tokens": False}
        try:
            tokens = (await self._post("/tokenize", question, below_v1=False))["tokens"]
            if len(tokens) <= max_tokens:
                return text
            question = {"model": self.model, "tokens": tokens[:max_tokens]}
            kept: str = (await self._post("/detokenize", question, below_v1=False))["prompt"]
        except UnansweredError:
            raise
        except (EngineError, KeyError, TypeError):
            self._tokenizes = False
            log.warning("the LLM endpoint counts no tokens; long item texts are cut by characters", chars=max_tokens)
            return text[:max_tokens]
        return kept.rstrip("\ufffd").strip()  # the cut may fall within a character

    async def _post(self, path: str, body: Mapping[str, Any], *, below_v1: bool = True) -> Any:  # noqa: ANN401
        """Post to the replica with most room, and on a fault that may pass to another, a while later."""
        data = orjson.dumps(body)
        answers_before, first_sent = self._replicas.answers, time.monotonic()
        replica: Replica | None = None
        tries, delay_s, fault = 0, FIRST_DELAY_S, ""
        while tries < MAX_TRIES:
            replica = await self._replicas.acquire(avoid=replica)
            started = time.monotonic()
            try:
                base = replica.url if below_v1 else replica.url.removesuffix("/v1")
                reply = await self._send(replica.url, base + path, data)
                if reply.status < HTTPStatus.BAD_REQUEST:
                    self._replicas.answered(replica, started)
                    return read_json(reply)
            except aiohttp.InvalidURL as error:
                raise EngineError(f"{replica.url} is no URL", found=error) from error
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                reply = None
                fault = f"{replica.url}: {type(error).__name__} {error}".strip()
            finally:
                self._replicas.release(replica)
            if reply:
                fault = f"{replica.url}: {reply.status} {message_of(reply)}"
                if reply.status < _SERVER_FAULT and reply.status not in {_TIMEOUT, _TOO_MANY}:
                    raise await self._refusal(replica, reply)
            if reply and reply.status == _TOO_MANY:
                silent_s = time.monotonic() - max(self._replicas.answered_at, first_sent)
                tries = MAX_TRIES if silent_s > self._replicas.patience_s else tries
            elif await self._replicas.is_alive(replica, fault):
                tries += 1
            else:
                continue  # no fault of this request: another replica takes it, or this one when it is back
            self._replicas.congested(replica, started, fault)
            # Jitter, so that requests that failed together do not come back together.
            pause_s = delay_s * random.uniform(0.5, 1)  # noqa: S311
            await asyncio.sleep(min(MAX_DELAY_S, max(pause_s, reply.retry_after_s or 0 if reply else 0)))
            delay_s = min(MAX_DELAY_S, 2 * delay_s)
        if self._replicas.answers > answers_before:
            raise UnansweredError(f"a request got no answer in {MAX_TRIES} tries, while others did", found=fault)
        raise TransientError(
            "no LLM endpoint answers",
            found=fault,
            do="see the server's log; answers so far are kept, and a new run goes on from there",
        )

    async def _send(self, base: str, url: str, data: bytes) -> Reply:
        assert self._session is not None
        async with self._session.post(url, data=data, proxy=self._proxies.get(base)) as response:
            try:
                retry_after_s = float(response.headers.get("Retry-After", ""))
            except ValueError:
                retry_after_s = None
            return Reply(url, response.status, await response.read(), retry_after_s)

    async def _get(self, base: str, url: str) -> Reply:
        assert self._session is not None
        timeout = aiohttp.ClientTimeout(total=CONNECT_S)
        async with self._session.get(url, timeout=timeout, proxy=self._proxies.get(base)) as response:
            return Reply(url, response.status, await response.read(), None)

    async def _is_healthy(self, base: str) -> bool:
        """Ask ``/health``, which vLLM has; where there is none, the list of models."""
        try:
            reply = await self._get(base, base.removesuffix("/v1") + "/health")
            if reply.status in _NO_SUCH_ROUTE:
                reply = await self._get(base, f"{base}/models")
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
        return reply.status < _SERVER_FAULT

    async def _refusal(self, replica: Replica, reply: Reply) -> EngineError:
        status, message = reply.status, message_of(reply)
        if status in _BAD_REQUEST:
            return RequestRefusedError(f"the LLM server refuses a request ({status})", found=message)
        if status == HTTPStatus.NOT_FOUND:
            served = await self._served(replica)
            if served and self.model not in served:
                return EngineError(
                    f"{replica.url} does not serve the model {self.model!r}",
                    found=", ".join(served),
                    expected=close_names(self.model, served),
                    do="set llm.served_name to one of these",
                )
        do: dict[int, str] = {
            HTTPStatus.UNAUTHORIZED: "set llm.api_key (SEMACDR_LLM__API_KEY) to a key that it knows",
            HTTPStatus.FORBIDDEN: "set llm.api_key (SEMACDR_LLM__API_KEY) to a key that may ask this model",
            HTTPStatus.NOT_FOUND: "check llm.urls: each must be the base URL of an OpenAI-compatible server, with /v1",
        }
        return EngineError(
            f"the LLM server at {replica.url} refuses to work ({status})",
            found=message,
            do=do.get(status, ""),
        )

    async def _served(self, replica: Replica) -> list[str]:
        try:
            return [
                str(model["id"]) for model in read_json(await self._get(replica.url, f"{replica.url}/models"))["data"]
            ]
        except (aiohttp.ClientError, TimeoutError, OSError, EngineError, KeyError, TypeError):
            return []
