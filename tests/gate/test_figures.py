from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from semacdr.gate.lists import coverage, full_lists, overlap
from semacdr.gate.ranks import paired_ndcg, worse_share


def ranks(*rows: tuple[str, str, str, int]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user_id", "domain", "item_id", "rank"], orient="row")


def test_paired_ndcg_takes_targets_that_both_have_ranked():
    pairs = paired_ndcg(
        ranks(("u", "a", "i", 1), ("v", "a", "i", 3), ("w", "a", "j", 1)),
        ranks(("v", "a", "i", 11), ("u", "a", "i", 2), ("w", "a", "other", 1)),
    )
    assert pairs["candidate"].to_list() == [1.0, 0.5]
    assert pairs["production"].to_list() == pytest.approx([1 / np.log2(3), 0.0])


def test_worse_share_draws_users_with_all_their_targets():
    # Of two users one loses as much as the other gains: only one resample in four holds the loser alone.
    gain = [-0.2] * 50 + [0.2] * 50
    pairs = pl.DataFrame({"user_id": ["u"] * 50 + ["v"] * 50, "candidate": gain, "production": [0.0] * 100})
    assert worse_share(pairs, 0.01, resamples=2_000, seed=1) == pytest.approx(0.25, abs=0.04)
    assert worse_share(pairs, 0.21, resamples=2_000, seed=1) == 0


def test_worse_share_of_a_model_beside_itself_is_none():
    pairs = pl.DataFrame({"user_id": ["a", "b"], "domain": "d", "candidate": [0.5, 0.0], "production": [0.5, 0.0]})
    assert worse_share(pairs, 0.0, resamples=100, seed=1) == 0


def test_figures_of_lists_by_hand():
    items = pl.LazyFrame({"domain": ["a"] * 4 + ["b"] * 4, "item_id": list("ijkl") * 2})
    now = pl.LazyFrame(ranks(("u", "a", "i", 1), ("u", "a", "j", 2), ("v", "a", "i", 1), ("u", "b", "k", 11)))
    before = pl.LazyFrame(ranks(("u", "a", "j", 1), ("u", "a", "k", 2), ("w", "a", "i", 1)))
    users = pl.LazyFrame({"user_id": ["u", "v", "u", "v"], "domain": ["a", "a", "b", "b"]})
    assert coverage(now, items) == {"a": 0.5, "b": 0.0}
    nobody = pl.LazyFrame(schema={"user_id": pl.String, "domains": pl.List(pl.String), "item_ids": pl.List(pl.String)})
    # Half of the domain's four items are as much as a list of twenty can be asked for.
    assert full_lists(now, users, nobody, items, 20) == {"a": 0.5, "b": 0.0}
    assert full_lists(now, users, nobody, items, 1) == {"a": 1.0, "b": 0.5}
    assert overlap(now, before) == {"a": 0.5}


def test_a_list_is_full_with_half_of_the_items_that_its_user_has_not_had():
    items = pl.LazyFrame({"domain": ["a"] * 8, "item_id": list("ijklmnop")})
    now = pl.LazyFrame(ranks(("few", "a", "o", 1), ("many", "a", "i", 1)))
    users = pl.LazyFrame({"user_id": ["few", "many", "all"], "domain": "a"})
    had = {"few": list("ijklmi"), "many": list("ij"), "all": list("ijklmnop")}
    domains = [["a"] * len(taken) for taken in had.values()]
    sequences = pl.LazyFrame({"user_id": list(had), "domains": domains, "item_ids": list(had.values())})
    # Left to them: three, six and none. One rank is half of three, and three would be half of six.
    assert full_lists(now, users, sequences, items, 20) == {"a": pytest.approx(2 / 3)}
    # Five are available, of which the first has had three and the second one: one rank is half of two, not of four.
    available = items.filter(pl.col("item_id").is_in(list("iklop")))
    assert full_lists(now, users, sequences, available, 20) == {"a": pytest.approx(2 / 3)}
