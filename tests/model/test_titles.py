import numpy as np
import pytest

from semacdr.model import titles
from semacdr.model.titles import LEAST_SIMILAR, SIMILAR, Titles

BOUNDS = ((1, 41), (41, 71))


def some_texts(seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    words = [f"w{number}" for number in range(20)]
    texts = ["", *(" ".join(rng.choice(words, 4)) for _ in range(70))]
    texts[3] = ""
    texts[5] = "nothing like the others"
    return texts


def test_similar_are_the_nearest_of_the_domain_and_no_more_than_are_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(titles, "_ROWS", 7)
    found = Titles.of(some_texts(), BOUNDS)
    similar, cosine = found.similar_RR.toarray(), (found.tfidf_RV @ found.tfidf_RV.T).toarray()
    np.fill_diagonal(cosine, 0)
    cosine[:41, 41:] = cosine[41:, :41] = 0
    for row in range(71):
        best = np.sort(cosine[row][cosine[row] >= LEAST_SIMILAR])[::-1][:SIMILAR]
        assert np.sort(similar[row][similar[row] > 0])[::-1] == pytest.approx(best, rel=1e-6)
        assert similar[row][similar[row] > 0] == pytest.approx(cosine[row][similar[row] > 0], rel=1e-6)
    assert (similar > 0).sum(axis=1).max() == SIMILAR
    assert not similar[[0, 3, 5]].any()


def test_of_equal_cosines_the_first_items_count():
    similar = Titles.of(["", *["green tea"] * 30], ((1, 31),)).similar_RR
    assert [similar[row].indices.tolist() for row in (1, 5, 30)] == [
        [*range(2, 12)],
        [1, 2, 3, 4, *range(6, 12)],
        [*range(1, 11)],
    ]


def test_new_titles_and_the_known_most_like_them_are_similar_to_each_other():
    texts = some_texts(1)
    is_new = np.zeros(71, bool)
    is_new[[2, 17, 18, 40, 41, 60, 70]] = True
    known, new = np.flatnonzero(~is_new), np.flatnonzero(is_new)
    bounds = [(start - int(is_new[:start].sum()), stop - int(is_new[:stop].sum())) for start, stop in BOUNDS]
    before = Titles.of([texts[place] for place in known], bounds)
    grown = before.with_new([texts[place] for place in new], (known, new), BOUNDS)
    assert grown.words == before.words
    similar, cosine = grown.similar_RR.toarray(), (grown.tfidf_RV @ grown.tfidf_RV.T).toarray()
    np.testing.assert_array_equal(similar[np.ix_(known, known)], before.similar_RR.toarray())
    np.testing.assert_array_equal(similar[:, new], similar[new].T)
    cosine[:41, 41:] = cosine[41:, :41] = cosine[:, new] = 0
    for row in new:
        best = np.sort(cosine[row][cosine[row] >= LEAST_SIMILAR])[::-1][:SIMILAR]
        assert len(best)
        assert np.sort(similar[row][similar[row] > 0])[::-1] == pytest.approx(best, rel=1e-6)


def test_titles_go_through_arrays():
    found = Titles.of(some_texts(), BOUNDS)
    again = Titles.from_arrays(found.arrays())
    assert again.words == found.words
    np.testing.assert_array_equal(again.idf, found.idf)
    np.testing.assert_array_equal(again.tfidf_RV.toarray(), found.tfidf_RV.toarray())
    np.testing.assert_array_equal(again.similar_RR.toarray(), found.similar_RR.toarray())


@pytest.mark.parametrize("texts", [[""], ["", "", ""]])
def test_without_words_nothing_is_similar(texts: list[str]):
    found = Titles.of(texts, ((1, len(texts)),))
    assert found.words == ()
    assert found.similar_RR.shape == (len(texts), len(texts))
    assert found.similar_RR.nnz == 0
    assert Titles.from_arrays(found.arrays()).similar_RR.nnz == 0
