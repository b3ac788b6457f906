from __future__ import annotations

import re

import pytest

from tests.processes import PROJECT


def pins(path: str) -> set[str]:
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s\\]+)", (PROJECT / "requirements" / path).read_text(), re.MULTILINE)
    return {f"{re.sub(r'[-_.]+', '-', name.lower())}=={version}" for name, version in found}


@pytest.mark.parametrize(("lock", "left_out"), [("cpu", {"torch==2.13.0"}), ("gpu", set())])
def test_hashed_lock_pins_what_the_lock_pins(lock: str, left_out: set[str]):
    assert pins(f"{lock}.hashes") == pins(f"{lock}.lock") - left_out, "run `make hashes`"
