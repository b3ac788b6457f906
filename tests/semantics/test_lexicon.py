from __future__ import annotations

import pytest

from semacdr.semantics.lexicon import content_words, guessed_traits, lexicons, other_language

ENGLISH = "patient cooks who want a calm evening and the best of what they have"


@pytest.mark.parametrize(
    ("text", "asked", "found"),
    [
        (ENGLISH, "en", None),
        ("thrifty crafters valuing honest materials", "en", None),
        ("für Menschen, die ruhige Abende mit der Familie lieben und nicht viel ausgeben", "en", "de"),
        ("pour les gens qui aiment les soirées avec des amis et le goût", "en", "fr"),
        ("para quien busca la calma de una tarde con los amigos", "en", "es"),
        (ENGLISH, "de", "en"),
        (ENGLISH, "ru", "script LATIN"),
        ("тот кто любит долгие тихие вечера", "en", "script CYRILLIC"),
        ("тот кто любит долгие тихие вечера", "ru", None),
        ("喜欢慢慢做饭并珍惜耐用好物的人", "zh", None),
        ("ゆっくり料理を楽しむ人のために", "ja", None),
        ("ゆっくり料理を楽しむ人のために", "zh", "script HIRAGANA"),
        ("crème brûlée lovers who want a treat", "en", None),
    ],
)
def test_language_is_told_by_script_and_stop_words(text: str, asked: str, found: str | None):
    assert other_language(text, asked) == found


@pytest.mark.parametrize(
    ("text", "traits"),
    [
        ("busy mothers who want quick evenings", {"family_role"}),
        ("homesick expats craving a taste of the past", {"origin"}),
        ("devout people who like plain things", {"religion"}),
        ("arthritic hands that need an easy grip", {"health"}),
        ("elderly people who want simple things", {"age"}),
        ("left-handed makers with patience", {"body"}),
        ("ladies who enjoy elegance", {"gender"}),
        ("parents of toddlers who want calm", {"family_role", "age"}),
        ("patient people with Italian taste, health-conscious, at Christmas", set()),
        ("a mandarin of the kitchen, manifold needs, seasoned and manly-free", set()),
    ],
)
def test_traits_are_guessed_by_word_lists(text: str, traits: set[str]):
    assert set(guessed_traits(text, "Steel Pan", "en")) == traits


def test_traits_that_the_items_text_states_are_no_guess():
    text = "parents who want calm meals"
    assert guessed_traits(text, "Sippy Cup for Toddlers", "en") == {}
    assert guessed_traits(text, "Cup", "en") == {"family_role": "parents"}
    assert guessed_traits("for a hungry man", "Hungry-Man Dinner", "en") == {}


@pytest.mark.parametrize(
    ("language", "text"),
    [("de", "für gestresste Mütter"), ("fr", "pour les mamans pressées"), ("es", "para madres"), ("it", "per mamme")],
)
def test_traits_have_lists_in_other_languages(language: str, text: str):
    assert set(guessed_traits(text, "", language)) == {"family_role"}


def test_content_words_leave_out_what_says_nothing():
    assert content_words("The Cook's 12 pans, of glass", "en") == {"cook": "cook's", "pan": "pans", "glass": "glass"}


def test_every_language_has_a_script():
    assert all(lexicon.scripts for lexicon in lexicons().values())
