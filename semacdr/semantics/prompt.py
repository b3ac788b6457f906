"""Prompts: versioned TOML files, filled in with the words of a domain and the text of an item.

The item's text is data. It is cleaned here so that it can neither end its delimiters nor form a special token of a chat
template, whatever it says: ``<`` is the one character that both need.
"""

from __future__ import annotations

import json
import re
import tomllib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from semacdr.dataset import Domain
from semacdr.errors import ConfigError, close_names
from semacdr.manifest import fingerprint
from semacdr.semantics.lexicon import lexicons
from semacdr.semantics.structured import fits

FOLDER = Path(__file__).resolve().parent / "prompts"
VARIABLES = frozenset({"label", "expert", "text"})

Messages = list[dict[str, str]]

_JOINERS = "\u200c\u200d"  # invisible, but part of how Persian, the Indic scripts and emoji are written
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_SPACE = re.compile(r"\s+")
# Mistral's and Llama 2's templates mark turns by [INST] and its like: the bracket is replaced as well.
_BRACKET_TOKEN = re.compile(r"\[(?=\s*/?\s*[a-z]?[A-Z_]+\s*\])")


@dataclass(frozen=True)
class DomainWords:
    """What a prompt says of a domain."""

    label: str
    expert: str

    @classmethod
    def of(cls, name: str, domain: Domain) -> DomainWords:
        """Return a domain's words, with its name where it states none."""
        label = domain.label or name.replace("_", " ").replace("-", " ")
        return cls(label=label, expert=domain.expert or f"an expert on {label}")


@dataclass(frozen=True)
class Prompt:
    """One prompt file."""

    reference: str
    """``name@version``."""
    system: str
    user: str
    schema: dict[str, Any]
    """JSON schema of the answer: an object of strings and lists of them, among them one string per view."""
    examples: tuple[Mapping[str, Any], ...] = ()
    """Answers that are shown: each a ``text`` and the properties of the schema. None need be."""
    language: str = "en"
    """Of the texts that it asks for; the audit holds them to it."""

    def messages(self, words: DomainWords, text: str) -> Messages:
        """Return the chat of one item; ``text`` is cleaned by ``clean_item_text`` and cut before."""
        turns = [{"role": "system", "content": _fill(self.system, words, text)}]
        for example in self.examples:
            answer = {name: example[name] for name in self.schema["properties"]}
            turns.append({"role": "user", "content": _fill(self.user, words, example["text"])})
            turns.append({"role": "assistant", "content": json.dumps(answer, ensure_ascii=False)})
        return [*turns, self.turn(words, text)]

    def turn(self, words: DomainWords, text: str) -> dict[str, str]:
        """Return the last turn of an item's chat; those before are the same for all items of a domain."""
        return {"role": "user", "content": _fill(self.user, words, text)}

    def fingerprint(self, words: DomainWords) -> str:
        """Return the sha256 of the prompt as a domain's items see it."""
        return fingerprint({"prompt": self.reference, "messages": self.messages(words, "$text"), "schema": self.schema})


def _fill(template: str, words: DomainWords, text: str) -> str:
    # In one pass, so that a ``$text`` or ``$label`` inside a value stays what it is.
    return Template(template).substitute(label=words.label, expert=words.expert, text=text)


def load_prompt(reference: str, folder: Path = FOLDER) -> Prompt:
    """Read ``<folder>/<name>@<version>.toml``.

    Raises:
        ConfigError: no such prompt, no TOML, another name inside, or variables that are not known.
    """
    path = folder / f"{reference}.toml"
    if not re.fullmatch(r"[a-z0-9-]+@\d+", reference) or not path.is_file():
        raise ConfigError(
            f"no prompt {reference!r}",
            expected=f"name@version of a file in {folder}; "
            + close_names(reference, (file.stem for file in folder.glob("*.toml"))),
            do="set semantics.prompt to one of these",
        )
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        prompt = Prompt(
            reference=f"{raw['name']}@{raw['version']}",
            system=raw["system"].strip(),
            user=raw["user"].strip(),
            schema=raw["schema"],
            examples=tuple(raw.get("examples", ())),
            language=raw.get("language", "en"),
        )
        used = set(Template(prompt.system).get_identifiers()) | set(Template(prompt.user).get_identifiers())
        properties = set(prompt.schema["properties"])
        missing = [name for example in prompt.examples for name in {"text", *properties} - set(example)]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"{path} is no prompt",
            found=f"{type(error).__name__}: {error}",
            expected="name, version, system, user, schema",
        ) from error
    if prompt.reference != reference:
        raise ConfigError(f"{path} holds another prompt", found=prompt.reference, expected=reference)
    if not used <= VARIABLES or "text" not in Template(prompt.user).get_identifiers():
        raise ConfigError(
            f"{path}: variables",
            found=", ".join(sorted(used)),
            expected=f"$text in user, and none but {', '.join(sorted(VARIABLES))}",
        )
    if not {"specific", "agnostic"} <= properties:
        raise ConfigError(f"{path}: schema", found=sorted(properties), expected="properties specific and agnostic")
    if missing:
        raise ConfigError(
            f"{path}: an example lacks {', '.join(missing)}", expected="text, and each property of schema"
        )
    _check_examples(path, prompt)
    if prompt.language not in lexicons():
        raise ConfigError(
            f"{path}: language",
            found=prompt.language,
            expected=close_names(prompt.language, lexicons()),
            do="add its words to semacdr/semantics/words.toml",
        )
    return prompt


def _check_examples(path: Path, prompt: Prompt) -> None:
    for example in prompt.examples:
        answer = {name: example[name] for name in prompt.schema["properties"]}
        if not fits(answer, prompt.schema):
            raise ConfigError(
                f"{path}: an example is not what the schema asks",
                found=f"{json.dumps(answer, ensure_ascii=False):.300}",
                do="mend the example, or the schema",
            )


def clean_item_text(text: str) -> str:
    """Return an item's text on one line, without invisible characters and without what could end its delimiters."""
    # Printable means none of the invisible categories, and most texts are.
    shown = (
        text
        if text.isprintable()
        else "".join(
            character if character in _JOINERS or unicodedata.category(character) not in _INVISIBLE else " "
            for character in text
        )
    )
    return _SPACE.sub(" ", _BRACKET_TOKEN.sub("(", shown.replace("<", "\u2039"))).strip()
