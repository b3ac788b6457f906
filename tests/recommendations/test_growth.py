from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from semacdr.dataset import Split, Training
from semacdr.errors import DataError
from semacdr.model.checkpoint import load_checkpoint
from semacdr.model.growth import grow
from semacdr.model.histories import queries_at, read_events
from semacdr.model.titles import title_texts, title_tfidf, title_words
from semacdr.progress import Progress
from semacdr.training import Run, train
from tests.recommendations.conftest import NEW, OVERRIDES


def titles_of(artifacts: dict[str, Path]) -> pl.DataFrame:
    return pl.read_parquet(artifacts["items"] / "items.parquet").select("domain", "item_id", "title")


def new_items() -> pl.DataFrame:
    return pl.DataFrame({"domain": list(NEW), "item_id": list(NEW.values())})


def test_grown_model_knows_the_new_items_and_scores_the_old_ones_alike(artifacts: dict[str, Path]):
    model = load_checkpoint(artifacts["checkpoint"])
    growth = grow(model, titles_of(artifacts), artifacts)
    assert growth.new_items == 2
    grown = growth.model
    place = torch.from_numpy(grown.vocabulary.encode(model.vocabulary.table, "checkpoint"))
    torch.testing.assert_close(grown.items.vector_RD[place], model.items.vector_RD[1:], rtol=0, atol=1e-6)
    events, grown_events = (read_events(artifacts["sequences"], one.vocabulary) for one in (model, grown))
    user = np.arange(5)
    now = np.full(5, int(events.time_s.max()) + 1)
    for domain, (start, stop) in enumerate(model.vocabulary.bounds):
        old = model.scorer(events, queries_at(events, user, np.full(5, domain), now))(user, domain)
        new = grown.scorer(grown_events, queries_at(grown_events, user, np.full(5, domain), now))(user, domain)
        columns = place[start - 1 : stop - 1] - grown.vocabulary.bounds[domain][0]
        torch.testing.assert_close(new[:, columns], old, rtol=0, atol=1e-4)
        assert new.shape[1] == old.shape[1] + 1
        assert torch.isfinite(new).all()


def test_grown_titles_are_those_that_all_titles_have_by_the_words_of_the_old(artifacts: dict[str, Path]):
    model = load_checkpoint(artifacts["checkpoint"])
    grown = grow(model, titles_of(artifacts), artifacts).model
    assert model.scoring is not None
    assert grown.scoring is not None
    words = title_words(title_texts(titles_of(artifacts), model.vocabulary))
    expected = title_tfidf(title_texts(titles_of(artifacts), grown.vocabulary), *words)
    np.testing.assert_allclose(grown.scoring.memory.titles.tfidf_RV.toarray(), expected.toarray(), rtol=0, atol=1e-7)
    assert (expected.getnnz(axis=1)[grown.vocabulary.encode(new_items(), "test")] > 0).all()


@pytest.mark.parametrize("whitening", ["pca", "zca", "zscore", "none"])
def test_twin_of_an_item_scores_as_the_item_would_without_its_past(
    trained: dict[str, Path], artifacts: dict[str, Path], tmp_path: Path, whitening: str
):
    """A new item's text is measured as the checkpoint's: a twin's text vectors are the item's own."""
    checkpoint = artifacts["checkpoint"]
    if whitening != "pca":
        checkpoint, overrides = tmp_path, {**OVERRIDES, "max_epochs": 1, "experts": [], "whitening": whitening}
        train(Training(overrides=overrides), Split(max_length=20), trained, checkpoint, Run(1), Progress())
    grown = grow(load_checkpoint(checkpoint), titles_of(artifacts), artifacts).model
    embeddings = pl.read_parquet(artifacts["embeddings"] / "embeddings.parquet").filter(view="agnostic")
    twin = embeddings.filter(item_id=NEW["books"])["vector"].to_numpy()
    alike = (embeddings["vector"].to_numpy() == twin).all(axis=1)
    (item,) = embeddings.filter(pl.Series(alike) & (pl.col("item_id") != NEW["books"]))["item_id"]
    rows = pl.DataFrame({"domain": ["books"] * 2, "item_id": [NEW["books"], item]})
    own, other = grown.vocabulary.encode(rows, "test")
    text = grown.model.items.get_buffer("agnostic_text")
    torch.testing.assert_close(text[own], text[other], rtol=0, atol=2e-3)
    if grown.scoring is not None:
        for unit in grown.scoring.memory.text.values():
            np.testing.assert_array_equal(unit[own], unit[other])
    assert grown.model.items.support_I1[own] == 0
    assert grown.model.items.support_I1[other] > 0


def test_nothing_new_gives_the_model_itself(trained: dict[str, Path]):
    model = load_checkpoint(trained["checkpoint"])
    growth = grow(model, titles_of(trained), trained)
    assert growth.model is model
    assert growth.new_items == 0


def test_item_of_an_unknown_domain_is_refused(artifacts: dict[str, Path]):
    more = pl.concat([titles_of(artifacts), pl.DataFrame({"domain": ["zoo"], "item_id": ["ape"], "title": ["Ape"]})])
    with pytest.raises(DataError, match=r"knows no domain zoo\n.*1 items(.*\n)*.*training stage"):
        grow(load_checkpoint(artifacts["checkpoint"]), more, artifacts)


@pytest.mark.parametrize("change", ["encoder", "width"])
def test_vectors_of_another_encoder_are_refused(artifacts: dict[str, Path], tmp_path: Path, change: str):
    shutil.copytree(artifacts["embeddings"], tmp_path, dirs_exist_ok=True)
    table = pl.read_parquet(tmp_path / "embeddings.parquet")
    if change == "encoder":
        table = table.with_columns(encoder=pl.lit("another 2"))
    else:
        table = table.with_columns(vector=pl.col("vector").arr.head(8, as_array=True))
    table.write_parquet(tmp_path / "embeddings.parquet")
    with pytest.raises(DataError, match=r"another encoder(.*\n)*.*toy, width 16"):
        grow(load_checkpoint(artifacts["checkpoint"]), titles_of(artifacts), artifacts | {"embeddings": tmp_path})
