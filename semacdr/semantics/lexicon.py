"""Words of languages: which language a text is in, and which protected traits it speaks of.

No model and no download: a script is told by the names of its letters, languages of one script by their commonest
words. A text of a few words may hold none of these; it is given the benefit of the doubt.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from semacdr.manifest import file_sha256

FILE = Path(__file__).resolve().parent / "words.toml"

_MIN_SCRIPT_SHARE = 0.5
_MIN_STOP_WORDS = 3
_MIN_STOP_SHARE = 0.2
_TIMES_THE_ASKED = 1.5
"""How much more of another language's words than of the asked one's. The reference texts, English all, hold up to 3
words of another language by chance ("a", "in", "on")."""

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")  # noqa: RUF001 (the typographic apostrophe is meant)


@dataclass(frozen=True)
class Lexicon:
    """The words of one language."""

    scripts: frozenset[str]
    stop_words: frozenset[str]
    traits: Mapping[str, re.Pattern[str]]
    """Protected trait -> what a text says that guesses at it."""
    any_trait: re.Pattern[str] | None
    """Any of these; None if none is listed."""


@cache
def lexicons() -> Mapping[str, Lexicon]:
    """Return every language that is known, by its code."""
    with FILE.open("rb") as file:
        raw = tomllib.load(file)
    return {
        language: Lexicon(
            scripts=frozenset(words["scripts"]),
            stop_words=frozenset(words.get("stop_words", "").split()),
            traits={trait: _pattern(listed) for trait, listed in words.get("traits", {}).items()},
            any_trait=_pattern(" ".join(words["traits"].values())) if words.get("traits") else None,
        )
        for language, words in raw.items()
    }


def words_digest() -> str:
    """Return the sha256 of the word lists: they shape an audit."""
    return file_sha256(FILE)


def content_words(text: str, language: str) -> dict[str, str]:
    """Return the words of a text that say something, in lower case, each by its stem."""
    stop_words = lexicons()[language].stop_words
    words = (word.casefold() for word in _WORD.findall(text))
    return {stem(word): word for word in words if len(word) > 2 and word not in stop_words}  # noqa: PLR2004 (as "of")


def stem(word: str) -> str:
    """Return a word as it is compared: a plural is its singular, near enough."""
    folded = word.casefold().replace("\u2019", "'").removesuffix("'s")
    return folded if folded.endswith("ss") else folded.removesuffix("s")


def guessed_traits(text: str, item_text: str, language: str) -> dict[str, str]:
    """Return the protected traits that a text speaks of and the item's own text does not, with the words it uses."""
    guessed: dict[str, str] = {}
    folded = text.casefold()
    stated = None
    lexicon = lexicons()[language]
    if lexicon.any_trait is None or not lexicon.any_trait.search(folded):
        return guessed
    for trait, pattern in lexicon.traits.items():
        match = pattern.search(folded)
        if match:
            # "Hungry-Man" states its man as well.
            stated = stated if stated is not None else f"{item_text} {item_text.replace('-', ' ')}".casefold()
            if not pattern.search(stated):
                guessed[trait] = match.group()
    return guessed


def other_language(text: str, asked: str) -> str | None:
    """Return what shows that a text is not in the language asked for: a script, or another language's code."""
    lexicon = lexicons()[asked]
    if not text.isascii():
        scripts = Counter(_script(character) for character in text if character.isalpha())
        total = sum(scripts.values())
        if total and sum(scripts[name] for name in lexicon.scripts) < _MIN_SCRIPT_SHARE * total:
            return f"script {scripts.most_common(1)[0][0]}"
    elif "LATIN" not in lexicon.scripts:
        return "script LATIN"
    words = _WORD.findall(text.casefold())
    index = _stop_index(lexicon.scripts)
    # Most words are no language's stop word: leaving them out first halves the time.
    hits = Counter(code for word in words if word in index for code in index[word])
    if not hits:
        return None
    best = max(sorted(hits), key=lambda code: hits[code])
    enough = hits[best] >= max(_MIN_STOP_WORDS, _MIN_STOP_SHARE * len(words))
    return best if best != asked and enough and hits[best] > _TIMES_THE_ASKED * hits[asked] else None


@cache
def _stop_index(scripts: frozenset[str]) -> Mapping[str, list[str]]:
    """Return stop word -> the languages of these scripts that have it."""
    index: dict[str, list[str]] = {}
    for code, lexicon in lexicons().items():
        if lexicon.scripts == scripts:
            for word in lexicon.stop_words:
                index.setdefault(word, []).append(code)
    return index


@cache
def _script(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]


def _pattern(listed: str) -> re.Pattern[str]:
    words = sorted(set(listed.split()), key=lambda word: (-len(word), word))
    written = (re.escape(word).replace(r"\*", r"\w*").replace("_", r"\s+") for word in words)
    return re.compile(r"(?<![\w-])(?:" + "|".join(written) + r")(?![\w-])")
