"""Items' own texts in the place of the LLM's: whole, or without the words that name a shop's shelf."""

import re
from pathlib import Path

import polars as pl

from semacdr.interactions.text import item_text
from semacdr.tables import scan_files, table_files

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")  # noqa: RUF001 (the typographic apostrophe is meant)
_COLUMNS = ("title", "brand", "categories", "description")


def own_words(items: Path, *, masked: bool) -> pl.DataFrame:
    """Return domain, item_id and text of the items of an ``items`` artifact; items without a word are left out.

    Args:
        items: its folder.
        masked: without the brand and the categories, and without their words in the rest.
    """
    columns = ["domain", "item_id", *(_COLUMNS if masked else ["text"])]
    table = pl.concat(scan_files(file).select(columns).collect() for file in table_files(items, "items"))
    if masked:
        texts = [masked_text(*fields) for fields in table.select(_COLUMNS).rows()]
        table = table.select("domain", "item_id", pl.Series("text", texts, dtype=pl.String))
    return table.filter(pl.col("text").is_not_null())


def masked_text(title: str | None, brand: str | None, categories: str | None, description: str | None) -> str | None:
    """Return title and description without the whole words of brand and categories; None: no word is left."""
    named = {word.casefold() for field in (brand, categories) for word in _WORD.findall(field or "")}
    text = item_text(title, None, None, description) or ""
    kept = _WORD.sub(lambda word: "" if word.group().casefold() in named else word.group(), text)
    return " ".join(kept.split()) if _WORD.search(kept) else None
