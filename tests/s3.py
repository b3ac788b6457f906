"""A real S3 server on this machine: SeaweedFS, with keys that are checked."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import obstore
import pytest
from obstore.exceptions import BaseError
from obstore.store import S3Store

from tests.processes import background

WEED = Path(sys.executable).with_name("weed")
BUCKET = "bucket"
_OWNER = {"AWS_ACCESS_KEY_ID": "owner", "AWS_SECRET_ACCESS_KEY": "owner-secret"}
_READER = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "reader-secret"}
_STRANGER = {"AWS_ACCESS_KEY_ID": "stranger", "AWS_SECRET_ACCESS_KEY": "stranger-secret"}
_IDENTITIES = {
    "identities": [
        {
            "name": keys["AWS_ACCESS_KEY_ID"],
            "credentials": [{"accessKey": keys["AWS_ACCESS_KEY_ID"], "secretKey": keys["AWS_SECRET_ACCESS_KEY"]}],
            "actions": actions,
        }
        for keys, actions in ((_OWNER, ["Admin", "Read", "Write", "List"]), (_READER, ["Read", "List"]))
    ]
}


@dataclass(frozen=True)
class S3Server:
    """A running server and the variables that a program needs to use it."""

    endpoint: str
    filer: str
    """Address of its files' own protocol, for ``weed mount``."""

    @property
    def owner(self) -> dict[str, str]:
        """Variables of who may do everything."""
        return self._environment(_OWNER)

    @property
    def reader(self) -> dict[str, str]:
        """Variables of who may read."""
        return self._environment(_READER)

    @property
    def stranger(self) -> dict[str, str]:
        """Variables of whom the server does not know."""
        return self._environment(_STRANGER)

    def _environment(self, keys: dict[str, str]) -> dict[str, str]:
        return keys | {"AWS_ENDPOINT_URL": self.endpoint, "AWS_REGION": "us-east-1"}


@contextmanager
def serve_s3(folder: Path) -> Iterator[S3Server]:
    """Start a server with one bucket, and end it with the block."""
    config = folder / "s3.json"
    config.write_text(json.dumps(_IDENTITIES))
    # Each part takes a port of its own, and one for gRPC: name them all, so that two servers do not meet on defaults.
    parts = ("master", "volume", "filer", "s3")
    numbers = free_ports(2 * len(parts))
    ports = dict(zip(parts, numbers, strict=False))
    options = [f"-{part}.port={port}" for part, port in ports.items()]
    options += [f"-{part}.port.grpc={port}" for part, port in zip(parts, numbers[len(parts) :], strict=True)]
    options += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    options += [f"-dir={folder}", "-s3", f"-s3.config={config}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    options += ["-volume.max=20", "-master.volumeSizeLimitMB=64", "-master.telemetry=false"]
    log = folder / "s3.log"
    command = (str(WEED), "server", *options)
    server = S3Server(f"http://127.0.0.1:{ports['s3']}", f"127.0.0.1:{ports['filer']}.{numbers[len(parts) + 2]}")
    with background(log, os.environ | {"HOME": str(folder)}, *command) as process:
        deadline = time.monotonic() + 60
        while not _has_bucket(server):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"no S3 server:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield server
        # It holds nothing worth a clean end, which takes it 15 s.
        os.killpg(process.pid, signal.SIGKILL)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody uses, no two the same."""
    with ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in sockets]


def _has_bucket(server: S3Server) -> bool:
    """Make the bucket, and look whether objects can be put into it: volumes come a moment after the port."""
    options = {
        "endpoint": server.endpoint,
        "region": "us-east-1",
        "access_key_id": _OWNER["AWS_ACCESS_KEY_ID"],
        "secret_access_key": _OWNER["AWS_SECRET_ACCESS_KEY"],
    }
    try:
        httpx.get(server.endpoint, timeout=5)
        # A PUT on the bucket makes it: an object with no name, in a store whose bucket is the root.
        store = S3Store(BUCKET, config=options, client_options={"allow_http": True}, retry_config={"max_retries": 0})
        obstore.put(store, "ready", b"")
    except (httpx.TransportError, BaseError):
        return False
    obstore.delete(store, "ready")
    return True
