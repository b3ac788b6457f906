"""Users with their histories, targets and lists, and what is known of every item in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
import polars as pl

from semacdr.store import Artifact
from semacdr.tables import View

USERS = 100
"""A drawn sample; half of it has a history in several domains, as far as there are such users."""
EVENTS, RANKS = 10, 10
"""Of each domain: the last events, and the first items of the list."""
MOST_BYTES = 3_000_000
"""Of users and items as JSON; users beyond it are left out."""
_TITLE_CHARS, _TEXT_CHARS = 120, 400
_KEYS = ["domain", "item_id"]
_WEIGHTS = ("agnostic", "specific", "id")
_THREADS = ("target", "source", "mixed")

Item = tuple[str, str]


def explorer(
    inputs: Mapping[str, Artifact], evaluations: Sequence[Artifact], model: str, seed: int = 0
) -> dict[str, Any]:
    """Return users and items; users name items by their places in the list of items.

    Args:
        inputs: ``recommendations``, ``user_vectors``, ``item_vectors``, ``sequences``, ``semantics`` and ``items``.
        evaluations: the ranks of the targets are those of ``model`` there, if it is one of them.
        model: the name of the checkpoint's model.
        seed: of the sample.
    """
    chosen = _sample(inputs, seed)
    records = list(_users(inputs, evaluations, model, chosen))
    described = _items(inputs, {item for record in records for item in _mentioned(record)})
    items: dict[Item, int] = {}
    users: list[dict[str, Any]] = []
    size = 0
    for record in records:
        new = [item for item in _mentioned(record) if item not in items]
        size += len(orjson.dumps(record)) + sum(len(orjson.dumps(described[item])) for item in new)
        if size > MOST_BYTES:
            break
        for item in new:
            items.setdefault(item, len(items))
        users.append(_by_place(record, items))
    return {"model": model, "users": users, "items": [described[item] for item in items]}


def _sample(inputs: Mapping[str, Artifact], seed: int) -> list[str]:
    """Users with a list, in the order in which they were drawn, those of several domains and the others by turns."""
    known = inputs["sequences"].scan().select("user_id", several=pl.col("domains").list.n_unique() > 1)
    listed = inputs["user_vectors"].scan().select("user_id").unique()
    users = known.join(listed, on="user_id", how="semi").sort("user_id").collect()
    rng = np.random.default_rng(seed)
    groups = [
        rng.permutation(users.filter(pl.col("several") == several)["user_id"].to_numpy()).tolist()
        for several in (True, False)
    ]
    turns = [(place, group, user) for group, found in enumerate(groups) for place, user in enumerate(found[:USERS])]
    return [user for _, _, user in sorted(turns)[:USERS]]


def _users(
    inputs: Mapping[str, Artifact], evaluations: Sequence[Artifact], model: str, chosen: list[str]
) -> Iterator[dict[str, Any]]:
    of_chosen = pl.col("user_id").is_in(chosen)
    histories = {row["user_id"]: row for row in inputs["sequences"].scan().filter(of_chosen).collect().to_dicts()}
    ranks = _ranks(evaluations, model, of_chosen)
    lists = (
        inputs["recommendations"].scan().filter(of_chosen, pl.col("rank") <= RANKS).sort("user_id", "domain", "rank")
    )
    by_user = lists.collect().partition_by("user_id", as_dict=True)
    shares = inputs["user_vectors"].scan().filter(of_chosen).sort("user_id", "domain").collect()
    shares = shares.select("user_id", "domain", *(f"weight_{thread}" for thread in _THREADS))
    of_user = shares.partition_by("user_id", as_dict=True)
    for user in chosen:
        recommended = by_user.get((user,))
        yield {
            "user_id": user,
            "history": _history(histories[user], ranks),
            "shares": {row[1]: [round(share, 3) for share in row[2:]] for row in of_user[user,].rows()},
            "lists": _lists(recommended) if recommended is not None else {},
        }


def _ranks(
    evaluations: Sequence[Artifact], model: str, of_chosen: pl.Expr
) -> dict[tuple[str, str, str], tuple[int, int]]:
    """Rank and number of candidates of each target: of the model's first seed."""
    for one in evaluations:
        rows = one.scan("evaluation_ranks").filter(pl.col("model") == model, of_chosen).collect()
        if rows.height:
            first = rows.filter(pl.col("seed") == rows["seed"].min())
            keys = first.select("user_id", "domain", "item_id").rows()
            places = first.select("rank", "num_candidates").rows()
            return {
                (user, domain, item): (rank, of) for (user, domain, item), (rank, of) in zip(keys, places, strict=True)
            }
    return {}


def _history(row: dict[str, Any], ranks: Mapping[tuple[str, str, str], Sequence[int]]) -> dict[str, Any]:
    events: dict[str, list[dict[str, Any]]] = {}
    columns = (row[name] for name in ("domains", "item_ids", "timestamps_s", "parts", "is_target"))
    for domain, item_id, time_s, part, is_target in zip(*columns, strict=True):
        event = {"item": (domain, item_id), "day": datetime.fromtimestamp(time_s, UTC).date().isoformat(), "part": part}
        rank = ranks.get((row["user_id"], domain, item_id)) if is_target else None
        events.setdefault(domain, []).append(event | ({"rank": rank} if rank else {}))
    return {
        domain: {"events": len(found), "last": found[: -EVENTS - 1 : -1]} for domain, found in sorted(events.items())
    }


def _lists(rows: pl.DataFrame) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows.to_dicts():
        found.setdefault(row["domain"], []).append(
            {
                "item": (row["domain"], row["item_id"]),
                "score": round(row["score"], 3),
                "reason": row["reason"],
                **{name: row[name] for name in ("decided_by", "history", "view")},
                "nearest": [
                    {"item": (one["domain"], one["item_id"]), "similarity": round(one["similarity"], 3)}
                    for one in row["nearest"] or ()
                ],
            }
        )
    return found


def _mentioned(record: dict[str, Any]) -> Iterator[Item]:
    for history in record["history"].values():
        yield from (event["item"] for event in history["last"])
    for listed in record["lists"].values():
        for row in listed:
            yield row["item"]
            yield from (one["item"] for one in row["nearest"])


def _by_place(record: dict[str, Any], items: Mapping[Item, int]) -> dict[str, Any]:
    """Name items by their places."""
    history = {
        domain: found | {"last": [event | {"item": items[event["item"]]} for event in found["last"]]}
        for domain, found in record["history"].items()
    }
    lists = {
        domain: [
            row
            | {
                "item": items[row["item"]],
                "nearest": [one | {"item": items[one["item"]]} for one in row["nearest"]],
            }
            for row in listed
        ]
        for domain, listed in record["lists"].items()
    }
    return record | {"history": history, "lists": lists}


def _items(inputs: Mapping[str, Artifact], wanted: set[Item]) -> dict[Item, dict[str, Any]]:
    keys = pl.LazyFrame(sorted(wanted), schema=dict.fromkeys(_KEYS, pl.String), orient="row")
    frame = keys.join(inputs["items"].scan().select(*_KEYS, "title", "brand"), on=_KEYS, how="left")
    texts = inputs["semantics"].scan().join(keys, on=_KEYS, how="semi")
    for view in View:
        of_view = texts.filter(pl.col("view").cast(pl.String) == view.value)
        columns = {view.value: pl.col("text").str.slice(0, _TEXT_CHARS)}
        if view is View.AGNOSTIC:
            columns |= {"source": pl.col("source").cast(pl.String), "writer": pl.col("model")}
        frame = frame.join(of_view.select(*_KEYS, **columns), on=_KEYS, how="left")
    weights = [pl.col(f"weight_{view}").round(3) for view in _WEIGHTS]
    frame = frame.join(inputs["item_vectors"].scan().select(*_KEYS, *weights), on=_KEYS, how="left")
    found = {}
    for row in frame.with_columns(pl.col("title").str.slice(0, _TITLE_CHARS)).collect().to_dicts():
        shares = [row.pop(f"weight_{view}") for view in _WEIGHTS]
        known = {name: value for name, value in row.items() if value is not None}
        found[row["domain"], row["item_id"]] = known | ({"shares": shares} if shares[0] is not None else {})
    return found
