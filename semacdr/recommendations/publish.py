"""The recommendations stage: the top items of each domain for each user, and the vectors they come from.

Users are read, ranked and written a shard at a time, so memory does not grow with them. A shard that is finished lies
in the run's own folder until all are: a run that was killed goes on with the next.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import torch
from threadpoolctl import threadpool_limits

from semacdr import tables
from semacdr.dataset import Recommendations
from semacdr.manifest import Facts
from semacdr.model.checkpoint import LoadedModel
from semacdr.model.histories import Events, events_of, queries_at
from semacdr.model.present import last_event_s
from semacdr.progress import Progress
from semacdr.recommendations.cold import cold_shares
from semacdr.recommendations.last import Last
from semacdr.recommendations.lists import Lister, Ranked
from semacdr.recommendations.rows import rows_of
from semacdr.recommendations.serving import Serving, open_serving
from semacdr.spread import Advance, Shard, Spread, here
from semacdr.tables import scan_files, table_files

# Shapes: Q queries (one per user and domain), I items, D model width.

USERS_PER_SHARD = 10_000
TABLES = ("user_vectors", "recommendations")


@dataclass(frozen=True)
class Run:
    """Where a run works, and what it takes over; only ``last`` shapes what comes out, where the config asks for it."""

    shards: Path
    """A folder of this run's own, for finished shards; where they are spread over machines, all of them have it."""
    last: Last | None = None
    """The last version, if it was made by the same rules from the same checkpoint."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch and BLAS work in one thread: sums of several differ in their last digits, and so would the bytes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


@one_thread()
@torch.inference_mode()
def recommend_all(
    config: Recommendations,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    run: Run,
    progress: Progress,
    spread: Spread = here,
) -> Facts:
    """Rank every domain for every user as of the end of the log, shard by shard.

    A domain with fewer than ``top_k`` items that the user may get gives fewer ranks.

    Args:
        config: how many ranks, and of what.
        inputs: folders of ``sequences`` and of what ``open_serving`` takes.
        outputs: folders of recommendations, user_vectors and item_vectors.
        run: where finished shards lie.
        progress: counts users.
        spread: where the shards of users are ranked.

    Raises:
        ConfigError: the availability is no condition in SQL.
        DataError: the checkpoint does not fit the items, or a domain has no available item.
    """
    folders = tuple(sorted(inputs.items()))
    serving = _serving(config, folders)
    model = serving.lister.model
    _write_item_vectors(model, outputs["item_vectors"])
    files = table_files(inputs["sequences"], "sequences")
    num_users = sum(pq.read_metadata(file).num_rows for file in files)
    now_s = last_event_s(inputs["sequences"]) + 1
    last = run.last if config.users == "new_events" else None
    for table in TABLES:
        (run.shards / table).mkdir(parents=True, exist_ok=True)
    with progress.task("recommend", total=num_users) as task:
        parts = {f"part-{number:05d}.parquet": users for number, users in enumerate(_parts(files))}
        open_parts = {name: users for name, users in parts.items() if not _is_whole(run.shards, name)}
        task.advance(sum(len(users.rows) for name, users in parts.items() if name not in open_parts))
        work = Work(config, folders, run.shards, last, now_s)
        shards = [Shard(name, (work, name, users), len(users.rows)) for name, users in open_parts.items()]
        for _ in spread(recommend_users, shards, task.advance):
            pass
    _serving.cache_clear()
    for table in TABLES:
        shutil.copytree(run.shards / table, outputs[table] / table)
    shutil.rmtree(run.shards)
    present = serving.lister.scorer.present
    details: dict[str, Any] = {
        "as_of_s": now_s,
        "top_k": config.top_k,
        "domains": list(model.vocabulary.domains),
        "zero_shot_domains": list(model.zero_shot_domains),
        "new_items": serving.new_items,
        "available_items": int(serving.lister.available.sum()),
        "memory": None if present is None else {"events": int(present.support_R.sum()), "last_event_s": present.last_s},
        "users_ranked": _users_as_of(outputs["recommendations"], now_s),
        "cold": (
            cold := cold_shares(
                model.vocabulary.domains, inputs["items"], inputs["sequences"], outputs["recommendations"]
            )
        ),
    }
    shown = {name: value for name, value in cold["all"].items() if value is not None}
    return Facts(rows_in=num_users, details=details, metrics={f"cold_share_{name}": v for name, v in shown.items()})


@dataclass(frozen=True)
class Users:
    """Some users: rows of a file of ``sequences``."""

    file: Path
    rows: range


def _parts(files: list[Path]) -> Iterator[Users]:
    for file in files:
        num_rows = pq.read_metadata(file).num_rows
        for start in range(0, num_rows, USERS_PER_SHARD):
            yield Users(file, range(start, min(start + USERS_PER_SHARD, num_rows)))


@dataclass(frozen=True)
class Work:
    """What all shards of a run share."""

    config: Recommendations
    folders: tuple[tuple[str, Path], ...]
    shards: Path
    last: Last | None
    now_s: int


@one_thread()
@torch.inference_mode()
def recommend_users(work: Work, name: str, users: Users, *, advance: Advance) -> None:
    """Write the shard of some users. ``advance`` takes users."""
    scan = scan_files(users.file)
    sequences = scan.slice(users.rows.start, len(users.rows)).collect()
    serving = _serving(work.config, work.folders)
    _write_shard(work.shards, name, _shard(serving, sequences, work.now_s, work.config.top_k, work.last))
    advance(sequences.height)


@lru_cache(maxsize=1)
def _serving(config: Recommendations, folders: tuple[tuple[str, Path], ...]) -> Serving:
    """Load what ranks, once in a process."""
    return open_serving(config, dict(folders))


def _is_whole(folder: Path, name: str) -> bool:
    # A run that was killed while it removed its shards has left some files of them.
    return all((folder / table / name).exists() for table in TABLES)


def _write_shard(folder: Path, name: str, frames: Mapping[str, pl.DataFrame]) -> None:
    """Put both tables' files in place."""
    for table in TABLES:
        partial = folder / f"{table}-{name}.tmp"
        frames[table].write_parquet(partial)
        partial.replace(folder / table / name)


def _write_item_vectors(model: LoadedModel, output: Path) -> None:
    vectors_ID = model.items.vector_RD[1:].numpy()
    weights_I3 = model.items.weight_R3[1:].numpy().astype(np.float64)
    model.vocabulary.table.select(
        "domain",
        "item_id",
        pl.Series("vector", vectors_ID, dtype=pl.Array(pl.Float32, vectors_ID.shape[1])),
        pl.Series("weight_agnostic", weights_I3[:, 0]),
        pl.Series("weight_specific", weights_I3[:, 1]),
        pl.Series("weight_id", weights_I3[:, 2]),
    ).write_parquet(output / "item_vectors.parquet")


def _shard(
    serving: Serving, sequences: pl.DataFrame, now_s: int, top_k: int, last: Last | None
) -> dict[str, pl.DataFrame]:
    lister = serving.lister
    if last is None:
        return rank_users(lister, sequences, now_s, top_k)
    kept = last.unchanged(sequences, lister.model.vocabulary, lister.available)
    anew = sequences.join(kept["user_vectors"].select("user_id"), on="user_id", how="anti")
    fresh = rank_users(lister, anew, now_s, top_k)
    order = {"user_vectors": ("user_id", "domain"), "recommendations": ("user_id", "domain", "rank")}
    return {table: pl.concat([kept[table], fresh[table]]).sort(*order[table]) for table in TABLES}


def rank_users(lister: Lister, sequences: pl.DataFrame, now_s: int, top_k: int) -> dict[str, pl.DataFrame]:
    """Return the rows of ``user_vectors`` and ``recommendations`` of some users, as of a time."""
    model = lister.model
    events: Events = events_of(sequences, model.vocabulary)
    num_domains = len(model.vocabulary.domains)
    user_Q = np.repeat(np.arange(events.num_users), num_domains)
    domain_Q = np.tile(np.arange(num_domains), events.num_users)
    queries = queries_at(events, user_Q, domain_Q, np.full(len(user_Q), now_s))
    states = model.user_states(events, queries)
    names = pl.DataFrame(
        {"user_id": events.user_ids[user_Q], "domain": pl.Series(model.vocabulary.domains, dtype=pl.String)[domain_Q]}
    )
    weight_Q3 = states.weight_Q3.numpy().astype(np.float64)
    vector_QD = states.vector_QD.numpy()
    user_vectors = names.with_columns(
        pl.Series("vector", vector_QD, dtype=pl.Array(pl.Float32, vector_QD.shape[1])),
        *(pl.Series(f"weight_{history}", weight_Q3[:, n]) for n, history in enumerate(("target", "source", "mixed"))),
    )
    lists = Ranked.joined(lister.rank(events, queries, states.vector_QD, top_k))
    ranked = rows_of(model, names, events, states, lists, lister.scorer.columns)
    ranked = ranked.with_columns(as_of_s=pl.lit(now_s, pl.Int64))
    # Both in the order of users, domains and ranks: queries are.
    return {"user_vectors": user_vectors, "recommendations": ranked.select(list(tables.Recommendations.columns()))}


def _users_as_of(recommendations: Path, now_s: int) -> int:
    # No user is in two shards.
    return sum(
        scan_files(file).filter(pl.col("as_of_s") == now_s).select(pl.col("user_id").n_unique()).collect().item()
        for file in table_files(recommendations, "recommendations")
    )
