"""What is accepted as the two texts of an item, from the LLM and from a file alike.

Servers ignore request fields that they do not know and answer 200, so nothing that comes back is taken on trust.
A reason is one of a few fixed strings: they are counted in the manifest and stand in ``fallback_reason``.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from semacdr.semantics.structured import fits, read_fields
from semacdr.tables import AuditRule, View

MIN_WORDS = {View.SPECIFIC: 3, View.AGNOSTIC: 4}
"""The shortest of the 7,402 reference texts have 5 and 7 words; other languages need fewer."""
MAX_CHARS = 600
"""Whatever wrote it. A text embedder reads 256 tokens, about 1,000 characters, and a prompt's schema is tighter."""

_JSON = json.JSONDecoder(strict=False)
"""xgrammar lets control characters into strings, which JSON forbids; ``accept`` takes them out."""

_WORD = re.compile(r"\w+")
_RUN = re.compile(r"(\S)\1{7,}")
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_REFUSAL = re.compile(r"\b(as an ai\b|i'?m sorry|i (?:cannot|can'?t|am unable to) )", re.IGNORECASE)
_MARKUP = re.compile(r"</?[a-z]\w*[\s/>]|\{\{|\"(?:specific|agnostic)\"\s*:|<\||\[/?INST\]", re.IGNORECASE)

_MIN_WORDS_FOR_REPETITION = 8
_MIN_DISTINCT_SHARE = 0.4
_MAX_SAME_TRIGRAM = 2
_MIN_LETTER_SHARE = 0.5
_COPIED_WORDS = 5

UNREADABLE = frozenset({"cut at max_tokens", "not finished", "not JSON", "not the schema"})
"""The reasons of ``read_answer``."""


class Texts(NamedTuple):
    """The two accepted texts of an item."""

    specific: str
    agnostic: str
    fields: str | None = None
    """The structured fields as a JSON object; None where there are none."""

    def of(self, view: View) -> str:
        """Return the text of a view."""
        return self.specific if view is View.SPECIFIC else self.agnostic


class Fault(NamedTuple):
    """What is wrong with one text."""

    view: View
    rule: AuditRule
    reason: str


def read_answer(text: str, finish_reason: str | None, schema: Mapping[str, Any]) -> Texts | str:
    """Return the two texts of an LLM's answer, or the reason why it has none."""
    if finish_reason != "stop":
        return "cut at max_tokens" if finish_reason == "length" else "not finished"
    try:
        value = _JSON.decode(text)
    except (ValueError, RecursionError):
        return "not JSON"
    if not fits(value, schema):
        return "not the schema"
    return Texts(value["specific"], value["agnostic"], read_fields(value))


def copied_phrase(text: str, shown: frozenset[tuple[str, ...]]) -> str | None:
    """Return a phrase of the shown ones that a text repeats, else None."""
    common = shown & _phrases(text) if shown else None
    return " ".join(min(common)) if common else None


def example_phrases(examples: Sequence[Mapping[str, Any]]) -> frozenset[tuple[str, ...]]:
    """Return every ``_COPIED_WORDS`` words on end of the texts of a prompt's examples."""
    return frozenset(phrase for example in examples for view in View for phrase in _phrases(example[view.value]))


def accept(texts: Texts, title: str | None, forgiven: Container[AuditRule] = ()) -> Texts | str:
    """Return the texts as they are kept, or the reason why they are not.

    Args:
        texts: what was written.
        title: the item's title, which an agnostic text must not repeat.
        forgiven: rules that are left to the audit; a text that breaks ``FORM`` is none and is never forgiven.
    """
    kept = cleaned(texts)
    for fault in faults(kept, title):
        if fault.rule is AuditRule.FORM or fault.rule not in forgiven:
            return f"{fault.view}: {fault.reason}"
    return kept


def cleaned(texts: Texts) -> Texts:
    """Return the texts on one line each, without control characters."""
    return Texts(_clean(texts.specific), _clean(texts.agnostic), texts.fields)


@lru_cache(maxsize=1 << 15)
def faults(texts: Texts, title: str | None) -> tuple[Fault, ...]:
    """Return all that is wrong with two cleaned texts, the first of each view that cannot be kept at all first.

    Remembered: a run judges each import for what is new, what is to be asked, what is kept, and in the audit.
    """
    found = [
        Fault(view, rule, reason)
        for view in (View.SPECIFIC, View.AGNOSTIC)
        for rule, reason in _faults(texts.of(view), MIN_WORDS[view])
    ]
    agnostic = folded(texts.agnostic)
    if agnostic == folded(texts.specific):
        found.append(Fault(View.AGNOSTIC, AuditRule.SAME_TEXT, "same as specific"))
    elif title and agnostic == folded(title):
        found.append(Fault(View.AGNOSTIC, AuditRule.SAME_TEXT, "same as the title"))
    return tuple(found)


def folded(text: str) -> str:
    """Return a text's words in lower case: two texts that differ by points and spaces alone are the same."""
    return " ".join(_WORD.findall(text.casefold()))


def _clean(text: str) -> str:
    if text.isprintable() and "  " not in text:
        return text.strip()
    shown = "".join(" " if unicodedata.category(character) == "Cc" else character for character in text)
    return " ".join(shown.split())


def _faults(text: str, min_words: int) -> list[tuple[AuditRule, str]]:
    words = _WORD.findall(text.casefold())
    # Scripts that put no space between words: two characters stand for a word.
    num_words = len(words) if text.isascii() else max(len(words), len(_UNSPACED.findall(text)) // 2)
    # A printable text has no half of a surrogate pair, and most are.
    broken = not text.isprintable() and any(unicodedata.category(character) == "Cs" for character in text)
    rules = (
        (AuditRule.FORM, "not Unicode", broken),
        (AuditRule.FORM, "too short", num_words < min_words),
        (AuditRule.FORM, "too long", len(text) > MAX_CHARS),
        (AuditRule.FORM, "not words", sum(map(str.isalpha, text)) < _MIN_LETTER_SHARE * len(text.replace(" ", ""))),
        (AuditRule.REPETITION, "repeats itself", _repeats(text, words)),
        (AuditRule.REFUSAL, "a refusal", _REFUSAL.search(text) is not None),
        (AuditRule.FORM, "markup", _MARKUP.search(text) is not None),
    )
    return [(rule, reason) for rule, reason, is_broken in rules if is_broken]


def _repeats(text: str, words: list[str]) -> bool:
    if _RUN.search(text):
        return True
    if len(words) < _MIN_WORDS_FOR_REPETITION:
        return len(words) > 1 and len(set(words)) == 1
    if len(set(words)) == len(words):
        return False
    trigrams = Counter(zip(words, words[1:], words[2:], strict=False))
    return len(set(words)) < _MIN_DISTINCT_SHARE * len(words) or max(trigrams.values()) > _MAX_SAME_TRIGRAM


def _phrases(text: str) -> set[tuple[str, ...]]:
    words = _WORD.findall(text.casefold())
    return {tuple(words[start : start + _COPIED_WORDS]) for start in range(len(words) - _COPIED_WORDS + 1)}
