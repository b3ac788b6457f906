"""A synthetic log as gzipped JSON lines: users and items by a power law, times over three years, one file a domain.

No LLM is asked, and the split leaves training one event in a thousand: what is measured is the rest.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

HEAD = """
name = "synthetic"

[filters]
max_reject_share = 0.5

[split]
validation_quantile = 0.001
test_quantile = 0.002

[semantics.budget]
items = 0

[training]
overrides = { max_epochs = 1, dim = 64 }
"""
DOMAIN = """
[domains.{name}.interactions]
files = ["{log}"]
columns = {{ user_id = "user", item_id = "item", timestamp = "time", rating = "stars" }}
"""
ITEMS = """
[domains.{name}.items]
files = ["{name}-items.jsonl"]
columns = {{ item_id = "item", title = "title" }}
"""


def write_log(folder: Path, rows: int, seed: float = 0.5) -> Path:
    """Write one domain and its TOML; return the TOML. A tenth as many users as events, a fiftieth as many items."""
    folder.mkdir(parents=True)
    _write_events(folder / "log.jsonl.gz", rows, max(1, rows // 10), max(1, rows // 50), seed)
    return _write_toml(folder, DOMAIN.format(name="shop", log="log.jsonl.gz"))


def write_domains(folder: Path, rows: int, users: int, items: int, domains: int) -> Path:
    """Write that many events and items in all, cut into domains of the same users, each item with a title."""
    folder.mkdir(parents=True)
    body = ""
    for number in range(domains):
        name = f"shop{number}"
        _write_events(folder / f"{name}.jsonl.gz", rows // domains, users, items // domains, 0.5 / (number + 1))
        titles = (
            f'{{"item": "i{item}", "title": "thing {number} of kind {item}"}}\n' for item in range(items // domains)
        )
        (folder / f"{name}-items.jsonl").write_text("".join(titles), encoding="utf-8")
        body += DOMAIN.format(name=name, log=f"{name}.jsonl.gz") + ITEMS.format(name=name)
    return _write_toml(folder, body)


def _write_toml(folder: Path, domains: str) -> Path:
    toml = folder / "dataset.toml"
    toml.write_text(HEAD + domains, encoding="utf-8")
    return toml


def _write_events(path: Path, rows: int, users: int, items: int, seed: float) -> None:
    with duckdb.connect() as connection:
        connection.execute("set enable_progress_bar = false")
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
            {"users": users, "items": items, "rows": rows},
        )
        connection.execute(f"copy events to '{path}' (format json, compression gzip)")
