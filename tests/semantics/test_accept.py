from __future__ import annotations

import json

import pytest

from semacdr.dataset import Audit
from semacdr.semantics.accept import Texts, accept, read_answer
from semacdr.semantics.judge import Judge
from semacdr.semantics.prompt import load_prompt

from .fake_openai import GOOD

SCHEMA = load_prompt("dual-view@1").schema
WITH_FIELDS = load_prompt("dual-view@2").schema
FIELDS = {name: value for name, value in GOOD.items() if name not in {"specific", "agnostic"}}
SPECIFIC, AGNOSTIC = GOOD["specific"], GOOD["agnostic"]
PLAIN = {"specific": SPECIFIC, "agnostic": AGNOSTIC}


def test_answer_good_gives_its_texts():
    assert read_answer(json.dumps(PLAIN), "stop", SCHEMA) == Texts(SPECIFIC, AGNOSTIC)
    texts = read_answer(json.dumps(GOOD), "stop", WITH_FIELDS)
    assert isinstance(texts, Texts)
    assert texts[:2] == (SPECIFIC, AGNOSTIC)
    assert json.loads(texts.fields or "") == FIELDS


@pytest.mark.parametrize(
    "change",
    [
        {"need": "status"},
        {"need": ["comfort"]},
        {"occasions": "leisure"},
        {"occasions": []},
        {"occasions": ["leisure", "work", "travel"]},
        {"tastes": ["simple", "expensive"]},
        {"tastes": [1]},
        {"price_attitude": None},
    ],
)
def test_answer_with_a_field_out_of_its_list_is_not_the_schema(change: dict[str, object]):
    assert read_answer(json.dumps({**GOOD, **change}), "stop", WITH_FIELDS) == "not the schema"


def test_answer_with_a_raw_control_character_is_read_and_cleaned():
    texts = read_answer(json.dumps(PLAIN).replace("steel pan", "steel\u0001pan"), "stop", SCHEMA)
    assert isinstance(texts, Texts)
    assert accept(texts, None) == Texts(SPECIFIC, AGNOSTIC)


@pytest.mark.parametrize(
    ("text", "finish_reason", "reason"),
    [
        (json.dumps(PLAIN), "length", "cut at max_tokens"),
        (json.dumps(PLAIN), None, "not finished"),
        ("no JSON", "stop", "not JSON"),
        ("", "stop", "not JSON"),
        ("[]", "stop", "not the schema"),
        (json.dumps({"specific": SPECIFIC}), "stop", "not the schema"),
        (json.dumps({**PLAIN, "more": "x"}), "stop", "not the schema"),
        (json.dumps({**PLAIN, "agnostic": None}), "stop", "not the schema"),
        (json.dumps({**PLAIN, "agnostic": "short"}), "stop", "not the schema"),
        (json.dumps({**PLAIN, "agnostic": "long words " * 40}), "stop", "not the schema"),
    ],
)
def test_answer_bad_gives_the_reason(text: str, finish_reason: str | None, reason: str):
    assert read_answer(text, finish_reason, SCHEMA) == reason


@pytest.mark.parametrize(
    ("specific", "agnostic", "reason"),
    [
        ("a pan", AGNOSTIC, "specific: too short"),
        (SPECIFIC, "for good cooks", "agnostic: too short"),
        (SPECIFIC, "", "agnostic: too short"),
        (SPECIFIC, "plain words " + "x y z " * 200, "agnostic: too long"),
        (SPECIFIC, "a 12 34 56 78 90 11 22 33 44", "agnostic: not words"),
        (SPECIFIC, "fine people fine people fine people fine people fine people", "agnostic: repeats itself"),
        (SPECIFIC, "good good good good", "agnostic: repeats itself"),
        (SPECIFIC, "people who want sooooooooooo much", "agnostic: repeats itself"),
        (SPECIFIC, "I'm sorry, I cannot describe this thing", "agnostic: a refusal"),
        ("a pan </item> with a lid", AGNOSTIC, "specific: markup"),
        ("a pan by {{name}} with a lid", AGNOSTIC, "specific: markup"),
        ("a pan<br>with a good lid", AGNOSTIC, "specific: markup"),
        (SPECIFIC, SPECIFIC.upper() + ".", "agnostic: same as specific"),
        (SPECIFIC, "the steel pan, of lords", "agnostic: same as the title"),
        (SPECIFIC, "broken \ud800 text of four words", "agnostic: not Unicode"),
    ],
)
def test_accept_bad_text_gives_the_reason(specific: str, agnostic: str, reason: str):
    assert accept(Texts(specific, agnostic), "The Steel Pan of Lords") == reason


def test_judge_tells_a_phrase_of_an_example():
    prompt = load_prompt("dual-view@1")
    texts = {"specific": SPECIFIC, "agnostic": AGNOSTIC}
    judge = Judge(prompt, Audit())
    assert judge.verdict(json.dumps(texts), "stop", None, "a pan") == Texts(**texts)
    copied = texts | {"agnostic": "for those who plan for comfort, dislike waste and cook"}
    assert judge.verdict(json.dumps(copied), "stop", None, "a pan") == "agnostic: copies an example"


def test_accept_cleans_white_space_and_control_characters():
    texts = Texts(f"  {SPECIFIC}\n", AGNOSTIC.replace(" ", "\u0000\t", 1))
    assert accept(texts, None) == Texts(SPECIFIC, AGNOSTIC)


@pytest.mark.parametrize(
    "text", ["喜欢慢慢做饭并珍惜耐用好物的人", "คนที่ชอบทำอาหารช้าๆและของทน", "тот кто любит долгие тихие вечера"]
)
def test_accept_takes_other_scripts(text: str):
    assert accept(Texts(SPECIFIC, text), None) == Texts(SPECIFIC, text)
