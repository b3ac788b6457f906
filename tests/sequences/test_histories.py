from __future__ import annotations

import math
import random
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from semacdr.dataset import Protocol, Split
from semacdr.errors import ConfigError, DataError
from semacdr.manifest import Facts
from semacdr.sequences import build
from semacdr.settings import DuckDbSettings
from semacdr.tables import check

LIMITS = DuckDbSettings(memory_limit="500MB", threads=2)
Event = tuple[str, str, str, int]
"""user, domain, item, time."""


def write(folder: Path, events: list[Event]) -> Path:
    frame = pl.DataFrame(
        events,
        schema={"user_id": pl.String, "domain": pl.String, "item_id": pl.String, "timestamp_s": pl.Int64},
        orient="row",
    ).with_columns(rating=pl.lit(None, pl.Float64))
    for (domain,), part in frame.partition_by("domain", as_dict=True).items():
        path = folder / "interactions" / f"domain={domain}" / "part-0.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_parquet(path)
    return folder


def run(
    folder: Path, events: list[Event], split: Split | None = None, limits: DuckDbSettings = LIMITS
) -> tuple[Facts, pl.DataFrame]:
    facts = build(split or Split(), write(folder / "in", events), folder / "out", limits)
    check("sequences", folder / "out")
    assert [path.name for path in (folder / "out").iterdir()] == ["sequences.parquet"]
    return facts, pl.read_parquet(folder / "out" / "sequences.parquet")


def oracle(events: list[Event], split: Split) -> tuple[int, int, dict[str, list[tuple[str, str, int, str, bool]]]]:
    """The same table in plain Python, from the wording of the protocol."""
    times = sorted(time for *_, time in events)
    first = times[math.floor((len(times) - 1) * split.validation_quantile)]
    second = times[math.floor((len(times) - 1) * split.test_quantile)]
    rows = defaultdict(list)
    seen = set()
    for user, domain, item, time in sorted(events, key=lambda event: (event[3], event[1], event[2])):
        part = "train" if time < first else "validation" if time < second else "test"
        target = part != "train" and (user, domain, part) not in seen
        seen.add((user, domain, part))
        rows[user].append((domain, item, time, part, target))
    return first, second, dict(sorted(rows.items()))


def as_rows(frame: pl.DataFrame) -> dict[str, list[tuple[str, str, int, str, bool]]]:
    return {user: list(zip(*lists, strict=True)) for user, *lists in frame.rows()}


def test_build_split_computed_by_hand_with_ties(tmp_path: Path):
    events = [
        ("ann", "b", "b1", 10), ("ann", "a", "a2", 10), ("ann", "a", "a1", 10), ("bob", "a", "a1", 20),
        ("bob", "c", "c1", 30), ("cy", "c", "c1", 40),
        ("ann", "a", "a9", 50), ("ann", "a", "a3", 50), ("ann", "b", "b2", 50),
        ("ann", "a", "a1", 60), ("bob", "a", "a5", 60),
    ]  # fmt: skip
    # 11 times: place floor(10 * 0.6) = 6 is 50, place floor(10 * 0.9) = 9 is 60.
    facts, frame = run(tmp_path, events, Split(validation_quantile=0.6, test_quantile=0.9))
    assert as_rows(frame) == {
        "ann": [
            ("a", "a1", 10, "train", False),
            ("a", "a2", 10, "train", False),
            ("b", "b1", 10, "train", False),
            ("a", "a3", 50, "validation", True),
            ("a", "a9", 50, "validation", False),
            ("b", "b2", 50, "validation", True),
            ("a", "a1", 60, "test", True),
        ],
        "bob": [
            ("a", "a1", 20, "train", False),
            ("c", "c1", 30, "train", False),
            ("a", "a5", 60, "test", True),
        ],
        "cy": [("c", "c1", 40, "train", False)],
    }
    assert facts.rows_in == 11
    assert facts.details == {
        "protocol": "gts",
        "t_validation_s": 50,
        "t_test_s": 60,
        "num_users": 3,
        "num_events": 11,
        "events": {
            "train": {"a": 3, "b": 1, "c": 2},
            "validation": {"a": 2, "b": 1, "c": 0},
            "test": {"a": 2, "b": 0, "c": 0},
        },
        "targets": {"validation": {"a": 1, "b": 1, "c": 0}, "test": {"a": 2, "b": 0, "c": 0}},
        "users_per_num_domains": {"1": 1, "2": 2},
    }


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["u1", "u2", "u3"]),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["i1", "i2", "i3"]),
        st.integers(0, 12),
    ),
    min_size=1,
    max_size=40,
    unique=True,
)
QUANTILES = st.tuples(st.floats(0.05, 0.95), st.floats(0.05, 0.95)).map(sorted).filter(lambda pair: pair[0] < pair[1])


@settings(max_examples=20, deadline=None)
@given(events=EVENTS, quantiles=QUANTILES)
def test_build_agrees_with_the_protocol_and_lets_no_future_in(events: list[Event], quantiles: list[float]):
    split = Split(validation_quantile=quantiles[0], test_quantile=quantiles[1])
    first, second, expected = oracle(events, split)
    counts = {part for rows in expected.values() for *_, part, _ in rows}
    with TemporaryDirectory() as folder:
        if counts != {"train", "validation", "test"}:
            with pytest.raises(DataError):
                run(Path(folder), events, split)
            return
        facts, frame = run(Path(folder), events, split)
    assert (facts.details["t_validation_s"], facts.details["t_test_s"]) == (first, second)
    found = as_rows(frame)
    assert found == expected
    for rows in found.values():
        assert rows == sorted(rows, key=lambda row: (row[2], row[0], row[1]))
        # Whatever a model trains on is older than every target of every user.
        assert all(time < first <= second for _, _, time, part, _ in rows if part == "train")
        assert all(time >= first for _, _, time, _, target in rows if target)


def random_events(count: int, seed: int = 1) -> list[Event]:
    rng = random.Random(seed)
    return sorted(
        {
            (f"u{rng.randrange(count // 8)}", rng.choice("abc"), f"i{rng.randrange(500)}", rng.randrange(10**6))
            for _ in range(count)
        }
    )


def test_build_is_byte_identical_whatever_order_threads_and_memory(tmp_path: Path):
    events = random_events(40_000)
    found = set()
    for number, limits in enumerate((LIMITS, DuckDbSettings(memory_limit="100MB", threads=1))):
        random.Random(number).shuffle(events)
        run(tmp_path / str(number), events, limits=limits)
        found.add((tmp_path / str(number) / "out" / "sequences.parquet").read_bytes())
    assert len(found) == 1


def test_build_history_is_kept_whole_across_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("semacdr.sequences.histories.EVENTS_PER_BATCH", 7)
    monkeypatch.setattr("semacdr.sequences.histories.USERS_PER_GROUP", 3)
    events = [("only", "a", f"i{n:03}", n) for n in range(100)] + random_events(400)
    _, frame = run(tmp_path, events, Split(max_length=1))
    assert as_rows(frame) == oracle(events, Split())[2]


@pytest.mark.parametrize(
    ("times", "empty", "advice"),
    [
        ([5, 5, 5, 5], "train, validation", "raise split.validation_quantile"),
        ([1, 2, 5, 5, 5, 5, 5, 5, 5, 5], "validation", "further apart"),
        ([1], "train, validation", "raise split.validation_quantile"),
    ],
)
def test_build_split_without_a_part_fails_and_says_which_quantile(
    tmp_path: Path, times: list[int], empty: str, advice: str
):
    events = [("u", "a", f"i{n}", time) for n, time in enumerate(times)]
    with pytest.raises(DataError) as caught:
        run(tmp_path, events)
    assert f"no events for {empty}\n" in str(caught.value)
    assert "set split.protocol to loo" in str(caught.value)
    assert advice in str(caught.value)
    assert f"{len(times)} events" in str(caught.value) or "8 events for test" in str(caught.value)


@pytest.mark.parametrize(("other", "warnings"), [("u9", 1), ("u0", 0)])
def test_build_warns_where_no_user_is_in_two_domains(tmp_path: Path, other: str, warnings: int):
    events = [(f"u{time}", "a", "i", time) for time in range(10)] + [(other, "b", "j", 9)]
    events = [event for event in events if event[:2] != ("u9", "a")]
    with capture_logs() as logs:
        run(tmp_path, events)
    assert sum("no user is in two domains" in log["event"] for log in logs) == warnings


@pytest.mark.parametrize("limit", ["much", "1KB"])
def test_build_impossible_memory_limit_is_named(tmp_path: Path, limit: str):
    with pytest.raises(ConfigError, match="memory"):
        run(tmp_path, [("u", "a", "i", 1)], limits=DuckDbSettings(memory_limit=limit))


LOO = Split(protocol=Protocol.LOO)


def test_build_leave_one_out_by_hand_with_ties(tmp_path: Path):
    events = [
        # One day, two domains: the order is time, domain, item.
        ("ann", "b", "b1", 10), ("ann", "a", "a2", 10), ("ann", "a", "a1", 10), ("ann", "a", "a9", 5),
        ("bob", "a", "a1", 20), ("bob", "b", "b1", 1),
        ("cy", "b", "b1", 99),
    ]  # fmt: skip
    facts, frame = run(tmp_path, events, LOO)
    assert as_rows(frame) == {
        "ann": [
            ("a", "a9", 5, "train", False),
            ("a", "a1", 10, "train", False),
            ("a", "a2", 10, "validation", True),
            ("b", "b1", 10, "test", True),
        ],
        "bob": [("b", "b1", 1, "validation", True), ("a", "a1", 20, "test", True)],
        "cy": [("b", "b1", 99, "test", True)],
    }
    assert facts.details["protocol"] == "loo"
    assert facts.details["targets"] == {"validation": {"a": 1, "b": 1}, "test": {"a": 1, "b": 2}}
    assert "t_test_s" not in facts.details


def test_build_leave_one_out_of_users_with_two_events_is_refused(tmp_path: Path):
    events = [("ann", "a", "a1", 1), ("ann", "a", "a2", 2), ("bob", "a", "a1", 3)]
    with pytest.raises(DataError, match=r"leave-one-out leaves no events for train"):
        run(tmp_path, events, LOO)
