"""The recommendations stage: the top items of each domain for each user, and the vectors they come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
import torch

from semacdr.dataset import Recommendations
from semacdr.manifest import Facts
from semacdr.model.checkpoint import LoadedModel, load_checkpoint
from semacdr.model.histories import Events, queries_at, read_events
from semacdr.model.scorer import FinalScorer
from semacdr.model.semacdr import UserStates
from semacdr.progress import Progress
from semacdr.spread import Advance, Shard, Spread, here
from semacdr.tables import table_files

# Shapes: Q queries (one per user and domain), I items of one domain, K ranks, D model width.

_USERS_PER_SHARD = 20_000
_QUERIES_PER_BLOCK = 256
_HISTORIES = ("its own domain's history", "the other domains' histories", "the mixed history")
_VIEWS = ("agnostic view", "specific view", "ID")


@torch.inference_mode()
def recommend_all(
    config: Recommendations,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    progress: Progress,
    spread: Spread = here,
) -> Facts:
    """Rank every domain for every user as of the end of the log, shard by shard.

    A domain with fewer than ``top_k`` items that the user has not had gives fewer ranks.

    Args:
        config: how many ranks.
        inputs: folders of checkpoint, sequences and items.
        outputs: folders of recommendations, user_vectors and item_vectors.
        progress: counts users.
        spread: where the shards of users are ranked.

    Raises:
        DataError: the checkpoint does not fit the items.
    """
    model, events = _loaded(inputs["checkpoint"], inputs["sequences"])
    items = pl.read_parquet(
        table_files(inputs["items"], "items"), columns=["domain", "item_id"], hive_partitioning=False
    )
    model.check_items(items)
    _write_item_vectors(model, outputs["item_vectors"])
    now_s = int(events.time_s.max()) + 1
    for table in ("recommendations", "user_vectors"):
        (outputs[table] / table).mkdir()
    starts = range(0, events.num_users, _USERS_PER_SHARD)
    parts = [range(start, min(start + _USERS_PER_SHARD, events.num_users)) for start in starts]
    shards = [
        Shard(f"part {number}", (config, dict(inputs), dict(outputs), number, users), len(users))
        for number, users in enumerate(parts)
    ]
    with progress.task("recommend", total=events.num_users) as task:
        for _ in spread(recommend_users, shards, task.advance):
            pass
    _loaded.cache_clear()
    return Facts(
        rows_in=events.num_users,
        details={"as_of_s": now_s, "top_k": config.top_k, "domains": list(model.vocabulary.domains)},
    )


@torch.inference_mode()
def recommend_users(
    config: Recommendations,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    number: int,
    users: range,
    *,
    advance: Advance,
) -> None:
    """Write the part of that number: the recommendations and vectors of some users. ``advance`` takes users."""
    model, events = _loaded(inputs["checkpoint"], inputs["sequences"])
    now_s = int(events.time_s.max()) + 1
    user_vectors, ranked = _shard(model, events, np.asarray(users), now_s, config.top_k)
    shard = f"part-{number:05d}.parquet"
    user_vectors.write_parquet(outputs["user_vectors"] / "user_vectors" / shard)
    ranked.write_parquet(outputs["recommendations"] / "recommendations" / shard)
    advance(len(users))


@lru_cache(maxsize=1)
def _loaded(checkpoint: Path, sequences: Path) -> tuple[LoadedModel, Events]:
    """Load a model and all events, once in a process."""
    model = load_checkpoint(checkpoint)
    return model, read_events(sequences, model.vocabulary)


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
    model: LoadedModel, events: Events, users: np.ndarray, now_s: int, top_k: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    num_domains = len(model.vocabulary.domains)
    user_Q = np.repeat(users, num_domains)
    domain_Q = np.tile(np.arange(num_domains), len(users))
    queries = queries_at(events, user_Q, domain_Q, np.full(len(user_Q), now_s))
    states = model.user_states(events, queries)
    scorer = model.scorer(events, queries, states)
    names = pl.DataFrame(
        {
            "user_id": events.user_ids[user_Q],
            "domain": pl.Series(model.vocabulary.domains)[domain_Q],
        }
    )
    weight_Q3 = states.weight_Q3.numpy().astype(np.float64)
    vector_QD = states.vector_QD.numpy()
    user_vectors = names.with_columns(
        pl.Series("vector", vector_QD, dtype=pl.Array(pl.Float32, vector_QD.shape[1])),
        *(pl.Series(f"weight_{history}", weight_Q3[:, n]) for n, history in enumerate(("target", "source", "mixed"))),
    )
    ranked = pl.concat(
        [
            _ranked(names, states, model, chosen, score_QK, item_QK)
            for chosen, score_QK, item_QK in _top_items(model, events, scorer, user_Q, domain_Q, top_k)
        ]
    )
    return user_vectors.sort("user_id", "domain"), ranked.sort("user_id", "domain", "rank")


def _top_items(
    model: LoadedModel, events: Events, scorer: FinalScorer, user_Q: np.ndarray, domain_Q: np.ndarray, top_k: int
) -> Iterator[tuple[np.ndarray, torch.Tensor, torch.Tensor]]:
    """Yield, for some queries of one domain, scores and ``item_index`` of their best unseen items."""
    for domain, (start, stop) in enumerate(model.vocabulary.bounds):
        of_domain = np.flatnonzero(domain_Q == domain)
        for begin in range(0, len(of_domain), _QUERIES_PER_BLOCK):
            chosen = of_domain[begin : begin + _QUERIES_PER_BLOCK]
            score_QI = scorer(chosen, domain)
            for row, user in enumerate(user_Q[chosen]):
                seen = events.item[events.offsets[user] : events.offsets[user + 1]]
                score_QI[row, seen[(seen >= start) & (seen < stop)] - start] = -torch.inf
            best = score_QI.topk(min(top_k, stop - start), dim=1)
            yield chosen, best.values, best.indices + start


def _ranked(
    names: pl.DataFrame,
    states: UserStates,
    model: LoadedModel,
    chosen: np.ndarray,
    score_QK: torch.Tensor,
    item_QK: torch.Tensor,
) -> pl.DataFrame:
    num_ranks = score_QK.shape[1]
    score = score_QK.flatten().double().numpy()
    item = item_QK.flatten().numpy()
    user_ND = states.vector_QD[chosen].repeat_interleave(num_ranks, dim=0)
    trained = (user_ND * model.items.vector_RD[item]).sum(dim=1).double().numpy()
    rows = names[np.repeat(chosen, num_ranks)]
    table = rows.select(
        "user_id",
        "domain",
        pl.Series("rank", np.tile(np.arange(1, num_ranks + 1), len(chosen))),
        model.vocabulary.table["item_id"].gather(item - 1).alias("item_id"),
        pl.Series("score", score),
        pl.Series("trained_score", trained),
        pl.Series("reason", _reasons(states.weight_Q3[chosen], model.items.weight_R3[item], num_ranks)),
    )
    # An item that the user has had stands at the end with -inf where the domain has too few others.
    return table.filter(np.isfinite(score))


def _reasons(history_Q3: torch.Tensor, view_R3: torch.Tensor, num_ranks: int) -> list[str]:
    share_Q, history_Q = history_Q3.max(dim=1)
    share_R, view_R = view_R3.max(dim=1)
    texts = [
        f"most weight on {_HISTORIES[which]} ({share:.0%})" if share > 0 else "no history: what most people start with"
        for share, which in zip(share_Q.tolist(), history_Q.tolist(), strict=True)
    ]
    return [
        f"{texts[row // num_ranks]} and the item's {_VIEWS[which]} ({share:.0%})"
        for row, (share, which) in enumerate(zip(share_R.tolist(), view_R.tolist(), strict=True))
    ]
