from __future__ import annotations

import numpy as np
import polars as pl

from semacdr.embeddings.probe import probe_domains


def world(num_items: int, apart: float, source: str = "generated") -> tuple[pl.DataFrame, np.ndarray]:
    """Vectors whose specific view tells the domain apart, and whose agnostic view is noise."""
    rng = np.random.default_rng(0)
    rows = pl.DataFrame(
        {
            "domain": [domain for domain in "abc" for _ in range(2 * num_items)],
            "item_id": [f"{domain}{item}" for domain in "abc" for item in range(num_items) for _ in range(2)],
            "view": ["agnostic", "specific"] * (3 * num_items),
            "source": source,
        }
    )
    vectors = rng.normal(size=(rows.height, 16)).astype(np.float32)
    for place, domain in enumerate("abc"):
        told = ((rows["domain"] == domain) & (rows["view"] == "specific")).to_numpy()
        vectors[told, place] += apart
    return rows, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_probe_tells_domains_by_what_sets_them_apart():
    found = probe_domains(*world(200, apart=8))["llm_texts"]
    assert found["specific"] > 0.95
    assert abs(found["agnostic"] - found["chance"]) < 0.06
    assert found["chance"] == round(1 / 3, 4)
    assert found["items_per_domain_specific"] == 200


def test_probe_is_the_same_for_the_same_seed():
    rows, vectors = world(60, apart=2)
    assert probe_domains(rows, vectors, seed=1) == probe_domains(rows, vectors, seed=1)


def test_probe_of_own_words_alone_is_told_apart_from_the_llms():
    assert set(probe_domains(*world(30, apart=2, source="fallback"))) == {"all_texts"}


def test_probe_of_one_domain_or_of_few_items_is_skipped():
    rows, vectors = world(30, apart=2)
    one = (rows["domain"] == "a").to_numpy()
    assert probe_domains(rows.filter(one), vectors[one]) == {}
    assert probe_domains(*world(10, apart=2)) == {}
