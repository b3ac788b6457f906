"""RecTools on the same events, in an environment of its own with pandas 2.

pip install "rectools[torch]==0.19.0" "pandas<3"
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

from semacdr.model.histories import Events


def run_rectools(python: Path, script: str, events: Events, arguments: tuple[float, ...]) -> dict[str, Any]:
    """Run a script on a file of the events (user_id, item_id, datetime); return what its last line says, as JSON.

    Args:
        python: of that environment.
        script: its text; the file is its first argument.
        events: all that it may see.
        arguments: those after the file.
    """
    table = pl.DataFrame({"user_id": events.user, "item_id": events.item, "datetime": events.time_s * 1000})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "events.parquet"
        table.with_columns(pl.col("datetime").cast(pl.Datetime("ms"))).write_parquet(file)
        command = [str(python), "-c", script, str(file), *map(str, arguments)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(answer.strip().splitlines()[-1])
    return found
