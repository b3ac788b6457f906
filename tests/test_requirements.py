from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.processes import PROJECT


def pins(text: str) -> set[str]:
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s\\]+)", text, re.MULTILINE)
    return {f"{re.sub(r'[-_.]+', '-', name.lower())}=={version}" for name, version in found}


@pytest.mark.parametrize(("lock", "left_out"), [("cpu", {"torch==2.13.0"}), ("gpu", set())])
def test_hashed_lock_pins_what_images_need_of_the_lock(lock: str, left_out: set[str]):
    command = [sys.executable, "infra/image_pins.py", f"requirements/{lock}.lock"]
    needed = pins(subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout)
    assert pins((PROJECT / "requirements" / f"{lock}.hashes").read_text()) == needed - left_out, "run `make hashes`"
    names = {pin.split("==")[0] for pin in needed}
    assert {"torch", "prefect-ray", "prefect-dask", f"faiss-{lock}", "transformers"} <= names
    assert not {"pytest", "playwright", "mypy", "ruff"} & names
