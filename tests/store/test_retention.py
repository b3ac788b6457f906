from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from semacdr.manifest import FileRecord, Manifest
from semacdr.store import Move
from semacdr.store.lineage import Lineage
from semacdr.store.retention import Plan, Rule, plan_removal
from tests.store.shelves import manifest

NOW = datetime(2026, 1, 10, 12, tzinfo=UTC)
NOTHING = Rule(keep_last=0)


def moves(*versions: str) -> list[Move]:
    return [Move(version, "2026-01-01T00:00:00+00:00") for version in versions]


def removed(plan: Plan) -> list[str]:
    return [m.reference for m in plan.remove]


def days(name: str, *days: int) -> list[Manifest]:
    return [manifest(f"{name}@2026.01.{day:02}") for day in days]


def test_without_any_reason_everything_goes():
    assert removed(plan_removal(days("a", 1, 2), {}, NOTHING, NOW)) == ["a@2026.01.02", "a@2026.01.01"]


def test_alias_keeps_its_version_and_the_one_that_a_rollback_would_take():
    histories = {"a": {"production": moves("2026.01.01", "2026.01.02", "2026.01.04")}}
    plan = plan_removal(days("a", 1, 2, 3, 4), histories, NOTHING, NOW)
    assert plan.keep == {"a@2026.01.04": "alias production", "a@2026.01.02": "rollback of production"}
    assert removed(plan) == ["a@2026.01.03", "a@2026.01.01"]


def test_keep_last_counts_by_name_and_by_number_of_the_version():
    known = [*(manifest(f"a@2026.01.01.{n}") for n in (2, 9, 10)), manifest("a@2026.01.01"), *days("b", 1)]
    plan = plan_removal(known, {}, Rule(keep_last=2), NOW)
    assert set(plan.keep) == {"a@2026.01.01.10", "a@2026.01.01.9", "b@2026.01.01"}
    assert removed(plan) == ["a@2026.01.01.2", "a@2026.01.01"]


def test_keep_days_counts_from_now_and_the_future_is_young():
    plan = plan_removal(days("a", 1, 8, 9, 20), {}, Rule(keep_last=0, keep_days=1.5), NOW)
    assert plan.keep == {"a@2026.01.20": "younger than 1.5 days", "a@2026.01.09": "younger than 1.5 days"}


def test_what_was_kept_keeps_all_it_was_made_from():
    known = [
        *days("a", 1, 2),
        manifest("b@2026.01.01", ["a@2026.01.01"]),
        manifest("c@2026.01.01", ["b@2026.01.01", "gone@2026.01.01"]),
    ]
    plan = plan_removal(known, {"c": {"current": moves("2026.01.01")}}, NOTHING, NOW)
    assert plan.keep == {
        "c@2026.01.01": "alias current",
        "a@2026.01.01": "c@2026.01.01 was made from it",
        "b@2026.01.01": "c@2026.01.01 was made from it",
    }
    assert removed(plan) == ["a@2026.01.02"]


def test_alias_of_a_version_that_is_gone_keeps_nothing():
    plan = plan_removal(days("a", 1), {"a": {"old": moves("2025.01.01")}}, NOTHING, NOW)
    assert plan.keep == {}


def test_bytes_are_those_of_what_goes():
    file = FileRecord(path="f", bytes=7, sha256="0")
    known = [manifest(f"a@2026.01.0{day}", files=(file, file)) for day in (1, 2)]
    assert plan_removal(known, {}, Rule(keep_last=1), NOW).bytes == 14


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sets(st.integers(0, 11))), max_size=12),
    st.sets(st.integers(0, 11)),
    st.integers(0, 2),
)
def test_no_kept_artifact_ever_loses_a_source(graph: list[tuple[int, set[int]]], pointed: set[int], keep_last: int):
    """Artifact n has a name out of four, and sources before it."""
    references = [f"{'abcd'[name]}@2026.01.{n + 1:02}" for n, (name, _) in enumerate(graph)]
    known = [
        manifest(references[n], [references[source] for source in sources if source < n])
        for n, (_, sources) in enumerate(graph)
    ]
    at = {references[n] for n in pointed if n < len(references)}
    histories = {name: {f"at-{v}": moves(v)} for name, v in (reference.split("@") for reference in sorted(at))}
    plan = plan_removal(known, histories, Rule(keep_last=keep_last), NOW)
    assert {*plan.keep, *removed(plan)} == set(references)
    assert not set(plan.keep) & set(removed(plan))
    assert {f"{name}@{m[-1].version}" for name, aliases in histories.items() for m in aliases.values()} <= set(
        plan.keep
    )
    assert Lineage(known).with_ancestors(plan.keep) == set(plan.keep)
    order = removed(plan)
    for n, m in enumerate(plan.remove):
        assert not set(m.inputs) & set(order[:n]), "a source went before what was made from it"
