"""A store on a network mount, used from two mount points as from two machines.

The mount shares neither locks nor caches between the two: publishing relies on renames alone.
"""

from __future__ import annotations

import random
import secrets
import signal
import time
from collections import Counter
from datetime import UTC, datetime
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from semacdr.errors import StoreError
from semacdr.store import Store, rebuild_catalog
from semacdr.store.prune import carry_out, plan_prune
from semacdr.store.retention import Rule
from semacdr.store.verify import verify
from tests.store.actions import EVENTS, FORKS, publish
from tests.store.test_readers import KEPT, read_until

pytestmark = pytest.mark.slow
Roots = tuple[str, str]
_JOIN_S = 60


@pytest.fixture
def roots(mounts: tuple[Path, Path]) -> Roots:
    """One store, as each of the two machines calls it."""
    name = f"store-{secrets.token_hex(6)}"
    one, other = (str(mount / name) for mount in mounts)
    return one, other


def race(roots: Roots, target: Any, *arguments: Any) -> None:  # noqa: ANN401
    """Let two processes of each machine do the same at once."""
    barrier = FORKS.Barrier(4)
    workers = [FORKS.Process(target=target, args=(roots[n % 2], barrier, n, *arguments)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(_JOIN_S)
    assert [worker.exitcode for worker in workers] == [0] * 4


def publish_fixed(root: str, barrier: Barrier, number: int, versions: list[str], report: Path, same: bool) -> None:
    """Publish each version at the same moment as the others do; write what came of it."""
    store = Store(root)
    for version in versions:
        barrier.wait(_JOIN_S)
        try:
            outcome = publish(store, key=(version, 0 if same else number), version=version)
        except StoreError as error:
            outcome = f"refused: {error.what}"
        (report / f"{version} {number}").write_text(outcome)


@pytest.mark.parametrize("same", [False, True])
def test_one_publisher_of_a_version_wins_and_the_others_learn_it(roots: Roots, tmp_path: Path, same: bool):
    versions = [f"2026.11.{day:02}" for day in range(1, 13)]
    race(roots, publish_fixed, versions, tmp_path, same)
    for version in versions:
        outcomes = Counter((tmp_path / f"{version} {number}").read_text() == version for number in range(4))
        assert outcomes[True] == (4 if same else 1)
    for root in roots:
        assert sorted(m.version for m in Store(root).manifests()) == versions
        assert verify(Store(root)) == []
        assert Store(root).staging_leftovers() == []


def publish_next(root: str, barrier: Barrier, number: int, count: int, report: Path) -> None:
    barrier.wait(_JOIN_S)
    versions = [publish(Store(root), key=(number, key)) for key in range(count)]
    (report / str(number)).write_text("\n".join(versions))


def test_publishers_on_two_machines_never_share_a_version(roots: Roots, tmp_path: Path):
    race(roots, publish_next, 5, tmp_path)
    published = [version for number in range(4) for version in (tmp_path / str(number)).read_text().split()]
    assert len(set(published)) == len(published) == 20
    for root in roots:
        # On a busy machine a mount lists what the other has made a moment later.
        deadline = time.monotonic() + _JOIN_S
        while len(known := Store(root).manifests()) < len(published) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert sorted(m.version for m in known) == sorted(published)
        assert len({m.fingerprint for m in known}) == len(published)
        assert verify(Store(root)) == []


def publish_for_ever(root: str, first: int) -> None:
    key = 0
    while True:
        publish(Store(root), key=(first, key))
        key += 1


def test_machine_that_dies_leaves_a_store_that_the_other_uses(roots: Roots):
    rng = random.Random(7)
    one, other = roots
    publish(Store(one))
    for number in range(15):
        process = FORKS.Process(target=publish_for_ever, args=(one, number))
        process.start()
        process.join(rng.uniform(0.1, 0.8))
        process.kill()
        process.join(_JOIN_S)
        assert process.exitcode == -signal.SIGKILL
        store = Store(other)
        assert store.survey().broken == {}
        publish(store, key=("other", number))
        deadline = time.monotonic() + _JOIN_S
        # What was under way as the process died may come late, and one mount may see late what the other removed.
        while leftovers := [*store.staging_leftovers(), *Store(one).staging_leftovers()]:
            assert time.monotonic() < deadline, leftovers
            for leftover in store.staging_leftovers():
                store.remove_leftover(leftover)
        assert verify(Store(other)) == []


def test_readers_on_one_machine_see_whole_versions_of_the_other(roots: Roots, tmp_path: Path):
    one, other = roots
    store = Store(one)
    rows = pl.concat([EVENTS.head(1)] * 50).with_columns(item_id=pl.int_range(10, 60).cast(pl.String))
    publish(store, rows)
    rebuild_catalog(store)
    stop = FORKS.Event()
    reports = [tmp_path / f"{number}.txt" for number in range(2)]
    readers = [FORKS.Process(target=read_until, args=(other, stop, report)) for report in reports]
    for reader in readers:
        reader.start()
    for number in range(20):
        publish(store, rows.with_columns(timestamp_s=pl.lit(number, pl.Int64)), key=("next", number))
        for manifest in store.manifests()[:-KEPT]:
            store.retire_version("toy", "interactions", manifest.version)
        rebuild_catalog(store)
    stop.set()
    for reader in readers:
        reader.join(_JOIN_S)
    assert [report.read_text().splitlines()[1:] for report in reports] == [[], []]


def test_catalog_and_prune_of_one_machine_serve_the_other(roots: Roots):
    one, other = (Store(root) for root in roots)
    for key in range(3):
        publish(one, key=key)
    rebuild_catalog(other)
    carry_out(other, plan_prune(other, Rule(keep_last=1), grace_s=0, now=datetime.now(UTC)))
    # The current version and the one that a rollback would lead to.
    assert len(Store(roots[1]).manifests()) == 2
    # What one machine removes, the other sees a moment later: each has a cache.
    deadline = time.monotonic() + _JOIN_S
    while len(Store(roots[0]).manifests()) != 2:
        assert time.monotonic() < deadline
    carry_out(one, plan_prune(one, Rule(keep_last=1), grace_s=0, now=datetime.now(UTC)))
    with duckdb.connect(str(one.catalog), read_only=True) as connection:
        assert connection.execute("select count(*) from artifacts").fetchone() == (2,)
        assert connection.execute("select count(*) from interactions_versions").fetchone() == (4,)
    assert verify(one) == verify(other) == []
    assert one.staging_leftovers() == other.staging_leftovers() == []
