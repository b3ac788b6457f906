"""Readers in other processes, while versions come and go."""

from __future__ import annotations

import os
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import duckdb
import polars as pl
import pytest

from semacdr.store import Store, rebuild_catalog
from tests.store.actions import EVENTS, FORKS, publish
from tests.store.conftest import Folder

KEPT = 3
GRACE_S = 20.0
"""How long a retired version's files stay: longer than a query, on a machine with more processes than cores too."""


def read_until(root: str, stop: Event, report: Path) -> None:
    """Query the catalog and the current Parquet until told to stop; write how often, and what was wrong."""
    store, reads, longest_s, faults = Store(root), 0, 0.0, []
    while not stop.is_set():
        started = time.monotonic()
        try:
            with duckdb.connect(str(store.catalog), read_only=True) as connection:
                current = connection.execute(
                    "select count(*), count(distinct timestamp_s) from interactions"
                ).fetchone()
                torn = connection.execute(
                    "select version from interactions_versions group by version"
                    " having count(*) <> 50 or count(distinct timestamp_s) <> 1"
                ).fetchall()
            frame = store.get("toy", "interactions").scan().collect()
            if current != (50, 1) or torn or frame.shape[0] != 50 or frame["timestamp_s"].n_unique() != 1:
                faults.append(f"torn: {current} {torn} {frame.shape}")
        except Exception as error:  # noqa: BLE001 (the test shows them all)
            faults.append(f"{type(error).__name__} after {time.monotonic() - started:.1f} s: {error}")
        reads += 1
        longest_s = max(longest_s, time.monotonic() - started)
    report.write_text("\n".join([f"{reads} reads, the longest {longest_s:.1f} s", *faults]))
    os._exit(0)


@pytest.mark.parametrize("versions", [15, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_readers_see_whole_versions_while_they_come_and_go(folder: Folder, tmp_path: Path, versions: int):
    store = folder.open()
    rows = pl.concat([EVENTS.head(1)] * 50).with_columns(item_id=pl.int_range(10, 60).cast(pl.String))
    publish(store, rows)
    rebuild_catalog(store)
    stop = FORKS.Event()
    reports = [tmp_path / f"{number}.txt" for number in range(4)]
    readers = [FORKS.Process(target=read_until, args=(folder.uri, stop, report)) for report in reports]
    for reader in readers:
        reader.start()
    for number in range(versions):
        publish(store, rows.with_columns(timestamp_s=pl.lit(number, pl.Int64)), key=("next", number))
        for manifest in store.manifests()[:-KEPT]:
            store.retire_version("toy", "interactions", manifest.version)
        rebuild_catalog(store)
        for leftover in store.staging_leftovers():
            if leftover.kind == "retired" and leftover.age_s > GRACE_S:
                store.remove_leftover(leftover)
    stop.set()
    for reader in readers:
        reader.join()
    found = [report.read_text().splitlines() for report in reports]
    assert [lines[1:] for lines in found] == [[]] * 4
    assert sum(int(lines[0].split()[0]) for lines in found) >= 4
