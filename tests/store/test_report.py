"""What a run prints of a store, on stores of both kinds."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from semacdr.report import next_commands
from semacdr.store import rebuild_catalog
from tests.store.conftest import Lab
from tests.store.shelves import put_all


def test_commands_to_try_next_work_as_printed(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    store = lab.open()
    put_all(store)
    rebuild_catalog(store)
    recommendations, artifacts, _ = next_commands(store, "toy", "u")
    assert (" sql " in artifacts) == lab.uri.startswith("s3://")
    for command, shown in ((recommendations, "r1"), (artifacts, "version")):
        run = subprocess.run(
            command, shell=True, cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert (run.returncode, shown in run.stdout) == (0, True), run.stderr
