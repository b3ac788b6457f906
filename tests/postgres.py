"""A real PostgreSQL of a test's own, from Debian's package: initialised in a folder, on a free port, ended with it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import free_port


@contextmanager
def postgres() -> Iterator[str]:
    """Yield the URL of an empty database as SQLAlchemy writes it; skips the test where PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if not found:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    programs = found[-1].parent
    user = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="semacdr-postgres-"))

    def run(program: str, *arguments: str) -> None:
        command = [str(programs / program), *arguments]
        subprocess.run(command, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL)

    try:
        if user:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        port, data = free_port(), str(folder / "data")
        run("initdb", "--pgdata", data, "--username", "prefect", "--auth", "trust", "--no-sync")
        options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off"
        run("pg_ctl", "start", "--pgdata", data, "--wait", "--options", options, "--log", str(folder / "log"))
        try:
            yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "stop", "--pgdata", data, "--mode", "immediate")
    finally:
        shutil.rmtree(folder)
