"""Processes that die at any point leave a store that is whole, and nothing that cannot be removed."""

from __future__ import annotations

import random
import signal

import duckdb
import pytest

from semacdr.store import Store, rebuild_catalog
from semacdr.store.names import RESERVED
from tests.store.actions import FORKS, act_for_ever, die_in_action, publish
from tests.store.conftest import Folder, Lab

DIED = 9


def check(lab: Lab) -> None:
    """Look at the store as the next process would, and clean up behind the dead one."""
    store = lab.open()
    survey = store.survey()
    assert survey.broken == {}
    assert [fault for manifest in survey.manifests for fault in store.faults(manifest)] == []
    assert store.get("toy", "interactions").manifest in survey.manifests
    for alias, version in store.aliases("toy", "interactions").items():
        assert store.get("toy", "interactions", alias).manifest.version == version
    if store.catalog.exists():
        with duckdb.connect(str(store.catalog), read_only=True) as connection:
            assert connection.execute("select count(*) from artifacts").fetchone() != (0,)
    for leftover in store.staging_leftovers():
        lab.open().remove_leftover(leftover)
    assert lab.open().staging_leftovers() == []
    versions = {f"toy/interactions/{manifest.version}" for manifest in survey.manifests}
    for key in lab.list():
        folder, _, name = key.rpartition("/")
        known = folder in versions or (folder == "toy/interactions" and name in {"current", "production"})
        assert known or key in RESERVED or key in {".lock", ".aliases.lock"}, key


def prepared(lab: Lab) -> Store:
    """Return a store of three versions: the first is current and the second in production, whatever it held before."""
    store = lab.open()
    base = [publish(store, key=key) for key in (-1, -2, -3)]
    for alias, version in zip(("current", "production"), base, strict=False):
        store.move_alias("toy", "interactions", alias, version)
    for manifest in store.manifests():
        if manifest.version not in base:
            store.remove_version("toy", "interactions", manifest.version)
    return store


def died_at_every_call(lab: Lab, action: str) -> int:
    """Let one process after the other die one call later, until one is done; return how many have died."""
    for number in range(1, 1000):
        # From the same state each time, so that the calls are the same too.
        prepared(lab)
        process = FORKS.Process(target=die_in_action, args=(lab.uri, lab.cache, lab.environment, action, number))
        process.start()
        process.join()
        check(lab)
        if process.exitcode != DIED:
            assert process.exitcode == 0
            return number - 1
    raise AssertionError("no end")


@pytest.mark.parametrize(
    ("action", "least"), [("publish", 55), ("move", 25), ("remove", 25), ("retire", 20), ("rebuild", 20)]
)
def test_folder_stays_whole_when_a_process_dies_between_two_calls(folder: Folder, action: str, least: int):
    count = died_at_every_call(folder, action)
    assert count >= least


@pytest.mark.slow
@pytest.mark.parametrize(
    ("action", "least"), [("publish", 12), ("move", 6), ("remove", 12), ("retire", 10), ("rebuild", 6)]
)
def test_bucket_stays_whole_when_a_process_dies_between_two_calls(bucket: Lab, action: str, least: int):
    count = died_at_every_call(bucket, action)
    assert count >= least


@pytest.mark.parametrize("rounds", [10, pytest.param(150, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_folder_stays_whole_when_a_process_is_killed_at_any_time(folder: Folder, rounds: int):
    rebuild_catalog(prepared(folder))
    rng = random.Random(7)
    for number in range(rounds):
        process = FORKS.Process(target=act_for_ever, args=(folder.uri, folder.cache, folder.environment, number))
        process.start()
        process.join(rng.uniform(0.05, 0.6))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        check(folder)
