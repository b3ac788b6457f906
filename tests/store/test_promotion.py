from __future__ import annotations

from pathlib import Path

import duckdb
import polars as pl
import pytest

from semacdr.errors import ConfigError, StoreError
from semacdr.manifest import Facts, fingerprint
from semacdr.store import Artifact, Draft, Store, rebuild_catalog
from semacdr.store.promotion import admit, formerly, known, promote, replaced, rollback
from tests.store.shelves import GATE_CHECKS, INTERACTIONS, RECOMMENDATIONS, put

EVENTS = INTERACTIONS.sort("domain", "user_id")
USER_VECTORS = pl.DataFrame(
    {
        "user_id": ["u"], "domain": ["a"], "vector": pl.Series([[1.0, 0.0]], dtype=pl.Array(pl.Float32, 2)),
        "weight_target": [1.0], "weight_source": [0.0], "weight_mixed": [0.0],
    }
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def gated(store: Store, key: int, *, passed: bool) -> Artifact:
    made = put(store, "interactions", EVENTS, key=key)
    judged(store, key, {made.reference: passed})
    return made


def judged(store: Store, key: int, verdicts: dict[str, bool]) -> Artifact:
    details = {
        name: {"passed": passed, "reasons": [] if passed else ["ndcg_10 fell"]} for name, passed in verdicts.items()
    }
    return put(store, "gate", GATE_CHECKS, table="gate_checks", key=key, details={"verdicts": details})


def history(store: Store, alias: str = "production") -> list[tuple[str, str]]:
    return [(move.version, move.reason) for move in store.alias_history("toy", "interactions", alias)]


def in_catalog(store: Store) -> list[tuple[str, ...]]:
    with duckdb.connect(str(store.catalog), read_only=True) as connection:
        return connection.execute("select version from aliases where alias = 'production' and is_now").fetchall()


def test_promote_moves_the_alias_and_the_catalog_knows(store: Store):
    artifact = gated(store, 1, passed=True)
    assert promote(store, artifact, "production", reason="first") is True
    assert promote(store, artifact, "production", reason="again") is False
    version = artifact.manifest.version
    assert history(store) == [(version, "first")]
    assert in_catalog(store) == [(version,)]


def test_artifact_without_a_gate_is_promoted(store: Store):
    assert promote(store, put(store, "interactions", EVENTS), "production")


def test_refused_artifact_is_not_promoted(store: Store):
    good, bad = gated(store, 1, passed=True), gated(store, 2, passed=False)
    promote(store, good, "production")
    with pytest.raises(ConfigError, match=r"refused by the gate(.*\n)+.*ndcg_10 fell(.*\n)+.*--override REASON"):
        promote(store, bad, "production", reason="no override")
    assert history(store) == [(good.manifest.version, "")]


def test_override_is_recorded(store: Store):
    bad = gated(store, 1, passed=False)
    promote(store, bad, "production", override="only games fell")
    assert history(store) == [(bad.manifest.version, "refused by the gate, overridden: only games fell")]


def test_last_verdict_counts(store: Store):
    artifact = gated(store, 1, passed=False)
    judged(store, 2, {artifact.reference: True})
    promote(store, artifact, "production", override="looked at")
    assert history(store) == [(artifact.manifest.version, "looked at")]


def test_admit_promotes_what_passed_and_nothing_twice(store: Store):
    first, second = (put(store, "interactions", EVENTS, key=key) for key in (1, 2))
    gate = judged(store, 1, {first.reference: True})
    assert admit(store, gate) == [first.reference]
    assert admit(store, gate) == []
    assert admit(store, judged(store, 2, {second.reference: False})) == []
    assert admit(store, judged(store, 3, {second.reference: True})) == [second.reference]
    rollback(store, "toy", "interactions", "production")
    assert admit(store, judged(store, 4, {second.reference: True})) == []
    assert [version for version, _ in history(store)] == [
        artifact.manifest.version for artifact in (first, second, first)
    ]
    assert history(store)[1][1].startswith("passed gate@")


def test_replaced_is_what_stood_in_production_before(store: Store):
    first, second = (put(store, "interactions", EVENTS, key=key) for key in (1, 2))
    assert replaced(store, first) is None
    promote(store, first, "production")
    assert replaced(store, first) is None
    for _ in range(2):
        before = replaced(store, second)
        assert before is not None
        assert before.reference == first.reference
        promote(store, second, "production")


def test_rollback_goes_back_once_and_the_second_undoes_it(store: Store):
    first, second = (gated(store, key, passed=True).manifest.version for key in (1, 2))
    for version in (first, second):
        store.move_alias("toy", "interactions", "production", version)
    before, now = rollback(store, "toy", "interactions", "production", reason="complaints")
    assert (before.version, now.version, now.reason) == (second, first, f"rollback from {second}: complaints")
    assert in_catalog(store) == [(first,)]
    rollback(store, "toy", "interactions", "production")
    assert history(store) == [
        (first, ""),
        (second, ""),
        (first, f"rollback from {second}: complaints"),
        (second, f"rollback from {first}"),
    ]


def test_rollback_without_a_version_before_is_refused(store: Store):
    version = gated(store, 1, passed=True).manifest.version
    with pytest.raises(ConfigError, match=r"no version to go back to\n.*no such alias"):
        rollback(store, "toy", "interactions", "production")
    store.move_alias("toy", "interactions", "production", version)
    with pytest.raises(ConfigError, match=f"it has only pointed at {version}"):
        rollback(store, "toy", "interactions", "production")


def test_rollback_to_a_version_that_is_gone_is_refused(store: Store):
    first, second = (gated(store, key, passed=True).manifest.version for key in (1, 2))
    for version in (first, second):
        store.move_alias("toy", "interactions", "production", version)
    store.remove_version("toy", "interactions", first)
    with pytest.raises(ConfigError, match=f"cannot go back to interactions@{first}"):
        rollback(store, "toy", "interactions", "production")
    assert history(store)[-1][0] == second


def test_rollback_that_somebody_overtakes_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch):
    first, second, third = (gated(store, key, passed=True).manifest.version for key in (1, 2, 3))
    for version in (first, second):
        store.move_alias("toy", "interactions", "production", version)
    manifests = store.manifests

    def overtake(dataset: str, name: str) -> object:
        store.move_alias("toy", "interactions", "production", third)
        return manifests(dataset, name)

    monkeypatch.setattr(store, "manifests", overtake)
    with pytest.raises(StoreError, match="moved by someone else"):
        rollback(store, "toy", "interactions", "production")
    assert history(store)[-1][0] == third


def test_what_is_broken_in_production_is_not_taken_for_nothing(store: Store):
    artifact = put(store, "interactions", EVENTS)
    assert known(store, "toy", "interactions", "production") is None
    assert known(store, "toy", "interactions", "2026.01.01") is None
    promote(store, artifact, "production")
    (artifact.path / "manifest.json").write_text("{}")
    with pytest.raises(StoreError, match="manifest"):
        known(Store(store.root), "toy", "interactions", "production")


def test_what_cannot_be_read_of_former_production_is_left_out(store: Store):
    made = [put(store, "interactions", EVENTS, key=key) for key in range(3)]
    for artifact in made:
        promote(store, artifact, "production")
    (made[1].path / "manifest.json").write_text("{}")
    assert [one.reference for one in formerly(Store(store.root), made[2], 5)] == [made[0].reference]


def test_promote_anew_mends_a_catalog_that_a_crash_kept_from_it(store: Store):
    artifact = put(store, "interactions", EVENTS)
    rebuild_catalog(store)
    store.move_alias("toy", "interactions", "production", artifact.manifest.version)
    assert in_catalog(store) == []
    assert promote(store, artifact, "production") is False
    assert in_catalog(store) == [(artifact.manifest.version,)]


def test_vectors_go_where_the_recommendations_go_that_they_were_published_with(store: Store):
    names = ("recommendations", "user_vectors")
    made = []
    for key in (1, 2):
        draft = Draft(
            dataset="toy",
            stage="recommendations",
            fingerprint=fingerprint(key),
            config={"key": key},
            sources={},
            inputs={},
        )
        with store.open_draft(draft, names):
            RECOMMENDATIONS.write_parquet(draft.folders["recommendations"] / "recommendations.parquet")
            USER_VECTORS.write_parquet(draft.folders["user_vectors"] / "user_vectors.parquet")
            made.append(store.publish(draft, Facts(rows_in=1)))

    def at() -> list[str]:
        return [store.aliases("toy", name)["production"] for name in names]

    for one in made:
        promote(store, one["recommendations"], "production")
        assert at() == [one[name].manifest.version for name in names]
    rollback(store, "toy", "recommendations", "production")
    assert at() == [made[0][name].manifest.version for name in names]
