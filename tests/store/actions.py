"""What tests let stores do in processes of their own. Nothing here may start a thread when it is imported."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import obstore
import polars as pl

from semacdr.manifest import Facts, fingerprint
from semacdr.store import CURRENT, Draft, Store, rebuild_catalog

FORKS = multiprocessing.get_context("forkserver")
"""Makes processes in milliseconds: each is a fork of one that has imported everything and started no thread."""
FORKS.set_forkserver_preload([__name__])

EVENTS = pl.DataFrame(
    {"user_id": ["u", "v"], "domain": ["a", "a"], "item_id": ["i", "j"], "timestamp_s": [1, 2], "rating": [None, 4.5]}
)


def publish(
    store: Store,
    frame: pl.DataFrame = EVENTS,
    *,
    key: object = 1,
    dataset: str = "toy",
    version: str | None = None,
    alias: str = CURRENT,
) -> str:
    """Publish one interactions artifact and return its version."""
    draft = Draft(
        dataset=dataset, stage="ingest", fingerprint=fingerprint(key), config={"key": key}, sources={}, inputs={}
    )
    with store.open_draft(draft, ["interactions"]):
        frame.write_parquet(draft.folders["interactions"] / "interactions.parquet")
        facts = Facts(rows_in=3, dropped={"no user": 1}, metrics={"ndcg_10": 0.5})
        return store.publish(draft, facts, version=version, alias=alias)["interactions"].manifest.version


def publish_many(uri: str, cache: Path, environment: dict[str, str], keys: list[int]) -> None:
    os.environ.update(environment)
    for key in keys:
        publish(Store(uri, cache), key=key)


def act(store: Store, action: str, key: int) -> None:
    """Do one thing to a store that has two versions or more."""
    if action == "publish":
        publish(store, key=key)
    elif action == "rebuild":
        rebuild_catalog(store)
    elif action == "move":
        at = store.aliases("toy", "interactions")["production"]
        others = [m.version for m in store.manifests("toy", "interactions") if m.version != at]
        store.move_alias("toy", "interactions", "production", others[key % len(others)])
    else:
        held = set(store.aliases("toy", "interactions").values())
        free = [m for m in store.manifests("toy", "interactions") if m.version not in held]
        (store.remove_version if action == "remove" else store.retire_version)("toy", "interactions", free[-1].version)


def die_in_action(uri: str, cache: Path, environment: dict[str, str], action: str, number: int) -> None:
    """Do one thing, and end as by SIGKILL before its call ``number`` to the file system or the bucket; 0 if it is done.

    Calls are counted by Python's audit events, and fsync, which has none; those of DuckDB and Polars are not.
    """
    os.environ.update(environment)
    store = Store(uri, cache)
    count = itertools.count(1)

    def next_call() -> None:
        if next(count) == number:
            os._exit(9)

    if uri.startswith("s3://"):
        for name in ("put", "get", "head", "list", "list_with_delimiter", "delete"):
            setattr(obstore, name, _counted(getattr(obstore, name), next_call))
    else:
        os.fsync = _counted(os.fsync, next_call)
        sys.addaudithook(_audit(uri, next_call))
    act(store, action, number)
    os._exit(0)


def act_for_ever(uri: str, cache: Path, environment: dict[str, str], first: int) -> None:
    """Publish, move, remove and rebuild until somebody ends it."""
    os.environ.update(environment)
    store = Store(uri, cache)
    for key in itertools.count(first):
        for step, action in enumerate(("publish", "move", "publish", "rebuild", "remove", "retire")):
            act(store, action, key if action == "move" else hash((first, key, step)))


def _counted(function: Callable[..., Any], next_call: Callable[[], None]) -> Callable[..., Any]:
    @wraps(function)
    def counted(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        next_call()
        return function(*arguments, **options)

    return counted


def _audit(root: str, next_call: Callable[[], None]) -> Callable[[str, tuple[Any, ...]], None]:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        # Deleting a tree opens folders by names below an open one; modules and devices have absolute paths elsewhere.
        path = str(arguments[0]) if arguments else ""
        if event in _CHANGES or (event == "open" and (path.startswith(root) or not path.startswith("/"))):
            next_call()

    return hook


_CHANGES = {
    "fcntl.flock",
    "os.listdir",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.scandir",
    "os.utime",
}
