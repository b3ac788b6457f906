"""A real network file system on this machine: the S3 server's files, mounted twice through FUSE."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.processes import background
from tests.s3 import WEED, S3Server


@contextmanager
def mount_twice(server: S3Server, folder: Path) -> Iterator[tuple[Path, Path]]:
    """Mount one folder of the server twice, and end both mounts with the block; skip where mounting is not allowed."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("cannot mount here: no /dev/fuse, or no right to use it")
    with ExitStack() as stack:
        first, second = (_mount(server, folder / name, stack) for name in ("one", "other"))
        yield first, second


def _mount(server: S3Server, folder: Path, stack: ExitStack) -> Path:
    point, log = folder / "mount", folder / "mount.log"
    point.mkdir(parents=True)
    options = (f"-filer={server.filer}", f"-dir={point}", f"-cacheDir={folder}", "-filer.path=/mounted")
    command = (str(WEED), "mount", *options, f"-localSocket={folder / 'socket'}")
    process = stack.enter_context(background(log, os.environ | {"HOME": str(folder)}, *command))
    deadline = time.monotonic() + 30
    while not point.is_mount():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.skip(f"cannot mount here:\n{log.read_text()[-1000:]}")
        time.sleep(0.05)
    # Also when somebody still waits for it: its program ends next, and he gets an error.
    stack.callback(subprocess.run, ["umount", "--lazy", str(point)], check=True)
    return point
