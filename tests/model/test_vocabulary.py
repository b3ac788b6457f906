import polars as pl
import pytest

from semacdr.errors import DataError
from semacdr.model.vocabulary import Vocabulary

ITEMS = pl.DataFrame({"domain": ["b", "a", "a", "b", "b"], "item_id": ["x", "y", "x", "z", "y"]})


def test_vocabulary_counts_from_one_contiguous_by_domain():
    vocabulary = Vocabulary.of_items(ITEMS)
    assert vocabulary.domains == ("a", "b")
    assert vocabulary.bounds == ((1, 3), (3, 6))
    assert vocabulary.domain_of_item.tolist() == [0, 0, 0, 1, 1, 1]
    assert vocabulary.encode(ITEMS, "items").tolist() == [3, 2, 1, 5, 4]


def test_vocabulary_does_not_depend_on_row_order():
    assert Vocabulary.of_items(ITEMS.reverse()).table.equals(Vocabulary.of_items(ITEMS).table)


def test_encode_unknown_item_is_named():
    with pytest.raises(DataError, match="a/new"):
        Vocabulary.of_items(ITEMS).encode(pl.DataFrame({"domain": ["a"], "item_id": ["new"]}), "sequences")


def test_of_items_domain_of_one_item_is_refused():
    with pytest.raises(DataError, match="c: 1"):
        Vocabulary.of_items(pl.concat([ITEMS, pl.DataFrame({"domain": ["c"], "item_id": ["x"]})]))


def test_domain_index_unknown_name_suggests_near_ones():
    with pytest.raises(DataError, match="no domain 'q'"):
        Vocabulary.of_items(ITEMS).domain_index("q")
