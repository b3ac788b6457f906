"""What is made of an LLM's answer, whether it came from a server of the run or from a batch elsewhere."""

from __future__ import annotations

from semacdr.dataset import Audit
from semacdr.semantics.accept import Texts, accept, copied_phrase, example_phrases, read_answer
from semacdr.semantics.audit import forgiven
from semacdr.semantics.lexicon import guessed_traits, other_language
from semacdr.semantics.prompt import Prompt
from semacdr.tables import AuditRule, View


class Judge:
    """Accepts the texts of answers to one prompt, or says why not."""

    def __init__(self, prompt: Prompt, rules: Audit) -> None:
        self._prompt = prompt
        self._shown = example_phrases(prompt.examples)
        self._forgiven = forgiven(rules)
        """Rules that the data set lets pass: worth no second try."""

    def verdict(self, answer: str, finish_reason: str | None, title: str | None, item_text: str) -> Texts | str:
        """Return the texts of an answer as they are kept, or the reason why they are not.

        Args:
            answer: what was written.
            finish_reason: why it ended, as the server says.
            title: of the item.
            item_text: what the LLM was told of the item, whole.
        """
        read = read_answer(answer, finish_reason, self._prompt.schema)
        texts = accept(read, title, self._forgiven) if isinstance(read, Texts) else read
        return (self._breach(texts, item_text) or texts) if isinstance(texts, Texts) else texts

    def _breach(self, texts: Texts, item_text: str) -> str | None:
        """Return the reason when a text breaks a rule that the audit would have it replaced for, else None."""
        for view in View:
            if AuditRule.COPIED_EXAMPLE not in self._forgiven and copied_phrase(texts.of(view), self._shown):
                return f"{view}: copies an example"
            if AuditRule.LANGUAGE not in self._forgiven and other_language(texts.of(view), self._prompt.language):
                return f"{view}: another language"
        if AuditRule.PROTECTED_TRAIT not in self._forgiven and guessed_traits(
            texts.agnostic, item_text, self._prompt.language
        ):
            return f"{View.AGNOSTIC}: guesses a protected trait"
        return None
