from __future__ import annotations

import itertools
import random

from semacdr.semantics.duplicates import MIN_LIKENESS, near_duplicates

WORDS = [f"w{number}" for number in range(3_000)]


def likeness(one: str, other: str) -> float:
    """The Jaccard likeness of the pairs of neighbouring words, written as it is defined."""
    first, second = (set(itertools.pairwise(text.split())) for text in (one, other))
    return len(first & second) / len(first | second)


def test_near_duplicates_finds_texts_with_one_word_changed():
    rng = random.Random(0)
    texts = [" ".join(rng.sample(WORDS, 12)) for _ in range(1_500)]
    changed = [text.split() for text in texts[:300]]
    for words in changed:
        words[rng.randrange(12)] = "other"
    everything = texts + [" ".join(words) for words in changed]
    found = {place: (earlier, value) for place, earlier, value in near_duplicates(everything)}
    expected = {1_500 + n: n for n in range(300) if likeness(everything[1_500 + n], texts[n]) >= MIN_LIKENESS}
    assert len(expected) == 300
    assert {place: earlier for place, (earlier, _) in found.items()} == expected
    assert all(abs(value - likeness(everything[p], everything[e])) < 1e-9 for p, (e, value) in found.items())


def test_near_duplicates_of_many_alike_costs_no_square():
    alike = [f"people who want calm long evenings and lasting things at home number {n}" for n in range(5_000)]
    assert len(near_duplicates(alike)) == len(alike) - 1


def test_near_duplicates_without_spaces_compares_characters():
    texts = ["喜欢慢慢做饭并珍惜耐用好物的人", "喜欢慢慢做饭并珍惜耐用好物的他", "安静的夜晚和长久的陪伴最重要"]
    assert [(place, earlier) for place, earlier, _ in near_duplicates(texts)] == [(1, 0)]


def test_near_duplicates_of_few_or_empty_texts_is_none():
    assert near_duplicates([]) == []
    assert near_duplicates(["one"]) == []
    assert near_duplicates(["", "one", "two words", "!"]) == []
