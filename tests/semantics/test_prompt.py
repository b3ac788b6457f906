from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from semacdr.errors import ConfigError
from semacdr.semantics.prompt import FOLDER, DomainWords, clean_item_text, load_prompt

from .conftest import make_config
from .injections import INJECTIONS

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("domain", ["food", "films"])
@pytest.mark.parametrize("reference", ["dual-view@1", "dual-view@2"])
def test_prompt_rendered_is_golden(reference: str, domain: str):
    prompt = load_prompt(reference)
    words = DomainWords.of(domain, make_config().domains[domain])
    rendered = "\n".join(
        f"--- {message['role']}\n{message['content']}"
        for message in prompt.messages(words, "Cast Iron Skillet, 12 Inch")
    )
    rendered += f"\n--- schema\n{json.dumps(prompt.schema, indent=1)}\n"
    assert rendered == (GOLDEN / f"{reference}.{domain}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", INJECTIONS.values(), ids=INJECTIONS.keys())
@pytest.mark.parametrize("reference", ["dual-view@1", "dual-view@2"])
def test_prompt_injection_changes_nothing_but_the_item_text(reference: str, text: str):
    prompt = load_prompt(reference)
    words = DomainWords("food", "a grocer")
    *plain_before, plain_user = prompt.messages(words, "PLAIN")
    *before, user = prompt.messages(words, clean_item_text(text))
    assert before == plain_before
    head, tail = plain_user["content"].split("PLAIN")
    assert user["content"].startswith(head)
    assert user["content"].endswith(tail)
    inside = user["content"][len(head) : len(user["content"]) - len(tail)]
    assert inside == clean_item_text(text)
    assert "<" not in inside
    assert not re.search(r"\[\s*/?\s*(INST|TOOL_CALLS|AVAILABLE_TOOLS|g?MASK)\s*\]", inside)
    assert inside.replace("\u200c", "").replace("\u200d", "").isprintable()


def test_item_text_keeps_ordinary_text_of_any_script():
    for text in ("Le Creuset 5.5-qt, Ø 26 cm [new] (2-pack)", "می‌خواهم", "鉄のフライパン", "👩‍🍳 apron", "A > B"):
        assert clean_item_text(text) == text


def test_prompt_fingerprint_changes_with_the_domains_words_only():
    prompt = load_prompt("dual-view@1")
    food = DomainWords("food", "a grocer")
    assert prompt.fingerprint(food) == prompt.fingerprint(DomainWords("food", "a grocer"))
    assert prompt.fingerprint(food) != prompt.fingerprint(DomainWords("food", "a cook"))


def test_domain_words_default_to_the_domains_name():
    domain = make_config().domains["films"]
    assert DomainWords.of("old_films", domain) == DomainWords("old films", "an expert on old films")


@pytest.mark.parametrize("reference", ["dual-view", "dual-view@99", "../secret@1", "dual-vew@1"])
def test_prompt_unknown_is_a_config_error_that_names_the_known(reference: str):
    with pytest.raises(ConfigError, match="dual-view@1"):
        load_prompt(reference)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("version = 1", "version = 2", "x@2"),
        ("$text", "no text", "text"),
        ("$label", "$lable", "lable"),
        ("schema", "shema", "schema"),
        ("properties.agnostic", "properties.other", "agnostic"),
        ("text = ", "txt = ", "example lacks text"),
        ('name = "x"', "name = x", "is no prompt"),
        ("version = 1", 'version = 1\nlanguage = "klingon"', "language"),
        ("minLength = 20", "minLength = 100", "an example is not what the schema asks"),
    ],
)
def test_prompt_file_that_is_wrong_is_a_config_error(tmp_path: Path, old: str, new: str, named: str):
    good = (FOLDER / "dual-view@1.toml").read_text(encoding="utf-8").replace('name = "dual-view"', 'name = "x"')
    (tmp_path / "x@1.toml").write_text(good, encoding="utf-8")
    load_prompt("x@1", tmp_path)
    (tmp_path / "x@1.toml").write_text(good.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=named):
        load_prompt("x@1", tmp_path)


def test_prompt_without_examples_is_a_prompt(tmp_path: Path):
    good = (FOLDER / "dual-view@1.toml").read_text(encoding="utf-8")
    head, rest = good.split("[[examples]]")
    (tmp_path / "dual-view@1.toml").write_text(head + rest[rest.index("[schema]") :], encoding="utf-8")
    prompt = load_prompt("dual-view@1", tmp_path)
    assert [m["role"] for m in prompt.messages(DomainWords("food", "a grocer"), "x")] == ["system", "user"]
