from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from semacdr.errors import EngineError, TransientError
from semacdr.semantics.engine import MAX_TRIES, Answer, Decoding, OpenAiEngine, RequestRefusedError

from .fake_openai import FakeOpenAiServer, Reply, completion, serving

MESSAGES = [{"role": "system", "content": "s"}, {"role": "user", "content": "<item>\ntext\n</item>"}]
SCHEMA = {"type": "object"}
T = TypeVar("T")


def use(urls: list[str], work: Callable[[OpenAiEngine], Awaitable[T]], **changes: object) -> T:
    async def run() -> T:
        options = {"timeout_s": 2, "local": True, **changes}
        model = options.pop("model", "fake-llm")
        async with OpenAiEngine(urls, model, Decoding(temperature=0, max_tokens=64), **options) as engine:
            return await work(engine)

    return asyncio.run(run())


def generate(engine: OpenAiEngine) -> Awaitable[Answer]:
    return engine.generate(MESSAGES, SCHEMA, 3, 0.0)


def test_generate_sends_what_was_asked_and_returns_the_answer(fake_server: FakeOpenAiServer):
    answer = use([fake_server.url], generate, api_key="secret")
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
    with pytest.raises(TransientError, match="ConnectError"):
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
