"""How large the page of a finished store is, and what it costs to make.

    python -m benchmarks.report --store STORE --dataset NAME

The store must have gone through every stage but ``report``; nothing is published. Makes the page twice: the first
time libraries are imported. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

from semacdr.manifest import file_sha256
from semacdr.pipeline import find_stage
from semacdr.reports import report
from semacdr.store import Store
from semacdr.tables import REPORT_PAGE

BAR_MB = 5.0


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", required=True)
    parser.add_argument("--dataset", required=True)
    arguments = parser.parse_args()
    store = Store(arguments.store)
    inputs = {name: store.get(arguments.dataset, name) for name in find_stage("report").inputs}
    print(f"load {os.getloadavg()[0]:.1f}; s, CPU s, MB, users, items, sha256")
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            started, cpu = time.monotonic(), time.process_time()
            details = report([inputs["evaluation"]], inputs, Path(folder)).details
            took, cpu_took = time.monotonic() - started, time.process_time() - cpu
            digest = file_sha256(Path(folder) / REPORT_PAGE)[:12]
            megabytes = details["bytes"] / 1e6
            print(f"{took:.1f}, {cpu_took:.1f}, {megabytes:.2f}, {details['users']}, {details['items']}, {digest}")
    print(f"most memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    result = {"benchmark": "report", "value": megabytes, "bar": BAR_MB, "holds": megabytes <= BAR_MB}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
