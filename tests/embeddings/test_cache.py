from __future__ import annotations

import importlib
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
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


def run(folder: Path, output: str, batch_size: int = 64) -> tuple[dict, pl.DataFrame]:
    (folder / output).mkdir()
    semantics, sequences = write_inputs(folder)
    settings = EncoderSettings(batch_size=batch_size)
    facts = embed(Embeddings(), settings, semantics, sequences, folder / "vectors", folder / output, Progress())
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


KILLED = """
import importlib, os, signal, sys
from pathlib import Path
import torch
from semacdr.dataset import Embeddings
from semacdr.progress import Progress
from semacdr.settings import EncoderSettings
# The last digits depend on the number of threads, which is a run's setting.
torch.set_num_threads(int(sys.argv[3]))
embed = importlib.import_module("semacdr.embeddings.embed")
folder, num_whole = Path(sys.argv[1]), int(sys.argv[2])
embed.SHARD_TEXTS, embed.KEEP_EVERY_S = 24, 0.0
encode, encoded = embed.encode_texts, []
def killed(*arguments, **named):
    if len(encoded) == num_whole:
        os.kill(os.getpid(), signal.SIGKILL)
    encoded.append(encode(*arguments, **named))
    return encoded[-1]
embed.encode_texts = killed
embed.embed(Embeddings(), EncoderSettings(batch_size=8), folder, folder, folder / "vectors", folder, Progress())
"""


@pytest.mark.slow
def test_run_killed_again_and_again_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = ["coffee", "tea", "pan", "knife", "rice", "salt", "kettle"]
    texts = {f"i{n}": " ".join(words[k % 7] for k in range(n, n + 1 + n * 13 % 29)) for n in range(60)}
    monkeypatch.setattr("tests.embeddings.test_embed.TEXTS", texts)
    monkeypatch.setattr(MODULE, "SHARD_TEXTS", 24)
    undisturbed, resumed = tmp_path / "undisturbed", tmp_path / "resumed"
    undisturbed.mkdir()
    resumed.mkdir()
    write_inputs(resumed)
    whole, first = run(undisturbed, "out", batch_size=8)
    for num_whole in (1, 2):
        command = [sys.executable, "-c", KILLED, str(resumed), str(num_whole), str(torch.get_num_threads())]
        died = subprocess.run(command, check=False, capture_output=True, text=True)
        assert died.returncode == -signal.SIGKILL, died.stderr
    details, second = run(resumed, "out", batch_size=8)
    assert (whole["texts"], details["texts_encoded"]) == (120, 120 - 3 * 24)
    assert first.equals(second)
