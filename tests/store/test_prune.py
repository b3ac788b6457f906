from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from semacdr.errors import StoreError
from semacdr.store import Draft, Store, rebuild_catalog
from semacdr.store.prune import carry_out, plan_prune
from semacdr.store.retention import Rule
from tests.store.shelves import INTERACTIONS, put

EVENTS = INTERACTIONS.sort("domain", "user_id")
NOTHING = Rule(keep_last=0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Four versions; ``current`` points at the last, and would roll back to the third."""
    store = Store(tmp_path / "store")
    for key in range(4):
        put(store, "interactions", EVENTS, key=key)
    rebuild_catalog(store)
    return store


def versions(store: Store) -> list[str]:
    return [manifest.version for manifest in Store(store.root).manifests()]


def prune(store: Store, *, grace_s: float = 1e6, rule: Rule = NOTHING) -> None:
    carry_out(store, plan_prune(store, rule, grace_s=grace_s, now=datetime.now(UTC)))


def test_plan_touches_nothing(store: Store):
    before = versions(store)
    plan = plan_prune(store, NOTHING, grace_s=0, now=datetime.now(UTC))
    assert [m.version for m in plan.manifests] == before[1::-1]
    assert versions(store) == before


def test_prune_takes_out_what_nothing_needs(store: Store):
    before = versions(store)
    prune(store)
    assert versions(store) == before[2:]
    with duckdb.connect(str(store.catalog), read_only=True) as connection:
        found = connection.execute("select distinct version from interactions_versions order by all").fetchall()
    assert found == [(version,) for version in before[2:]]


def test_readers_from_before_a_prune_go_on_until_the_grace_time_is_over(store: Store):
    old = store.get("toy", "interactions", versions(store)[0])
    with duckdb.connect(str(store.catalog), read_only=True) as reader:
        prune(store)
        assert reader.execute("select count(*) from interactions_versions").fetchone() == (4 * len(EVENTS),)
        assert old.scan().collect().equals(EVENTS)
        prune(store)
        assert old.scan().collect().equals(EVENTS)
        prune(store, grace_s=0)
        assert not old.path.exists()
        # What is current reads on, even through a catalog that was opened before all that.
        assert reader.execute("select count(*) from interactions").fetchone() == (len(EVENTS),)


def test_leftovers_of_a_dead_run_go_when_they_are_old_enough(store: Store):
    dead = store.root / ".staging" / "ingest-1-dead"
    dead.mkdir()
    (dead / "half.parquet").write_bytes(b"half")
    rule = Rule(keep_last=9)
    prune(store, rule=rule)
    assert dead.exists()
    prune(store, rule=rule, grace_s=0)
    assert not dead.exists()
    assert len(versions(store)) == 4


def test_the_draft_of_a_run_that_lives_is_no_leftover_however_long_it_is_silent(store: Store):
    draft = Draft(dataset="toy", stage="training", fingerprint="f", config={}, sources={}, inputs={})
    with store.open_draft(draft, ["interactions"]):
        prune(store, grace_s=0)
        assert draft.folders["interactions"].is_dir()
        (folder,) = (store.root / ".staging").iterdir()
        (folder / ".in-use").rename(folder / ".was-in-use")
        prune(store, grace_s=0)
        assert not folder.exists()


def test_catalog_of_a_crashed_prune_is_mended_before_files_go(store: Store):
    first = versions(store)[0]
    store.retire_version("toy", "interactions", first)  # and then the process died
    prune(store, rule=Rule(keep_last=9), grace_s=0)
    with duckdb.connect(str(store.catalog), read_only=True) as connection:
        assert connection.execute("select count(distinct version) from interactions_versions").fetchone() == (3,)


def test_version_that_is_promoted_meanwhile_stays(store: Store):
    first, second, *_ = versions(store)
    plan = plan_prune(store, NOTHING, grace_s=0, now=datetime.now(UTC))
    store.move_alias("toy", "interactions", "production", first)
    with pytest.raises(StoreError, match="in use and stays"):
        carry_out(store, plan)
    assert first in versions(store)
    assert second not in versions(store)


def test_nothing_goes_of_a_data_set_with_a_manifest_that_cannot_be_read(store: Store):
    put(store, "interactions", EVENTS, dataset="other")
    before = versions(store)
    (store.get("toy", "interactions").path / "manifest.json").write_text("{}")
    plan = plan_prune(Store(store.root), NOTHING, grace_s=0, now=datetime.now(UTC))
    assert plan.manifests == []
    assert list(plan.plans) == ["other"]
    assert plan.held == {"toy": f"toy/interactions/{before[3]}"}
