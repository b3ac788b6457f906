"""Item fields as clean text."""

from __future__ import annotations

import html
import json
import math
import re
from hashlib import sha256

MAX_DESCRIPTION = 2_000
"""Characters of a description that are kept."""
MAX_ESCAPES = 3
"""How often a text may have been escaped (``&amp;amp;``)."""

# Control characters that are no white space, soft hyphens, zero-width and direction marks, specials, tags.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)
_NUMBER = re.compile(r"\d[\d.,' \u00a0\u202f]*|\.\d+")
_GROUPED = re.compile(r"\d{1,3}(?:[,.' \u00a0\u202f]\d{3})+")


def clean(raw: str | None, *, joiner: str = " ") -> str | None:
    """Return a field without markup escapes, invisible characters and extra white space; None when nothing is left.

    Args:
        raw: text, or a JSON array of texts.
        joiner: what stands between the members of an array; arrays within it are joined alike, and set apart
            by ``; ``.
    """
    if raw is None:
        return None
    members = _array(raw)
    if members is None:
        return _clean_text(raw) or None
    nested = any(isinstance(member, list) for member in members)
    return ("; " if nested else joiner).join(filter(None, (_member(member, joiner) for member in members))) or None


def price(raw: str | None) -> float | None:
    """Return the one amount in a text such as ``$1,299.00`` or ``12,99 EUR``; None for none, ranges and negatives."""
    amounts = _NUMBER.findall(raw or "")
    if len(amounts) != 1 or "-" in (raw or ""):
        return None
    amount = amounts[0].strip(" .,'\u00a0\u202f") if amounts[0][0] != "." else amounts[0]
    whole, mark, cents = amount, "", ""
    if not _GROUPED.fullmatch(amount):
        last = max(amount.rfind("."), amount.rfind(","))
        whole, mark, cents = (amount[:last], ".", amount[last + 1 :]) if last >= 0 else (amount, "", "")
    elif amount.count(".") == 1 and "," not in amount:
        # One point before three digits: 1.299 is taken as written in a number, not as thousands.
        whole, mark, cents = amount.partition(".")
    try:
        value = float(re.sub(r"[,.' \u00a0\u202f]", "", whole) + mark + cents)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def item_text(title: str | None, brand: str | None, categories: str | None, description: str | None) -> str | None:
    """Return ``Title. Brand: … Category: … Description``, parts that are missing left out; None when all are."""
    parts = [title, brand and f"Brand: {brand}", categories and f"Category: {categories}", description]
    said = [part for part in parts if part]
    ended = [part if part[-1] in ".!?" else f"{part}." for part in said[:-1]]
    return " ".join(ended + said[-1:]) or None


def text_hash(text: str | None) -> str | None:
    """Return the sha256 of a text."""
    return None if text is None else sha256(text.encode()).hexdigest()


def _array(raw: str) -> list[object] | None:
    if not raw.lstrip().startswith("["):
        return None
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else None


def _member(member: object, joiner: str) -> str:
    if isinstance(member, list):
        return joiner.join(filter(None, (_member(inner, joiner) for inner in member)))
    if member is None:
        return ""
    return _clean_text(member if isinstance(member, str) else json.dumps(member, ensure_ascii=False))


def _clean_text(raw: str) -> str:
    text = raw
    for _ in range(MAX_ESCAPES):
        if "&" not in text or (plain := html.unescape(text)) == text:
            break
        text = plain
    # A lone surrogate can stand in a JSON escape and has no UTF-8.
    text = text.encode(errors="ignore").decode()
    return " ".join(_INVISIBLE.sub("", text).split())
