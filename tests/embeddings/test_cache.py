from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from structlog.testing import capture_logs

from semacdr.dataset import Embeddings
from semacdr.embeddings import embed
from semacdr.embeddings.cache import VectorCache, text_hashes
from semacdr.progress import Progress
from semacdr.settings import EncoderSettings
from tests.embeddings.test_embed import write_inputs

MODULE = importlib.import_module("semacdr.embeddings.embed")
TEXTS = pl.Series(["tea", "coffee", "", "naïve 茶"])
VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)


def filled(folder: Path, identity: object = "e") -> VectorCache:
    cache = VectorCache(folder, identity)
    cache.write(text_hashes(TEXTS), VECTORS)
    return cache


def test_vectors_are_found_by_text_and_encoder(tmp_path: Path):
    cache = filled(tmp_path)
    wanted = text_hashes(pl.Series(["coffee", "unknown", "naïve 茶"]))
    places, vectors = cache.read(wanted)
    assert vectors is not None
    assert {int(place): row.tolist() for place, row in zip(places, vectors, strict=True)} == {
        0: VECTORS[1].tolist(),
        2: VECTORS[3].tolist(),
    }
    assert VectorCache(tmp_path, "another").read(wanted)[1] is None


def test_text_that_two_runs_kept_is_found_once(tmp_path: Path):
    filled(tmp_path)
    places, vectors = filled(tmp_path).read(text_hashes(TEXTS))
    assert vectors is not None
    assert (sorted(places.tolist()), vectors.shape) == ([0, 1, 2, 3], (4, 3))


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_damaged_segment_costs_its_own_texts_only(tmp_path: Path, damage: str):
    cache = filled(tmp_path)
    (segment,) = cache.folder.glob("*.parquet")
    raw = bytearray(segment.read_bytes())
    at = raw.find(VECTORS.tobytes())
    assert at > 0
    raw[at] ^= 0xFF
    segment.write_bytes({"flip": bytes(raw), "cut": bytes(raw[: len(raw) // 2]), "empty": b""}[damage])
    cache.write(text_hashes(pl.Series(["milk"])), VECTORS[:1])
    with capture_logs() as logs:
        places, _ = cache.read(text_hashes(pl.Series(["tea", "milk"])))
    assert places.tolist() == [1]
    assert "damaged" in logs[0]["event"]
    assert not segment.exists()


def run(folder: Path, output: str) -> tuple[dict, pl.DataFrame]:
    (folder / output).mkdir()
    semantics, sequences = write_inputs(folder)
    facts = embed(
        Embeddings(), EncoderSettings(), semantics, sequences, folder / "vectors", folder / output, Progress()
    )
    return dict(facts.details), pl.read_parquet(folder / output / "embeddings.parquet")


def test_only_new_texts_are_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    details, first = run(tmp_path, "first")
    assert (details["texts"], details["texts_encoded"]) == (8, 8)
    monkeypatch.setattr(
        "tests.embeddings.test_embed.TEXTS", {"i1": "strong dark roast coffee beans", "i9": "a new one"}
    )
    details, second = run(tmp_path, "second")
    assert (details["texts"], details["texts_encoded"]) == (4, 2)
    key = {"item_id": "i1", "view": "specific"}
    assert first.filter(**key)["vector"].to_list() == second.filter(**key)["vector"].to_list()


def test_no_model_is_loaded_when_nothing_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _, first = run(tmp_path, "first")
    monkeypatch.setattr(MODULE, "open_encoder", None)
    details, second = run(tmp_path, "second")
    assert details["texts_encoded"] == 0
    assert first.drop("whitening").equals(second.drop("whitening"))


def test_killed_run_keeps_the_segments_that_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(MODULE, "SEGMENT_TEXTS", 3)
    written = VectorCache.write
    calls: list[int] = []

    def write(self: VectorCache, hashes: pl.Series, vectors_ND: np.ndarray) -> None:
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        calls.append(len(hashes))
        written(self, hashes, vectors_ND)

    monkeypatch.setattr(VectorCache, "write", write)
    with pytest.raises(OSError, match="No space"):
        run(tmp_path, "first")
    monkeypatch.setattr(VectorCache, "write", written)
    details, _ = run(tmp_path, "second")
    assert details["texts_encoded"] == 8 - sum(calls)
