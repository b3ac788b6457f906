"""What stands in for the LLM's texts where there are none: the item's own words, marked as such.

specific
    The item's text, cut at ``MAX_CHARS``.
agnostic
    The item's text without the words of its brand and of its categories, without words that hold a digit, and without
    number and unit words. If nothing is left, the three longest words of the text that hold no digit; if it has none,
    the text. The number and unit words are English: other languages keep theirs.
"""

from __future__ import annotations

import re

from semacdr.semantics.prompt import clean_item_text

MAX_CHARS = 1_000
"""About what a text encoder of 256 tokens reads."""
_NUM_LONGEST = 3

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")  # noqa: RUF001 (the typographic apostrophe is meant)


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


_NUMBERS = _listed(
    "one two three four five six seven eight nine ten eleven twelve twenty thirty fifty hundred dozen half"
)
_UNITS = _listed(
    "oz ounce ounces lb lbs pound pounds gram grams kg mg ml cl liter liters litre litres gallon gallons quart quarts "
    "qt pint pints fl inch inches ft cm mm sq watt watts volt volts mah gb mb pack packs pk count ct pcs pc"
)
_UNITS_AFTER_NUMBER = _listed("g l x w v in foot feet m fluid cup cups piece pieces tier set sets per by of")


def specific_fallback(text: str) -> str:
    """Return an item's text, cut at a word."""
    return _cut(clean_item_text(text) or text)


def agnostic_fallback(text: str, brand: str | None, categories: str | None) -> str:
    """Return an item's text without what ties it to a brand, a category or a size; never empty."""
    # With the labels that ingest sets before a brand and categories: "Brand: B. Category: A > B".
    sources = (f"brand {brand}" if brand else "", f"category {categories}" if categories else "")
    named = {_stem(word.casefold()) for source in sources for word in _WORD.findall(source)}
    words = _WORD.findall(clean_item_text(text))
    kept = []
    after_number = False
    for word in words:
        folded = word.casefold()
        number = folded in _NUMBERS or _has_digit(word)
        unit = folded in _UNITS or (after_number and folded in _UNITS_AFTER_NUMBER)
        if not number and not unit and _stem(folded) not in named:
            kept.append(word)
        after_number = number or unit
    if not kept:
        wordy = [word for word in words if not _has_digit(word)]
        longest = sorted(wordy, key=len, reverse=True)[:_NUM_LONGEST]
        kept = [word for word in dict.fromkeys(wordy) if word in longest]
    return _cut(" ".join(kept)) or specific_fallback(text)


def _has_digit(word: str) -> bool:
    # Most words are ASCII letters alone, which is told at once; among others, some letters are numbers.
    return not (word.isascii() and word.isalpha()) and any(map(str.isnumeric, word))


def _stem(folded: str) -> str:
    """Return a word in lower case as it is compared: a plural of a category's name is that name."""
    return folded.removesuffix("'s").removesuffix("s")


def _cut(text: str) -> str:
    if len(text) <= MAX_CHARS:
        return text
    return text[:MAX_CHARS].rsplit(" ", 1)[0]
