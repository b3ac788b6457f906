from __future__ import annotations

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semacdr.interactions.text import clean, item_text, price, text_hash


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        (None, None),
        ("", None),
        ("  \u200b\u00a0 ", None),
        ("Ben &amp; Jerry&#39;s", "Ben & Jerry's"),
        ("Ben &amp;amp; Jerry", "Ben & Jerry"),
        ("a\x00b\x07c\u200dd\ufeff", "abcd"),
        ("one\r\n\ttwo\u00a0 three\u2028four", "one two three four"),
        ('["Home", "Kitchen"]', "Home / Kitchen"),
        ('[["Home", "Kitchen"], ["Gifts", null, ""]]', "Home / Kitchen; Gifts"),
        ('["a", 2, {"b": "c"}]', 'a / 2 / {"b": "c"}'),
        ("[Set of 2] Pan", "[Set of 2] Pan"),
        ("[]", None),
        ('["\\ud83d broken"]', "broken"),
        ("[" * 100_000, "[" * 100_000),
        ("日本 &lt; 茶", "日本 < 茶"),
    ],
)
def test_clean_cases(raw: str | None, cleaned: str | None):
    assert clean(raw, joiner=" / ") == cleaned


@given(st.text(alphabet=st.characters(codec="utf-8", categories=["L", "N", "Zs", "Sm"], include_characters="&;<>\"'")))
def test_clean_undoes_escapes_and_is_stable(raw: str):
    once = clean(raw)
    assert clean(html.escape(raw)) == once
    if once is not None and "&" not in once:
        assert clean(once) == once
        assert once == once.strip()
        assert "  " not in once


@pytest.mark.parametrize(
    ("raw", "amount"),
    [
        (None, None),
        ("", None),
        ("free", None),
        ("12", 12.0),
        ("$12.99", 12.99),
        ("£ .99", 0.99),
        ("12,99 €", 12.99),
        ("$1,299.00", 1299.0),
        ("1.299,00 EUR", 1299.0),
        ("1 299,50 kr", 1299.5),
        ("1,299,000", 1_299_000.0),
        ("2.999", 2.999),
        ("12.", 12.0),
        ("$3 - $5", None),
        ("-4", None),
        ("1.2.3.4,5,6", 123456.0 / 10),
        ("9" * 400, None),
    ],
)
def test_price_cases(raw: str | None, amount: float | None):
    assert price(raw) == amount


def test_item_text_joins_what_is_there():
    assert item_text("Pan", "Acme", "Home > Pans", "Heavy.") == "Pan. Brand: Acme. Category: Home > Pans. Heavy."
    assert item_text("Why not?", None, None, "Because") == "Why not? Because"
    assert item_text("Pan", None, None, None) == "Pan"
    assert item_text(None, None, None, None) is None
    assert text_hash(None) is None
