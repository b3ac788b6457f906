from __future__ import annotations

import pytest

from semacdr.semantics.fallback import MAX_CHARS, agnostic_fallback, specific_fallback


@pytest.mark.parametrize(
    ("text", "brand", "categories", "expected"),
    [
        ("Lodge Cast Iron Skillet, 12 Inch", "Lodge", "Kitchen > Skillets", "Cast Iron"),
        ("Green Tea, 3.7-Ounce Boxes (Pack of 6)", None, None, "Green Tea Boxes"),
        ("Set of Twelve 12oz Mugs in White", None, None, "Set of Mugs in White"),
        ("Ben & Jerry's Ice Cream", "Ben & Jerry's", None, "Ice Cream"),
        ("Кофе 500 г в зёрнах", None, None, "Кофе г в зёрнах"),  # noqa: RUF001
        ("鉄のフライパン 26cm", None, None, "鉄のフライパン"),
        ("Lodge Skillets 12", "Lodge", "Skillet", "Lodge Skillets"),  # nothing is left: the longest words
        ("501", None, None, "501"),
        ("12 oz", None, None, "oz"),
        ("???", None, None, "???"),
    ],
)
def test_agnostic_fallback(text: str, brand: str | None, categories: str | None, expected: str):
    assert agnostic_fallback(text, brand, categories) == expected


def test_fallbacks_are_bounded_and_cut_at_a_word():
    text = "word " * 1_000
    for made in (specific_fallback(text), agnostic_fallback(text, None, None)):
        assert 0 < len(made) <= MAX_CHARS
        assert made.endswith("word")
    assert len(specific_fallback("x" * 5_000)) == MAX_CHARS


def test_fallbacks_are_never_empty():
    for text in ("\u200b", " ", "<", "1"):
        assert specific_fallback(text)
        assert agnostic_fallback(text, text, text)


def test_labels_before_brand_and_categories_are_left_out_with_them():
    text = "Olive Oil 500ml. Brand: Bertolli. Category: Grocery > Oils. Fine and fruity."
    assert agnostic_fallback(text, "Bertolli", "Grocery > Oils") == "Olive Fine and fruity"
    assert agnostic_fallback("Brand new tea", None, None) == "Brand new tea"
