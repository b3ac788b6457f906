from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from pydantic import SecretStr

from semacdr.errors import EngineError, TransientError
from semacdr.semantics.engine import Answer, Decoding, Endpoints, RequestRefusedError, UnansweredError
from semacdr.semantics.openai_engine import MAX_TRIES, OpenAiEngine
from semacdr.semantics.replicas import START_IN_FLIGHT, Replicas
from semacdr.settings import LlmSettings

from .fake_openai import FakeOpenAiServer, Reply, completion, serving

MESSAGES = [{"role": "system", "content": "s"}, {"role": "user", "content": "<item>\ntext\n</item>"}]
SCHEMA = {"type": "object"}
T = TypeVar("T")


def use(urls: list[str], work: Callable[[OpenAiEngine], Awaitable[T]], **changes: object) -> T:
    async def run() -> T:
        where = {name: changes.pop(name) for name in ("model", "api_key", "servers") if name in changes}
        endpoints = Endpoints(**{"urls": tuple(urls), "model": "fake-llm", "local": True, **where})  # type: ignore[arg-type]
        llm = LlmSettings(**{"request_timeout_s": 2, "patience_s": 0.5, **changes})  # type: ignore[arg-type]
        async with OpenAiEngine(endpoints, Decoding(temperature=0, max_tokens=64), llm) as engine:
            return await work(engine)

    return asyncio.run(run())


def generate(engine: OpenAiEngine) -> Awaitable[Answer]:
    return engine.generate(MESSAGES, SCHEMA, 3, 0.0)


def test_generate_sends_what_was_asked_and_returns_the_answer(fake_server: FakeOpenAiServer):
    answer = use([fake_server.url], generate, api_key=SecretStr("secret"))
    assert (answer.finish_reason, answer.prompt_tokens, answer.completion_tokens) == ("stop", 100, 30)
    chat = fake_server.chats[0]
    assert (chat["model"], chat["messages"], chat["seed"], chat["max_tokens"]) == ("fake-llm", MESSAGES, 3, 64)
    assert chat["response_format"]["json_schema"]["schema"] == SCHEMA
    assert fake_server.keys == ["Bearer secret"]


@pytest.mark.parametrize("status", [0, 500, 503, 429])
def test_generate_retries_faults_that_may_pass(fake_server: FakeOpenAiServer, status: int):
    fake_server.behaviour = lambda _, number: (status, {}) if number < 2 else completion()
    assert use([fake_server.url], generate).finish_reason == "stop"
    assert len(fake_server.chats) == 3


def test_generate_gives_up_as_transient_with_the_last_fault(fake_server: FakeOpenAiServer):
    fake_server.behaviour = lambda *_: (500, {"error": {"message": "engine died"}})
    with pytest.raises(TransientError, match="engine died"):
        use([fake_server.url], generate)
    assert len(fake_server.chats) == MAX_TRIES


def test_generate_nobody_there_is_transient():
    with pytest.raises(TransientError, match="no LLM endpoint is left"):
        use(["http://127.0.0.1:9/v1"], generate)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, RequestRefusedError), (422, RequestRefusedError), (401, EngineError), (405, EngineError)]
)
def test_generate_refusal_is_not_retried_and_tells_the_servers_words(
    fake_server: FakeOpenAiServer, status: int, kind: type[EngineError]
):
    fake_server.behaviour = lambda *_: (status, {"error": {"message": "the prompt is longer than the context"}})
    with pytest.raises(kind, match="longer than the context"):
        use([fake_server.url], generate)
    assert len(fake_server.chats) == 1


def test_generate_model_not_served_names_those_that_are(fake_server: FakeOpenAiServer):
    fake_server.behaviour = lambda *_: (404, {"error": {"message": "no such model"}})
    with pytest.raises(EngineError, match="fake-llm") as raised:
        use([fake_server.url], generate, model="fake-lm")
    assert not isinstance(raised.value, RequestRefusedError)
    assert len(fake_server.chats) == 1


@pytest.mark.parametrize("body", [{}, {"choices": []}, [], "text"])
def test_generate_answer_that_is_no_completion_is_an_engine_error(fake_server: FakeOpenAiServer, body: object):
    fake_server.behaviour = lambda *_: (200, body)
    with pytest.raises(EngineError, match="no chat completion"):
        use([fake_server.url], generate)


def test_generate_spreads_over_endpoints_and_leaves_a_dead_one(fake_server: FakeOpenAiServer):
    async def ten(engine: OpenAiEngine) -> list[Answer]:
        return await asyncio.gather(*(generate(engine) for _ in range(10)))

    with serving(FakeOpenAiServer()) as second:
        assert len(use([fake_server.url, second.url], ten)) == 10
        assert len(fake_server.chats) == len(second.chats) == 5
    assert len(use([second.url, fake_server.url], ten)) == 10  # the second is gone
    assert len(fake_server.chats) == 15


def test_cut_counts_tokens_of_long_texts_only(fake_server: FakeOpenAiServer):
    assert use([fake_server.url], lambda engine: engine.cut("short", 10)) == "short"
    assert fake_server.paths == []
    assert use([fake_server.url], lambda engine: engine.cut("a longer text", 10)) == "a longer t"
    assert fake_server.paths == ["/tokenize", "/detokenize"]


def test_cut_within_a_character_leaves_no_half_of_it(fake_server: FakeOpenAiServer):
    assert use([fake_server.url], lambda engine: engine.cut("鉄のフライパン", 10)) == "鉄のフ"


def test_cut_without_tokenizer_endpoint_cuts_by_characters(fake_server: FakeOpenAiServer):
    fake_server.tokenizes = False

    async def twice(engine: OpenAiEngine) -> tuple[str, str]:
        return await engine.cut("a longer text", 10), await engine.cut("another longer text", 10)

    assert use([fake_server.url], twice) == ("a longer t", "another lo")
    assert len(fake_server.paths) == 1


def test_cut_never_sends_a_huge_text(fake_server: FakeOpenAiServer):
    def refuse(*_: object) -> Reply:
        raise AssertionError

    fake_server.behaviour = refuse
    assert use([fake_server.url], lambda engine: engine.cut("x" * 1_000_000, 10)) == "x" * 10


def ask_many(count: int) -> Callable[[OpenAiEngine], Awaitable[list[Answer]]]:
    async def ask(engine: OpenAiEngine) -> list[Answer]:
        return await asyncio.gather(*(generate(engine) for _ in range(count)))

    return ask


def test_replica_that_is_not_healthy_is_taken_out_and_put_back(fake_server: FakeOpenAiServer):
    looks = iter([False] * 3)
    fake_server.healthy = lambda: next(looks, True)
    fake_server.behaviour = lambda _, number: (500, {}) if number == 0 else completion()

    async def work(engine: OpenAiEngine) -> int:
        await ask_many(8)(engine)
        assert len(fake_server.chats) < 8  # those that were not sent when it failed went to the other
        while any(replica.out for replica in engine._replicas.members):  # noqa: ASYNC110 (nothing else to wait for)
            await asyncio.sleep(0.01)
        before = len(fake_server.chats)
        await ask_many(8)(engine)
        return len(fake_server.chats) - before

    with serving(FakeOpenAiServer()) as second:
        assert use([fake_server.url, second.url], work, concurrency=2) >= 2


def test_replica_of_ours_is_revived_and_asked_at_its_new_url(fake_server: FakeOpenAiServer):
    class FakeServer:
        def revive(self, *, hung: bool) -> str:
            return fake_server.url

        def give_up(self) -> None:
            pass

    answers = use(["http://127.0.0.1:9/v1"], ask_many(3), servers=(FakeServer(),))
    assert [answer.finish_reason for answer in answers] == ["stop"] * 3


def test_replicas_of_ours_that_cannot_be_revived_end_the_run_with_their_reason():
    class FakeServer:
        def revive(self, *, hung: bool) -> str:
            raise EngineError("the vLLM server died", found="out of memory")

        def give_up(self) -> None:
            pass

    with pytest.raises(TransientError, match="out of memory"):
        use(["http://127.0.0.1:9/v1", "http://127.0.0.1:10/v1"], ask_many(8), servers=(FakeServer(), FakeServer()))


def test_generate_request_that_fails_alone_is_unanswered(fake_server: FakeOpenAiServer):
    def poison(body: dict[str, Any], _number: int) -> Reply:
        return (500, {"error": {"message": "kernel fault"}}) if body["seed"] == 13 else completion()

    async def work(engine: OpenAiEngine) -> None:
        bad = asyncio.create_task(engine.generate(MESSAGES, SCHEMA, 13, 0.0))
        while not bad.done():
            await generate(engine)
        await bad

    fake_server.behaviour = poison
    with pytest.raises(UnansweredError, match="kernel fault"):
        use([fake_server.url], work)
    assert sum(chat["seed"] == 13 for chat in fake_server.chats) == MAX_TRIES


def test_cut_that_is_not_answered_leaves_the_next_text_to_the_tokenizer(fake_server: FakeOpenAiServer):
    async def work(engine: OpenAiEngine) -> str:
        fake_server.tokenizer_is_down = True
        bad = asyncio.create_task(engine.cut("a longer text", 10))
        while not bad.done():
            await generate(engine)
        with pytest.raises(UnansweredError, match="overloaded"):
            await bad
        fake_server.tokenizer_is_down = False
        return await engine.cut("鉄のフライパン", 10)

    assert use([fake_server.url], work) == "鉄のフ"


def test_generate_overloaded_server_is_asked_less_at_a_time(fake_server: FakeOpenAiServer):
    fake_server.behaviour = lambda _, number: completion() if number >= 16 else (429, {})

    async def work(engine: OpenAiEngine) -> float:
        assert len(await ask_many(40)(engine)) == 40
        return engine._replicas.members[0].limit

    assert use([fake_server.url], work, concurrency=16) < 16


def test_generate_server_that_stays_overloaded_is_transient(fake_server: FakeOpenAiServer):
    fake_server.behaviour = lambda *_: (429, {"error": {"message": "quota"}})
    with pytest.raises(TransientError, match="quota"):
        use([fake_server.url], generate)


def test_generate_never_has_more_in_flight_than_allowed(fake_server: FakeOpenAiServer):
    assert len(use([fake_server.url], ask_many(50), concurrency=3)) == 50
    assert fake_server.most_in_flight <= 3


def test_limit_grows_to_its_bound_while_answers_are_quick(fake_server: FakeOpenAiServer):
    async def work(engine: OpenAiEngine) -> float:
        await ask_many(400)(engine)
        return engine._replicas.members[0].limit

    assert START_IN_FLIGHT < use([fake_server.url], work, concurrency=100, request_timeout_s=60) <= 100


async def always_healthy(_url: str) -> bool:
    return True


def test_limit_grows_once_a_round_by_what_would_still_be_answered_soon():
    limits = {"most": 1_000, "timeout_s": 80.0, "patience_s": 60.0}
    pool = Replicas(["http://127.0.0.1:9/v1"], is_healthy=always_healthy, **limits)
    replica = pool.members[0]
    sent = time.monotonic() - 10
    for _ in range(START_IN_FLIGHT):
        replica.in_flight = int(replica.limit)  # what has room is sent at once
        pool.answered(replica, sent)
    assert replica.limit == pytest.approx(2 * START_IN_FLIGHT, rel=0.1)  # 20 s are soon
    replica.in_flight = int(replica.limit)
    pool.answered(replica, time.monotonic())
    assert replica.limit == pytest.approx(8 * START_IN_FLIGHT, rel=0.1)  # four times as many at most


def test_generate_timeout_is_retried_elsewhere(fake_server: FakeOpenAiServer):
    release = threading.Event()
    fake_server.behaviour = lambda *_: completion() if release.wait(5) else (500, {})
    with serving(FakeOpenAiServer()) as second:
        try:
            answers = use([fake_server.url, second.url], ask_many(2), request_timeout_s=0.3)
        finally:
            release.set()
        assert len(answers) == 2
        assert len(second.chats) == 2


def test_place_that_nobody_takes_goes_to_the_next_in_line():
    """As when the budget ends: workers wait for room, and leave without asking."""

    async def leave() -> None:
        pool = Replicas(["http://127.0.0.1:9/v1"], most=1, timeout_s=80, patience_s=60, is_healthy=always_healthy)
        held = await pool.acquire()
        waiting = [asyncio.create_task(pool.room()) for _ in range(3)]
        await asyncio.sleep(0)
        pool.release(held)
        await asyncio.wait_for(asyncio.gather(*waiting), 5)

    asyncio.run(leave())
