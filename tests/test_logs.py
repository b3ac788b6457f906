from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import logging, sys, structlog
from semacdr.logs import JsonLines, configure_logging
handler = logging.StreamHandler(sys.stdout)
handler.setFormatter(JsonLines("default"))
logging.basicConfig(level=logging.INFO, handlers=[handler])
configure_logging(form="json")
with structlog.contextvars.bound_contextvars(run="r1", stage="ingest", release="0.1.0"):
    structlog.get_logger().bind(dataset="toys").info("published", rows_out=3, dropped={"no time": 1})
try:
    1 / 0
except ZeroDivisionError:
    structlog.get_logger().exception("broken")
    logging.getLogger("prefect.flow_runs").exception("two\\nlines", extra={"flow_run_id": "r1"})
"""


def test_each_line_is_one_json_object_whoever_logs():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    published, broken, prefect = (json.loads(line) for line in done.stdout.splitlines())
    assert published.pop("timestamp").endswith("Z")
    assert published == {
        "event": "published", "level": "info", "run": "r1", "stage": "ingest", "release": "0.1.0", "dataset": "toys",
        "rows_out": 3, "dropped": {"no time": 1},
    }  # fmt: skip
    assert "ZeroDivisionError" in broken["exception"]
    assert (prefect["event"], prefect["logger"], prefect["run"]) == ("two\nlines", "prefect.flow_runs", "r1")
    assert "ZeroDivisionError" in prefect["exception"]
