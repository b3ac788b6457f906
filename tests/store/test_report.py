"""What a run prints of a store, on stores of both kinds."""

from __future__ import annotations

import subprocess
from contextlib import nullcontext
from pathlib import Path

import duckdb
import polars as pl
import pytest

from semacdr.manifest import Facts
from semacdr.report import example_user, next_commands
from semacdr.store import Draft, Store, rebuild_catalog
from semacdr.tables import Semantics, SemanticsAudit
from tests.store.conftest import Lab
from tests.store.shelves import put_all


def put_semantics(store: Store) -> None:
    """Publish one generated text, of item ``i``."""
    rows = [
        {"domain": "a", "item_id": "i", "view": view, "text": view, "source": "generated", "text_hash": "x"}
        for view in ("agnostic", "specific")
    ]
    draft = Draft(dataset="toy", stage="semantics", fingerprint="1", config={}, sources={}, inputs={})
    with store.open_draft(draft, ["semantics"]):
        folder = draft.folders["semantics"]
        schema = Semantics.create_empty().cast({pl.Enum: pl.String}).schema
        pl.DataFrame(rows, schema=schema).write_parquet(folder / "semantics.parquet")
        SemanticsAudit.create_empty().write_parquet(folder / "semantics_audit.parquet")
        store.publish(draft, Facts())


def test_example_user_has_events_in_most_domains(lab: Lab):
    store = lab.open()
    put_all(store)
    put_semantics(store)
    user, history, recommended = example_user(store, "toy")
    assert user == "u"
    assert history.select("domain", "item_id", "title").rows() == [("a", "i", "A i"), ("b", "k", "(no title)")]
    assert recommended.select("domain", "rank", "item_id", "specific_text", "text_source").rows() == [
        ("a", 1, "j", None, None),
        ("b", 1, "k", None, None),
        ("a", 2, "i", "specific", "generated"),
    ]


def test_commands_to_try_next_work_as_printed(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    store = lab.open()
    put_all(store)
    rebuild_catalog(store)
    recommendations, artifacts, _ = next_commands(store, "toy", "u")
    on_s3 = lab.uri.startswith("s3://")
    assert (" sql " in artifacts) == on_s3
    with nullcontext() if on_s3 else duckdb.connect(str(store.catalog), read_only=True):  # somebody else who reads
        for command, shown in ((recommendations, "r1"), (artifacts, "version")):
            run = subprocess.run(
                command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
            )
            assert (run.returncode, shown in run.stdout) == (0, True), run.stderr
