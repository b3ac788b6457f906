"""A small data set on disk: three domains in three formats, users who are in one, two or all of them."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import polars as pl

DOMAINS = ("books", "films", "games")
_TOPICS = ("dragons", "detectives", "robots", "gardens", "oceans", "trains")
_KINDS = {"books": "novel", "films": "movie", "games": "board game"}

TOML = """
name = "three-domains"

[domains.books]
label = "books"
expert = "a bookseller"
interactions = { files = ["books-*.jsonl.gz"], columns = { user_id = "user", item_id = "item", timestamp = "time" } }
items = { files = ["books.jsonl.gz"], columns = { item_id = "item", title = "title", brand = "maker" } }

[domains.films.interactions]
files = ["films.csv"]
columns = { user_id = "user", item_id = "item", timestamp = "time", rating = "stars" }

[domains.films.items]
files = ["film-items.csv"]
columns = { item_id = "item", title = "title" }

[domains.games.interactions]
files = ["games.parquet"]
columns = { user_id = "user", item_id = "item", timestamp = "time" }

[semantics.budget]
items = 6

[training]
overrides = { max_epochs = 3, dim = 16 }
"""


def write_raw_logs(folder: Path, *, num_users: int = 60, num_items: int = 24, seed: int = 0) -> Path:
    """Write the logs and their TOML; every user keeps to one topic over all domains. Games have no item file."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    events: dict[str, list[dict]] = {domain: [] for domain in DOMAINS}
    for user in range(num_users):
        topic = user % len(_TOPICS)
        visited = [domain for n, domain in enumerate(DOMAINS) if user % 4 == 3 or n in (user % 3, (user // 3) % 3)]
        for domain in visited:
            on_topic = [item for item in range(num_items) if item % len(_TOPICS) == topic]
            for item in rng.permutation(on_topic)[:4].tolist() + rng.integers(0, num_items, 3).tolist():
                time = 1_600_000_000 + int(rng.integers(0, 300)) * 86_400
                events[domain].append({"user": f"u{user:03d}", "item": f"{domain[0]}{item:02d}", "time": time})
    items = {
        domain: [
            {
                "item": f"{domain[0]}{item:02d}",
                "title": f"A {_KINDS[domain]} about {_TOPICS[item % len(_TOPICS)]}, volume {item}",
                "maker": f"Maker{item % 5}",
            }
            for item in range(num_items)
        ]
        for domain in DOMAINS
    }
    half = len(events["books"]) // 2
    for number, rows in enumerate((events["books"][:half], events["books"][half:])):
        _write_jsonl(folder / f"books-{number}.jsonl.gz", rows)
    _write_jsonl(folder / "books.jsonl.gz", items["books"])
    _write_csv(folder / "films.csv", [row | {"stars": 4} for row in events["films"]])
    _write_csv(folder / "film-items.csv", items["films"][:-2])
    pl.DataFrame(events["games"]).write_parquet(folder / "games.parquet")
    toml = folder / "dataset.toml"
    toml.write_text(TOML)
    return toml


def _write_jsonl(path: Path, rows: list[dict]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _write_csv(path: Path, rows: list[dict]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
