from __future__ import annotations

from semacdr.manifest import FileRecord
from semacdr.store.differences import Difference, compare
from tests.store.shelves import manifest


def file(path: str, bytes_: int, digest: str) -> FileRecord:
    return FileRecord(path=path, bytes=bytes_, sha256=digest)


BEFORE = manifest(
    "checkpoint@2026.01.01",
    ["items@2026.01.01", "sequences@2026.01.01"],
    config={"lr": 0.1, "layers": {"width": 64, "names": ["a"]}, "old": True},
    sources={"files": [{"file": "a.gz", "sha256": "1"}, {"file": "c.gz", "sha256": "3"}]},
    rows_in=10,
    rows_out={"history": 4},
    dropped={"no user": 1, "late": 2},
    files=(file("model", 5, "x"), file("same", 1, "s")),
    metrics={"ndcg_10": 0.5},
    code_commit="abc",
)
AFTER = manifest(
    "checkpoint@2026.01.02",
    ["items@2026.01.01", "sequences@2026.01.02"],
    config={"lr": 0.2, "layers": {"width": 64, "names": ["a", "b"]}},
    sources={
        "files": [{"file": "b.gz", "sha256": "2"}, {"file": "a.gz", "sha256": "1"}, {"file": "c.gz", "sha256": "4"}]
    },
    rows_in=12,
    rows_out={"history": 4},
    dropped={"no user": 3},
    files=(file("model", 5, "y"), file("same", 1, "s")),
    metrics={"ndcg_10": 0.25},
    code_commit="abc",
)


def test_compare_names_every_field_that_differs_and_no_other():
    assert compare(BEFORE, AFTER) == [
        Difference("config", "layers.names", ["a"], ["a", "b"]),
        Difference("config", "lr", 0.1, 0.2),
        Difference("config", "old", True, None),
        Difference("inputs", "sequences", "2026.01.01", "2026.01.02"),
        Difference("sources", "files.b.gz", None, {"file": "b.gz", "sha256": "2"}),
        Difference("sources", "files.c.gz.sha256", "3", "4"),
        Difference("counts", "rows_in", 10, 12),
        Difference("dropped", "late", 2, None),
        Difference("dropped", "no user", 1, 3),
        Difference("files", "model.sha256", "x", "y"),
        Difference("metrics", "ndcg_10", 0.5, 0.25),
    ]


def test_compare_with_itself_finds_nothing():
    assert compare(BEFORE, BEFORE) == []


def test_step_is_for_numbers_alone():
    assert Difference("counts", "rows_in", 10, 12).step == 2
    assert Difference("metrics", "ndcg_10", 0.5, 0.25).step == -0.25
    for before, after in ((True, False), (None, 3), ("a", "b"), ([1], [2])):
        assert Difference("config", "x", before, after).step is None


def test_inputs_of_one_version_and_other_content_differ():
    left = manifest("b@2026.01.01", {"a@2026.01.01": "one"})
    right = manifest("b@2026.01.02", {"a@2026.01.01": "two"})
    assert compare(left, right) == [
        Difference("inputs", "a", "2026.01.01 of fingerprint one", "2026.01.01 of fingerprint two")
    ]
