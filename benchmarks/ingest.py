"""Ingest against DuckDB's own copy of the same JSON lines to Parquet, and its time per row as the log grows.

    python -m benchmarks.ingest [--rows 1000000 5000000 20000000] [--memory 2GB] [--steps] [--quick]

Each measurement is a process of its own. Prints a table and one JSON line: the ratio of rates at the largest log.
``--steps``: beside it, what the last log costs up to some step, imports included. ``--quick``: 200,000 and 1,000,000
rows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.interaction_log import write_log

BAR = 0.9

OURS = """
import sys
from pathlib import Path
from semacdr.dataset import load_dataset
from semacdr.interactions import ingest
from semacdr.progress import Progress
from semacdr.settings import DuckDbSettings
toml, output, memory = sys.argv[1:]
outputs = {name: Path(output) / name for name in ("interactions", "items", "rejects")}
ingest(load_dataset(toml), outputs, DuckDbSettings(memory_limit=memory), Progress())
"""
THEIRS = """
import sys
from pathlib import Path
import duckdb
toml, output, memory = sys.argv[1:]
Path(output).mkdir(parents=True)
log = Path(toml).with_name("log.jsonl.gz")
with duckdb.connect(f"{output}/work.duckdb", config={"memory_limit": memory}) as connection:
    connection.execute(
        f"copy (select user, item, time, stars from read_json('{log}') order by user, time, item)"
        f" to '{output}/events.parquet' (format parquet)"
    )
"""
UP_TO = """
import sys
from pathlib import Path
import duckdb
from isal import igzip
from semacdr.database import read_sql
from semacdr.dataset import load_dataset
from semacdr.interactions.records import open_lines
from semacdr.interactions.sorting import in_order
from semacdr.interactions.staging import read_records
step, toml = sys.argv[1:]
config = load_dataset(toml)
log, source = Path(toml).with_name("log.jsonl.gz"), config.domains["shop"].interactions
files, advance = {0: log}, lambda _: None
limits = config.filters.model_dump(include={"min_timestamp_s", "max_timestamp_s"})
parameters = limits | {"until_s": None, "time_format": source.time_format, "units_per_second": 1}
fields = "max(user_id), max(item_id), max(timestamp), max(rating), max(fault), max(line)"
events = "max(user_id), max(item_id), max(timestamp_s), max(rating), max(place), max(refusal)"
judged = read_sql("ingest/judged_events")
with duckdb.connect() as connection:
    connection.execute("set timezone = 'UTC'")
    connection.execute(read_sql("ingest/macros"))
    if step == "bytes":
        with igzip.open(log) as file:
            while file.read(4 * 2**20):
                pass
    elif step == "lines":
        use = lambda: connection.execute("select max(text) from lines").fetchall()
        open_lines(files, advance).consume(connection, "lines", use)
    elif step == "fields":
        use = lambda: connection.execute(f"select {fields} from fields").fetchall()
        read_records(connection, "interactions", source, files, advance, use)
    elif step == "judged records":
        use = lambda: connection.execute(f"select {events} from ({judged})", parameters).fetchall()
        read_records(connection, "interactions", source, files, advance, use)
    elif step == "sorted records":
        def use():
            with connection.sql(judged, params=parameters).to_arrow_reader(100_000) as records:
                accepted = (batch.drop_columns("refusal") for batch in records)
                for batch in in_order(accepted, 10**9, log.with_name("sorted")):
                    pass
        read_records(connection, "interactions", source, files, advance, use)
    else:
        connection.execute(f"select max(user), max(item), max(time), max(stars) from read_json('{log}')").fetchall()
"""
STEPS = ("bytes", "lines", "fields", "judged records", "sorted records", "DuckDB's read_json")
MEASURED = """
import resource, sys, time
started = time.monotonic()
exec(sys.argv.pop(1))
used = resource.getrusage(resource.RUSAGE_SELF)
print(time.monotonic() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


def measure(script: str, *arguments: str) -> tuple[float, float, float]:
    """Return wall seconds, CPU seconds and peak memory in MiB."""
    command = [sys.executable, "-c", MEASURED, script, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    wall_s, cpu_s, peak_mb = (float(word) for word in done.stdout.split()[-3:])
    return wall_s, cpu_s, peak_mb


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 5_000_000, 20_000_000])
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--steps", action="store_true")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    sizes = [200_000, 1_000_000] if arguments.quick else arguments.rows
    load, ratio = os.getloadavg()[0], 0.0
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, load {load:.1f} before, limit {arguments.memory}")
    print("| rows | | wall s | CPU s | us CPU a row | peak MiB |\n| --- | --- | --- | --- | --- | --- |")
    for rows in sizes:
        with tempfile.TemporaryDirectory(prefix="semacdr-ingest-") as name:
            folder = Path(name)
            toml = str(write_log(folder / "log", rows))
            found = {
                who: measure(script, toml, str(folder / who), arguments.memory)
                for who, script in (("duckdb", THEIRS), ("semacdr", OURS))
            }
            if arguments.steps and rows == sizes[-1]:
                found |= {f"up to {step}": measure(UP_TO, step, toml) for step in STEPS}
        for who, (wall_s, cpu_s, peak_mb) in found.items():
            print(f"| {rows:,} | {who} | {wall_s:.1f} | {cpu_s:.1f} | {cpu_s / rows * 1e6:.2f} | {peak_mb:,.0f} |")
        ratio = found["duckdb"][0] / found["semacdr"][0]
    result = {"benchmark": "ingest", "ratio": round(ratio, 3), "bar": BAR, "holds": ratio >= BAR}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
