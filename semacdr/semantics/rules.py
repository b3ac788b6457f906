"""The audit's rules over one item's two texts; ``audit.py`` adds those over all items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from semacdr.semantics.accept import Texts, copied_phrase, example_phrases, faults
from semacdr.semantics.lexicon import content_words, guessed_traits, other_language
from semacdr.semantics.prompt import Prompt
from semacdr.tables import AuditRule, View

_LEAKS = ((AuditRule.BRAND_LEAK, "brand"), (AuditRule.CATEGORY_LEAK, "categories"), (AuditRule.TITLE_LEAK, "title"))


class Finding(NamedTuple):
    """One rule that one text does not pass."""

    view: View
    rule: AuditRule
    detail: str
    value: float | None = None


class TextRules:
    """The rules as one prompt's texts are held to them."""

    def __init__(self, prompt: Prompt) -> None:
        self._language = prompt.language
        self._shown = example_phrases(prompt.examples)

    def findings(self, texts: Texts, item: Mapping[str, Any]) -> Iterator[Finding]:
        """Yield what is found in the texts of an item.

        Args:
            texts: cleaned.
            item: its title, brand, categories and text.
        """
        for view, rule, reason in faults(texts, item["title"]):
            yield Finding(view, rule, reason)
        for view in View:
            text = texts.of(view)
            if phrase := copied_phrase(text, self._shown):
                yield Finding(view, AuditRule.COPIED_EXAMPLE, phrase)
            if other := other_language(text, self._language):
                yield Finding(view, AuditRule.LANGUAGE, other)
        guessed = guessed_traits(texts.agnostic, item["text"] or "", self._language)
        if guessed:
            detail = ", ".join(f"{trait}: {word}" for trait, word in guessed.items())
            yield Finding(View.AGNOSTIC, AuditRule.PROTECTED_TRAIT, detail, len(guessed))
        yield from self._leaks(texts.agnostic, item)

    def _leaks(self, text: str, item: Mapping[str, Any]) -> Iterator[Finding]:
        said = content_words(text, self._language)
        for rule, column in _LEAKS:
            named = content_words(item[column] or "", self._language)
            leaked = [said[word] for word in sorted(said.keys() & named.keys())]
            if leaked:
                yield Finding(View.AGNOSTIC, rule, " ".join(leaked), len(leaked))
