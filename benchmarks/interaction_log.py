"""A synthetic log of one domain as gzipped JSON lines: users and items by a power law, times over three years."""

from __future__ import annotations

from pathlib import Path

import duckdb

TOML = """
name = "synthetic"

[domains.shop.interactions]
files = ["log.jsonl.gz"]
columns = {{ user_id = "user", item_id = "item", timestamp = "time", rating = "stars" }}

[filters]
max_reject_share = 0.5

[semantics.budget]
items = 0
"""


def write_log(folder: Path, rows: int, seed: float = 0.5) -> Path:
    """Write the log and its TOML; return the TOML. A tenth as many users as events, a fiftieth as many items."""
    folder.mkdir(parents=True)
    with duckdb.connect() as connection:
        connection.execute("select setseed($seed)", {"seed": seed})
        connection.execute("set threads = 1")
        connection.execute(
            """
            create temp table events as
            select
                'u' || cast(floor($users * power(random(), 2)) as bigint) as "user",
                'i' || cast(floor($items * power(random(), 3)) as bigint) as item,
                1600000000 + cast(random() * 94608000 as bigint) as time,
                1 + cast(floor(random() * 5) as integer) as stars
            from range($rows)
            """,
            {"users": max(1, rows // 10), "items": max(1, rows // 50), "rows": rows},
        )
        connection.execute(f"copy events to '{folder}/log.jsonl.gz' (format json, compression gzip)")
    toml = folder / "dataset.toml"
    toml.write_text(TOML.replace("{{", "{").replace("}}", "}"))
    return toml
