"""Print the pins of a lock that images need: not those of what only developers use.

    .venv/bin/python infra/image_pins.py requirements/cpu.lock

`make hashes` runs it. Who needs whom is read from the packages that `make setup` installed.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def needed(*extras: str) -> set[str]:
    """Return the names of the packages that semacdr with these extras needs, and of those that they need."""
    seen: set[tuple[str, str]] = set()
    waiting = [("semacdr", extra) for extra in extras]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            lines = requires(name) or []
        except PackageNotFoundError:  # one of another platform
            continue
        for need in map(Requirement, lines):
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(need.name), wanted) for wanted in ("", *need.extras)]
    return {name for name, _ in seen}


if __name__ == "__main__":
    left_out = needed("dev") - needed("cpu", "ray", "dask")
    for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines():
        name = re.match(r"[\w.-]+", line)
        if name and canonicalize_name(name[0]) not in left_out:
            print(line)
