import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from semacdr.errors import DataError, StoreError
from semacdr.model.checkpoint import encode_all_items, load_checkpoint, save_checkpoint
from semacdr.model.histories import queries_of_targets, read_events
from semacdr.tables import Part


@pytest.fixture
def broken(toy_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_checkpoint, tmp_path / "broken"))


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_checkpoint_round_trip_scores_alike(toy_checkpoint: Path, toy_artifacts: dict[str, Path], tmp_path: Path):
    loaded = load_checkpoint(toy_checkpoint)
    assert not loaded.model.training
    save_checkpoint(
        tmp_path, loaded.model, loaded.vocabulary, max_length=loaded.max_length, details=loaded.details,
        scoring=loaded.scoring,
    )  # fmt: skip
    again = load_checkpoint(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == (toy_checkpoint / "model.safetensors").read_bytes()
    events = read_events(toy_artifacts["sequences"], loaded.vocabulary)
    queries = queries_of_targets(events, Part.TEST)
    assert torch.equal(loaded.items.vector_RD, again.items.vector_RD)
    assert torch.equal(loaded.items.vector_RD, encode_all_items(loaded.model).vector_RD)
    assert torch.equal(loaded.user_states(events, queries).vector_QD, again.user_states(events, queries).vector_QD)
    chosen = np.flatnonzero(queries.domain == 1)
    assert torch.equal(loaded.scorer(events, queries)(chosen, 1), again.scorer(events, queries)(chosen, 1))


def test_final_score_is_made_of_the_columns(toy_checkpoint: Path, toy_artifacts: dict[str, Path]):
    loaded = load_checkpoint(toy_checkpoint)
    events = read_events(toy_artifacts["sequences"], loaded.vocabulary)
    queries = queries_of_targets(events, Part.TEST)
    scorer, chosen = loaded.scorer(events, queries), np.flatnonzero(queries.domain == 0)
    columns = scorer.scores(chosen, 0)
    assert len(columns) == len(scorer.columns)
    torch.testing.assert_close(scorer.final(columns, chosen, 0), scorer(chosen, 0))


@pytest.mark.parametrize("lost", ["gate.by_fact", "memory.item"])
def test_load_checkpoint_without_the_experts_tensors_is_refused(broken: Path, lost: str):
    tensors = load_file(broken / "model.safetensors")
    del tensors[lost]
    save_file(tensors, broken / "model.safetensors")
    with pytest.raises(StoreError, match="the experts do not fit"):
        load_checkpoint(broken)


def test_load_checkpoint_of_before_the_trend_has_none(broken: Path):
    tensors = load_file(broken / "model.safetensors")
    assert tensors.pop("gate.by_pair").abs().sum() > 0
    save_file(tensors, broken / "model.safetensors")
    scoring = load_checkpoint(broken).scoring
    assert scoring is not None
    assert not scoring.gate.by_pair.any()


def test_checkpoint_item_vectors_have_weights_that_sum_to_one(toy_checkpoint: Path):
    items = load_checkpoint(toy_checkpoint).items
    known = items.weight_R3.sum(dim=1) > 0
    assert known.any()
    torch.testing.assert_close(items.weight_R3[known].sum(dim=1), torch.ones(int(known.sum())))
    assert (items.vector_RD[0] == 0).all()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "vocabulary.parquet"])
@pytest.mark.parametrize("damage", ["missing", "garbage"])
def test_load_checkpoint_broken_file_is_named(broken: Path, name: str, damage: str):
    (broken / name).unlink()
    if damage == "garbage":
        (broken / name).write_bytes(b"garbage")
    with pytest.raises(StoreError, match=name):
        load_checkpoint(broken)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 99}, "format_version"),
        ({"contract_version": 99}, "contract_version"),
        ({"num_items": 3}, "vocabulary.parquet does not fit config.json"),
        ({"domains": ["films", "books"]}, "vocabulary.parquet does not fit config.json"),
        ({"model": {"preset": "semacdr", "dimm": 8}}, "unknown dimm, did you mean 'dim'"),
        ({"model": {"preset": "semacdr", "dim": 64}}, "model.safetensors does not fit config.json"),
    ],
)
def test_load_checkpoint_mismatch_says_which(broken: Path, changes: dict[str, object], message: str):
    edit_config(broken, **changes)
    with pytest.raises(StoreError, match=message):
        load_checkpoint(broken)


def test_load_checkpoint_lacking_a_key_says_which(broken: Path):
    path = broken / "config.json"
    record = json.loads(path.read_text())
    del record["max_length"]
    path.write_text(json.dumps(record))
    with pytest.raises(StoreError, match="lacks max_length"):
        load_checkpoint(broken)


def test_load_checkpoint_lacking_tensors_says_which(broken: Path):
    tensors = load_file(broken / "model.safetensors")
    del tensors["items.agnostic_text"]
    save_file(tensors, broken / "model.safetensors")
    with pytest.raises(StoreError, match=r"items\.agnostic_text"):
        load_checkpoint(broken)


def test_load_checkpoint_tables_of_another_vocabulary_are_refused(broken: Path):
    tensors = load_file(broken / "model.safetensors")
    tensors["items.support_I1"] = tensors["items.support_I1"][:-1].clone()
    save_file(tensors, broken / "model.safetensors")
    with pytest.raises(StoreError, match=r"items\.support_I1 has 40 rows"):
        load_checkpoint(broken)


def test_load_checkpoint_items_in_other_domains_are_refused(broken: Path):
    tensors = load_file(broken / "model.safetensors")
    tensors["items.domain_I1"] = tensors["items.domain_I1"].flip(0)
    save_file(tensors, broken / "model.safetensors")
    with pytest.raises(StoreError, match="other domains"):
        load_checkpoint(broken)


def test_load_checkpoint_vocabulary_out_of_order_is_refused(broken: Path):
    path = broken / "vocabulary.parquet"
    pl.read_parquet(path).reverse().write_parquet(path)
    with pytest.raises(StoreError, match="is no vocabulary"):
        load_checkpoint(broken)


def test_check_items_names_what_is_new_and_what_is_gone(toy_checkpoint: Path, toy_artifacts: dict[str, Path]):
    loaded = load_checkpoint(toy_checkpoint)
    items = pl.read_parquet(toy_artifacts["items"] / "items.parquet").select("domain", "item_id")
    loaded.check_items(items)
    other = pl.concat([items[1:], pl.DataFrame({"domain": ["books"], "item_id": ["new"]})])
    with pytest.raises(DataError, match="1 items that the checkpoint lacks, 1 that only it has, such as books/new"):
        loaded.check_items(other)
