from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from semacdr.errors import AbsentError
from semacdr.store import Store
from semacdr.store.lineage import Direction, Lineage, State, Step, made_from
from semacdr.store.verify import verify
from tests.store.shelves import VECTORS, manifest, put, put_all


@pytest.fixture
def lineage() -> Lineage:
    """The diamond a → b, c → d; e is made from something that is gone, f from another b."""
    return Lineage(
        [
            manifest("a@2026.01.01"),
            manifest("b@2026.01.01", ["a@2026.01.01"]),
            manifest("c@2026.01.01", ["a@2026.01.01"]),
            manifest("d@2026.01.01", ["b@2026.01.01", "c@2026.01.01", "a@2026.01.01"]),
            manifest("e@2026.01.01", ["gone@2026.01.01", "d@2026.01.01"]),
            manifest("f@2026.01.01", {"b@2026.01.01": "other bytes"}),
        ]
    )


def test_up_gives_each_source_once_at_its_shortest_distance(lineage: Lineage):
    assert lineage.steps("d@2026.01.01", Direction.UP) == [
        Step(Direction.UP, 1, "a@2026.01.01", "d@2026.01.01", State.PUBLISHED),
        Step(Direction.UP, 1, "b@2026.01.01", "d@2026.01.01", State.PUBLISHED),
        Step(Direction.UP, 1, "c@2026.01.01", "d@2026.01.01", State.PUBLISHED),
    ]


def test_down_gives_what_was_made_from_it(lineage: Lineage):
    steps = lineage.steps("b@2026.01.01", Direction.DOWN)
    assert [(step.depth, step.reference, step.via, step.state) for step in steps] == [
        (1, "d@2026.01.01", "b@2026.01.01", State.PUBLISHED),
        (1, "f@2026.01.01", "b@2026.01.01", State.OTHER),
        (2, "e@2026.01.01", "d@2026.01.01", State.PUBLISHED),
    ]


def test_sources_that_are_gone_or_of_other_content_are_told(lineage: Lineage):
    assert lineage.state("gone@2026.01.01", "e@2026.01.01", Direction.UP) is State.GONE
    assert lineage.state("b@2026.01.01", "f@2026.01.01", Direction.UP) is State.OTHER
    assert lineage.steps("gone@2026.01.01", Direction.UP) == []
    assert [step.reference for step in lineage.steps("gone@2026.01.01", Direction.DOWN)] == ["e@2026.01.01"]


def test_with_ancestors_goes_all_the_way_up(lineage: Lineage):
    letters = {reference[0] for reference in lineage.with_ancestors(["d@2026.01.01"])}
    assert letters == {"a", "b", "c", "d"}
    assert lineage.with_ancestors([]) == set()


def test_lineage_of_thousands_of_steps_needs_no_stack():
    days = [
        f"x@{2000 + year:04}.{month:02}.{day:02}" for year in range(9) for month in range(1, 13) for day in range(1, 28)
    ]
    chain = Lineage([manifest(days[0]), *(manifest(b, [a]) for a, b in pairwise(days))])
    assert len(chain.steps(days[-1], Direction.UP)) == len(days) - 1


def test_source_that_was_removed_and_made_anew_is_the_version_made_anew():
    lineage = Lineage(
        [manifest("a@2026.01.02", fingerprint="same"), manifest("b@2026.01.01", {"a@2026.01.01": "same"})]
    )
    assert lineage.inputs("b@2026.01.01") == ["a@2026.01.02"]
    assert lineage.outputs("a@2026.01.02") == ["b@2026.01.01"]
    assert lineage.state("a@2026.01.02", "b@2026.01.01", Direction.UP) is State.PUBLISHED
    assert lineage.with_ancestors(["b@2026.01.01"]) == {"a@2026.01.02", "b@2026.01.01"}


def test_made_from_finds_what_was_removed_and_made_anew(tmp_path: Path):
    store = Store(tmp_path / "store")
    made = put_all(store)
    shutil.rmtree(made["embeddings"].path)
    with pytest.raises(AbsentError, match="no embeddings@"):
        made_from(store, made["recommendations"], "embeddings")
    assert [finding.problem for finding in verify(store, name="recommendations")] == [
        f"was made from {made['embeddings'].reference}, which is gone"
    ]
    anew = put(store, "embeddings", VECTORS, inputs=[made["interactions"], made["items"]])
    assert anew.reference != made["embeddings"].reference
    assert made_from(store, made["recommendations"], "embeddings").reference == anew.reference
    assert verify(store) == []
