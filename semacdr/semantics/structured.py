"""The structured fields beside the two texts, and whether a value is what a prompt's JSON schema asks.

Which fields there are is said in ``tables.Semantics``; which words each may hold, in the prompt file: see
``docs/decisions/0004-structured-fields.md``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import polars as pl

LISTS = ("occasions", "tastes")
FIELDS = ("need", "occasions", "audience", "tastes", "price_attitude")
"""In the order of the table."""
FIELD_TYPES: dict[str, pl.DataType] = {name: pl.List(pl.String()) if name in LISTS else pl.String() for name in FIELDS}

MAX_FIELD_CHARS = 40
MAX_LISTED = 5
"""Of a field that an import brings and the prompt has no list for."""


def read_fields(value: Mapping[str, Any]) -> str | None:
    """Return the structured fields of an answer as JSON, None where it has none of them."""
    known = {name: value[name] for name in FIELDS if value.get(name) is not None}
    for name in LISTS:
        if name in known:
            known[name] = list(dict.fromkeys(known[name]))  # no grammar keeps a server from saying one word twice
    return json.dumps(known, ensure_ascii=False) if known else None


def field_columns(fields: list[str | None]) -> dict[str, pl.Series]:
    """Return the table's columns of fields that were kept as JSON."""
    values = [json.loads(text) if text else {} for text in fields]
    return {
        name: pl.Series(name, [value.get(name) for value in values], dtype=dtype) for name, dtype in FIELD_TYPES.items()
    }


def fields_fault(value: Mapping[str, Any], schema: Mapping[str, Any]) -> str | None:
    """Return the name of the first field that is not as the prompt's schema asks, else None.

    A prompt that asks for no such field says nothing of its words: a short string, or a short list of them.
    """
    string = {"type": "string", "minLength": 1, "maxLength": MAX_FIELD_CHARS}
    for name in FIELDS:
        loose = {"type": "array", "items": string, "maxItems": MAX_LISTED} if name in LISTS else string
        rule = schema["properties"].get(name, loose)
        if value.get(name) is not None and not _fits_rule(value[name], rule):
            return name
    return None


def fits(value: object, schema: Mapping[str, Any]) -> bool:
    """Tell whether a value is what a prompt's schema asks: an object of strings and lists of strings."""
    if not isinstance(value, dict) or not set(schema["required"]) <= set(value) <= set(schema["properties"]):
        return False
    return all(_fits_rule(part, schema["properties"][name]) for name, part in value.items())


def _fits_rule(value: object, rule: Mapping[str, Any]) -> bool:
    if rule.get("type") == "array":
        return (
            isinstance(value, list)
            and rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", len(value))
            and all(_fits_rule(part, rule["items"]) for part in value)
        )
    if not isinstance(value, str) or not rule.get("minLength", 0) <= len(value) <= rule.get("maxLength", len(value)):
        return False
    return "enum" not in rule or value in rule["enum"]
