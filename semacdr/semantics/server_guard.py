"""Runs a command as the leader of its process group and ends the whole group when our process is gone.

Run as a script (``server_guard.py PARENT_PID COMMAND...``), never imported: the parent may die by SIGKILL and can
then end nothing itself. Looking at the parent's id works from any thread; the kernel's parent-death signal comes when
the thread that started the child ends. Standard library only, so that any interpreter can run it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

LOOK_EVERY_S = 0.25
GRACE_S = 5.0
"""How long the group may take to end by itself once its parent is gone."""


def guard(parent: int, command: Sequence[str]) -> int:
    """Run the command; return its exit code, or end the group when ``parent`` is no longer our parent."""
    # SIGTERM to the group is meant for the server; the guard stays to see it end. A handler, unlike SIG_IGN, is not
    # inherited by the server.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with subprocess.Popen(command) as server:
        while os.getppid() == parent:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return server.wait(LOOK_EVERY_S)
        os.killpg(0, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(GRACE_S)
        os.killpg(0, signal.SIGKILL)  # ourselves, too
    raise AssertionError


if __name__ == "__main__":
    sys.exit(guard(int(sys.argv[1]), sys.argv[2:]))
