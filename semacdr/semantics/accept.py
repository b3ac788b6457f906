"""What is accepted as the two texts of an item, from the LLM and from a file alike.

Servers ignore request fields that they do not know and answer 200, so nothing that comes back is taken on trust.
A reason is one of a few fixed strings: they are counted in the manifest and stand in ``fallback_reason``.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

MIN_WORDS = {"specific": 3, "agnostic": 4}
"""The shortest of the 7,402 reference texts have 5 and 7 words; other languages need fewer."""
MAX_CHARS = 600
"""Whatever wrote it. A text embedder reads 256 tokens, about 1,000 characters, and a prompt's schema is tighter."""

_WORD = re.compile(r"\w+")
_RUN = re.compile(r"(\S)\1{7,}")
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_REFUSAL = re.compile(r"\b(as an ai\b|i'?m sorry|i (?:cannot|can'?t|am unable to) )", re.IGNORECASE)
_MARKUP = re.compile(r"</?[a-z]\w*[\s/>]|\{\{|\"(?:specific|agnostic)\"\s*:|<\|", re.IGNORECASE)

_MIN_WORDS_FOR_REPETITION = 8
_MIN_DISTINCT_SHARE = 0.4
_MAX_SAME_TRIGRAM = 2
_MIN_LETTER_SHARE = 0.5
_COPIED_WORDS = 5


class Texts(NamedTuple):
    """The two accepted texts of an item."""

    specific: str
    agnostic: str


def read_answer(text: str, finish_reason: str | None, schema: Mapping[str, Any]) -> Texts | str:
    """Return the two texts of an LLM's answer, or the reason why it has none."""
    if finish_reason != "stop":
        return "cut at max_tokens" if finish_reason == "length" else "not finished"
    try:
        # xgrammar lets control characters into strings, which JSON forbids; ``accept`` takes them out.
        value = json.loads(text, strict=False)
    except ValueError:
        return "not JSON"
    if not _fits(value, schema):
        return "not the schema"
    return Texts(value["specific"], value["agnostic"])


def copies(texts: Texts, examples: Sequence[Mapping[str, str]]) -> str | None:
    """Return the reason when a text repeats a phrase of the prompt's examples, else None."""
    shown = {phrase for example in examples for view in Texts._fields for phrase in _phrases(example[view])}
    for view, text in zip(Texts._fields, texts, strict=True):
        if not shown.isdisjoint(_phrases(text)):
            return f"{view}: copies an example"
    return None


def accept(texts: Texts, title: str | None) -> Texts | str:
    """Return the texts as they are kept, or the reason why they are not.

    Args:
        texts: what was written.
        title: the item's title, which an agnostic text must not repeat.
    """
    kept = Texts(*(_clean(text) for text in texts))
    for view, text in zip(Texts._fields, kept, strict=True):
        reason = _fault(text, MIN_WORDS[view])
        if reason:
            return f"{view}: {reason}"
    agnostic = _folded(kept.agnostic)
    if agnostic == _folded(kept.specific):
        return "agnostic: same as specific"
    if title and agnostic == _folded(title):
        return "agnostic: same as the title"
    return kept


def _clean(text: str) -> str:
    shown = "".join(" " if unicodedata.category(character) == "Cc" else character for character in text)
    return " ".join(shown.split())


def _fault(text: str, min_words: int) -> str | None:
    words = _WORD.findall(text.casefold())
    # Scripts that put no space between words: two characters stand for a word.
    num_words = max(len(words), len(_UNSPACED.findall(text)) // 2)
    rules = (
        ("not Unicode", any(unicodedata.category(character) == "Cs" for character in text)),
        ("too short", num_words < min_words),
        ("too long", len(text) > MAX_CHARS),
        ("not words", sum(map(str.isalpha, text)) < _MIN_LETTER_SHARE * len(text.replace(" ", ""))),
        ("repeats itself", _repeats(text, words)),
        ("a refusal", _REFUSAL.search(text) is not None),
        ("markup", _MARKUP.search(text) is not None),
    )
    return next((reason for reason, broken in rules if broken), None)


def _repeats(text: str, words: list[str]) -> bool:
    if _RUN.search(text):
        return True
    if len(words) < _MIN_WORDS_FOR_REPETITION:
        return len(words) > 1 and len(set(words)) == 1
    trigrams = Counter(zip(words, words[1:], words[2:], strict=False))
    return len(set(words)) < _MIN_DISTINCT_SHARE * len(words) or max(trigrams.values()) > _MAX_SAME_TRIGRAM


def _phrases(text: str) -> set[tuple[str, ...]]:
    words = _WORD.findall(text.casefold())
    return {tuple(words[start : start + _COPIED_WORDS]) for start in range(len(words) - _COPIED_WORDS + 1)}


def _folded(text: str) -> str:
    return " ".join(_WORD.findall(text.casefold()))


def _fits(value: object, schema: Mapping[str, Any]) -> bool:
    """Tell whether a value is what a prompt's schema asks: an object of strings, bounded or out of a list."""
    if not isinstance(value, dict) or not set(schema["required"]) <= set(value) <= set(schema["properties"]):
        return False
    for name, text in value.items():
        rule = schema["properties"][name]
        if not isinstance(text, str) or not rule.get("minLength", 0) <= len(text) <= rule.get("maxLength", len(text)):
            return False
        if "enum" in rule and text not in rule["enum"]:
            return False
    return True
