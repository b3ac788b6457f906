"""A data set of two domains whose artifacts are published by hand, without raw files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from semacdr.manifest import Facts
from semacdr.store import Draft, Store

TOML = """
name = "toy"

[domains.books.interactions]
files = ["none.jsonl"]
columns = { user_id = "user", item_id = "item", timestamp = "time" }

[domains.films.interactions]
files = ["none.jsonl"]
columns = { user_id = "user", item_id = "item", timestamp = "time" }

[split]
max_length = 20

[training]
preset = "semacdr"

[training.overrides]
dim = 8
num_blocks = 1
batch_users = 16
max_epochs = 2
patience = 1
learning_rate = 5e-3
or_mixed_alone = false
"""


def publish(store: Store, name: str, fill: Callable[[Path], object], facts: Facts | None = None) -> None:
    """Publish an artifact of the data set ``toy``; ``fill`` writes its files."""
    draft = Draft(dataset="toy", stage="ingest", fingerprint=name, config={}, sources={}, inputs={})
    with store.open_draft(draft, [name]):
        fill(draft.folders[name])
        store.publish(draft, facts or Facts())
