"""The index stage: one FAISS index per domain and view, exact while that is fast enough.

An exact index is written anew each time, and is what recall is measured against: its own is 1. An inverted file is
trained once and then grown: vectors that are new, changed or gone since the last version are added and removed, until
they are a tenth of what it was trained on. Its recall is measured at every build, and lists are probed until it is as
wanted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import polars as pl
import pyarrow.parquet as pq

from semacdr.dataset import Index
from semacdr.errors import DataError
from semacdr.index.kinds import FLAT, choose_kind
from semacdr.index.reader import FACTS_FILE, read_facts, read_ids
from semacdr.index.recall import DEPTHS, Truth
from semacdr.index.vectors import Vectors
from semacdr.manifest import Facts
from semacdr.progress import Progress
from semacdr.tables import scan_files, table_files

# Shapes: N vectors, D width of a vector.

_TRAIN_PER_LIST = 50
_FIRST_PROBE = 8
MAX_CHANGED = 0.1
"""Share of changed vectors from which on an inverted file is trained anew."""


def build(embeddings: Path, output: Path, config: Index, progress: Progress, last: Path | None = None) -> Facts:
    """Write ``<domain>/<view>.faiss`` (inner product of unit vectors: cosine) and ``index_ids.parquet``.

    Args:
        embeddings: the ``embeddings`` artifact.
        output: the artifact's folder.
        config: when an index is exact, how much memory it takes, which recall is wanted.
        progress: counts vectors.
        last: the ``index`` artifact of the last run, whose inverted files are grown where they fit.

    Returns:
        Facts with the least ``recall_10`` and ``recall_100`` of all indexes, and in ``details.indexes`` each one's
        kind, vectors, recall, probed lists, and how it came about.

    Raises:
        ConfigError: no index fits into the memory that it may take.
        DataError: the wanted recall is not reached even when all lists are probed.
    """
    files = table_files(embeddings, "embeddings")
    names = scan_files(files).select("domain", "view", "item_id").collect()
    width = pq.read_schema(files[0]).field("vector").type.list_size
    ids, details = [], dict[str, Any]()
    with progress.task("index vectors", total=names.height) as task:
        for (domain, view), group in names.group_by("domain", "view", maintain_order=True):
            vectors = Vectors(list(files), str(domain), str(view), group["item_id"].to_list(), width)
            (output / str(domain)).mkdir(exist_ok=True)
            kind = choose_kind(group.height, width, config)
            if kind == FLAT:
                index, table, facts = _exact(vectors)
            else:
                index, table, facts = _inverted_file(vectors, kind, last)
                facts |= _tuned(index, table, vectors, config)
            details[f"{domain}/{view}"] = facts
            faiss.write_index(index, str(output / str(domain) / f"{view}.faiss"))
            ids.append(table.select(pl.lit(str(domain)).alias("domain"), pl.lit(str(view)).alias("view"), pl.all()))
            task.advance(group.height)
    empty = {"domain": pl.String, "view": pl.String, "position": pl.Int64, "item_id": pl.String, "checksum": pl.Int64}
    table = pl.concat([pl.DataFrame(schema=empty), *ids]).sort("domain", "view", "position")
    table.write_parquet(output / "index_ids.parquet")
    (output / FACTS_FILE).write_text(json.dumps(details, indent=2) + "\n", encoding="utf-8")
    recalls = {f"recall_{depth}": [facts[f"recall_{depth}"] for facts in details.values()] for depth in DEPTHS}
    least = {name: round(min(values), 4) for name, values in recalls.items() if values}
    return Facts(rows_in=names.height, details={"indexes": details}, metrics=least)


def _exact(vectors: Vectors) -> tuple[faiss.Index, pl.DataFrame, dict[str, Any]]:
    """Return an exact index; which item stands at which position; and its facts."""
    index = faiss.IndexFlatIP(vectors.width)
    for _, vectors_ND in vectors.batches():
        index.add(vectors_ND)
    table = pl.DataFrame({"item_id": vectors.item_ids}).with_row_index("position")
    table = table.with_columns(pl.col("position").cast(pl.Int64), checksum=pl.lit(None, pl.Int64))
    recalls = dict.fromkeys((f"recall_{depth}" for depth in DEPTHS), 1.0)
    return index, table, {"kind": FLAT, "vectors": len(vectors.item_ids), **recalls}


def _inverted_file(
    vectors: Vectors, kind: str, last: Path | None
) -> tuple[faiss.IndexIVF, pl.DataFrame, dict[str, Any]]:
    """Return an inverted file of the vectors; which item stands at which position; and how it came about."""
    now = pl.DataFrame({"item_id": vectors.item_ids, "checksum": vectors.checksums()})
    grown = _grown(vectors, now, kind, last) if last is not None else None
    if grown is not None:
        return grown
    index: Any = faiss.index_factory(vectors.width, kind, faiss.METRIC_INNER_PRODUCT)
    if faiss.get_num_gpus():
        index.clustering_index = faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(vectors.width))
    index.train(vectors.sample(_TRAIN_PER_LIST * index.nlist))
    _fill(index, vectors)
    table = now.with_columns(position=pl.int_range(pl.len())).select("position", "item_id", "checksum")
    return index, table, {"kind": kind, "trained_on": now.height, "changed_since": 0}


def _grown(
    vectors: Vectors, now: pl.DataFrame, kind: str, last: Path
) -> tuple[faiss.IndexIVF, pl.DataFrame, dict[str, Any]] | None:
    """Return the last index with what has changed since; None if it is of another kind or too much has changed."""
    known = read_ids(last, vectors.domain, vectors.view)
    facts = read_facts(last).get(f"{vectors.domain}/{vectors.view}", {})
    if known.is_empty() or facts.get("kind") != kind or "checksum" not in known.columns:
        return None
    index: Any = faiss.read_index(str(last / vectors.domain / f"{vectors.view}.faiss"))
    same = known.join(now, on=["item_id", "checksum"], how="semi")
    gone = known.join(same, on="position", how="anti")
    added = now.with_row_index("place").join(same, on="item_id", how="anti")
    changed = facts["changed_since"] + gone.height + added.height
    if index.d != vectors.width or changed > MAX_CHANGED * facts["trained_on"]:
        return None
    index.remove_ids(gone["position"].to_numpy())
    first = int(known["position"].max()) + 1  # type: ignore[arg-type]
    position_of = dict(zip(added["place"].to_list(), range(first, first + added.height), strict=True))
    for places, vectors_ND in vectors.batches():
        rows = [row for row, place in enumerate(places.tolist()) if place in position_of]
        if rows:
            index.add_with_ids(vectors_ND[rows], np.asarray([position_of[int(places[row])] for row in rows]))
    new = added.select(
        pl.Series("position", list(position_of.values()), dtype=pl.Int64), pl.col("item_id"), pl.col("checksum")
    )
    table = pl.concat([same.select("position", "item_id", "checksum"), new]).sort("position")
    return index, table, {"kind": kind, "trained_on": facts["trained_on"], "changed_since": changed}


def _tuned(index: faiss.IndexIVF, table: pl.DataFrame, vectors: Vectors, config: Index) -> dict[str, Any]:
    """Probe so many lists that the wanted recall is met; return it and what was needed."""
    truth = Truth.of(vectors)
    place_of = np.full(int(table["position"].max()) + 1, -1)  # type: ignore[arg-type]
    now = pl.DataFrame({"item_id": vectors.item_ids}).with_row_index("place")
    placed = table.join(now, on="item_id", how="left")
    place_of[placed["position"].to_numpy()] = placed["place"].to_numpy()
    lists = index.nlist
    probed = min(_FIRST_PROBE, lists)
    while True:
        faiss.ParameterSpace().set_index_parameter(index, "nprobe", probed)
        recalls = truth.recalls(index, place_of)
        if recalls["recall_10"] >= config.wanted_recall:
            return {"vectors": len(vectors.item_ids), **recalls, "lists": lists, "probed": probed}
        if probed == lists:
            raise DataError(
                f"the index of domain {vectors.domain!r}, view {vectors.view}, misses too much",
                found=f"recall@10 {recalls['recall_10']:.3f} with all {lists} lists probed",
                expected=f"{config.wanted_recall} (index.wanted_recall)",
                do="raise index.memory_mb, so that vectors are kept more exactly, or ask for less recall",
            )
        probed = min(2 * probed, lists)


def _fill(index: faiss.IndexIVF, vectors: Vectors) -> None:
    """Add all vectors to a trained, empty inverted file; their positions are their places.

    Its lists are made as long as they will be beforehand: lists that grow take twice the memory.
    """
    list_N = np.concatenate([index.quantizer.search(vectors_ND, 1)[1][:, 0] for _, vectors_ND in vectors.batches()])
    lists, filled = index.invlists, np.zeros(index.nlist, np.int64)
    assert lists is not None
    for number, size in enumerate(np.bincount(list_N, minlength=index.nlist).tolist()):
        lists.resize(number, size)
    for places, vectors_ND in vectors.batches():
        of_row = list_N[places]
        order = np.argsort(of_row, kind="stable")
        codes = np.empty((len(order), index.code_size), np.uint8)
        rows_ND, lists_of = np.ascontiguousarray(vectors_ND[order]), np.ascontiguousarray(of_row[order])
        index.encode_vectors(len(order), *map(faiss.swig_ptr, (rows_ND, lists_of, codes)))
        numbers, starts, sizes = np.unique(lists_of, return_index=True, return_counts=True)
        for number, start, size in zip(numbers.tolist(), starts.tolist(), sizes.tolist(), strict=True):
            ids = places[order[start : start + size]]
            of_list = codes[start : start + size]
            lists.update_entries(number, int(filled[number]), size, faiss.swig_ptr(ids), faiss.swig_ptr(of_list))
        filled[numbers] += sizes
    index.ntotal = len(list_N)
