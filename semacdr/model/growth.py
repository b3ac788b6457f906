"""A trained model that learns of new items without training: an item is its texts, so it needs no ID to be scored.

What the model knows stays as it is, bit by bit. A new item's texts are whitened and centred as those of the embeddings
that the model was trained on, its ID counts as never seen, and the experts read its title and texts.
"""

# Shapes: I1 items and the padding of the grown model, R old items and the padding, N new ones, V old ones with a text,
# K whitened width, E encoder width.

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from scipy import sparse
from torch import Tensor

from semacdr.errors import DataError, examples
from semacdr.model.checkpoint import LoadedModel
from semacdr.model.config import ItemView
from semacdr.model.experts import Memory, title_texts, title_vectoriser
from semacdr.model.histories import IntArray
from semacdr.model.item_encoder import TEXT_VIEWS, Catalogue, centred
from semacdr.model.scorer import Scoring
from semacdr.model.semacdr import SemaCdrModel
from semacdr.model.text_vectors import TextVectors, read_text_vectors
from semacdr.model.vocabulary import Vocabulary
from semacdr.tables import View, table_files


@dataclass(frozen=True)
class Growth:
    """A model with more items, and which of them it has learned of."""

    model: LoadedModel
    new_items: int


TRAINED_ON = ("items", "embeddings")
"""What a checkpoint was made from that tells it of new items."""


def grow(model: LoadedModel, titles: pl.DataFrame, inputs: Mapping[str, Path]) -> Growth:
    """Return the model with the items of ``titles`` that it lacks; items that ``titles`` lacks stay known.

    Args:
        model: a checkpoint.
        titles: domain, item_id, title of the items of today.
        inputs: folders of today's ``embeddings``, and of the ``items`` and ``embeddings`` that the checkpoint was made
            from, as ``trained_items`` and ``trained_embeddings``.

    Raises:
        DataError: a new item is of a domain that the model does not know, or its vectors are of another encoder.
    """
    known = model.vocabulary
    new = titles.join(known.table, on=["domain", "item_id"], how="anti").unique(["domain", "item_id"])
    if new.is_empty():
        return Growth(model, 0)
    _check_domains(new, known)
    trained_on, now = inputs["trained_embeddings"], inputs["embeddings"]
    _check_encoder(trained_on, now)
    vocabulary = Vocabulary.of_items(
        pl.concat([known.table.select("domain", "item_id"), new.select("domain", "item_id")])
    )
    place_R = np.concatenate([[0], vocabulary.encode(known.table, "checkpoint")])
    text = _texts(trained_on, now, vocabulary, new)
    grown = _model(model, vocabulary, text, torch.from_numpy(place_R))
    scoring = None
    if model.scoring:
        title = _titles(model, vocabulary, new, place_R, inputs["trained_items"])
        scoring = _scoring(model.scoring, vocabulary, text, place_R, title)
    return Growth(replace(model, model=grown, vocabulary=vocabulary, scoring=scoring), new.height)


def _check_domains(new: pl.DataFrame, known: Vocabulary) -> None:
    unknown = sorted(set(new["domain"]) - set(known.domains))
    if unknown:
        raise DataError(
            f"items: the checkpoint knows no domain {examples(unknown)}",
            found=f"{new.filter(pl.col('domain').is_in(unknown)).height} items of it",
            expected=", ".join(known.domains),
            do="run the training stage again",
        )


def _check_encoder(trained_on: Path, now: Path) -> None:
    encoders = []
    for folder in (trained_on, now):
        table = pl.scan_parquet(table_files(folder, "embeddings"), hive_partitioning=False)
        vector = table.collect_schema()["vector"]
        width = vector.size if isinstance(vector, pl.Array) else None
        names = table.select("encoder").unique().sort("encoder").collect()["encoder"]
        encoders.append([(name, width) for name in names])
    if encoders[0] != encoders[1]:
        raise DataError(
            "embeddings: vectors of another encoder than the checkpoint was trained on",
            found=examples(f"{name}, width {width}" for name, width in encoders[1]),
            expected=examples(f"{name}, width {width}" for name, width in encoders[0]),
            do="run the training stage again",
        )


def _texts(trained_on: Path, now: Path, vocabulary: Vocabulary, new: pl.DataFrame) -> Mapping[View, TextVectors]:
    """Both views of all items, whitened as the model's: known ones as it was trained on, new ones as they are now."""
    texts = read_text_vectors(trained_on, vocabulary)
    of_new = read_text_vectors(now, vocabulary, whitened_as=trained_on, only=new)
    row = torch.from_numpy(vocabulary.encode(new, "items"))
    for view, text in texts.items():
        text.whitened_I1K[row] = of_new[view].whitened_I1K[row]
        text.present_I1[row] = of_new[view].present_I1[row]
        text.raw_I1E[row] = of_new[view].raw_I1E[row]
    return texts


def _model(
    model: LoadedModel, vocabulary: Vocabulary, text: Mapping[View, TextVectors], place_R: Tensor
) -> SemaCdrModel:
    old = model.model.state_dict()
    num_rows = vocabulary.num_items + 1

    def moved(values_R: Tensor, into: Tensor | None = None) -> Tensor:
        target = torch.zeros(num_rows, *values_R.shape[1:], dtype=values_R.dtype) if into is None else into.clone()
        target[place_R] = values_R
        return target

    domain_I1 = torch.from_numpy(vocabulary.domain_of_item)
    support_I1 = moved(old["items.support_I1"])
    views = {}
    for view in TEXT_VIEWS:
        if view in model.config.views:
            vectors = text[View(view)]
            values = vectors.for_model(model.config, support_I1)
            share = model.config.centring if view is ItemView.AGNOSTIC else 0.0
            shifted, present = centred((values, vectors.present_I1), domain_I1, support_I1, share)
            views[view] = moved(old[f"items.{view}_text"], shifted), moved(old[f"items.{view}_present"], present)
    catalogue = Catalogue(domain_I1=domain_I1, support_I1=support_I1, text=views, num_domains=len(vocabulary.domains))
    grown = SemaCdrModel(model.config, catalogue)
    tensors = old | {f"items.{view}_text": values for view, (values, _) in views.items()}
    tensors |= {f"items.{view}_present": present for view, (_, present) in views.items()}
    tensors |= {"items.domain_I1": domain_I1, "items.support_I1": support_I1}
    if "items.ids.weight" in old:
        tensors["items.ids.weight"] = moved(old["items.ids.weight"])
    grown.load_state_dict(tensors)
    return grown.eval()


def _titles(
    model: LoadedModel, vocabulary: Vocabulary, new: pl.DataFrame, place_R: IntArray, trained_items: Path
) -> sparse.csr_matrix:
    """The TF-IDF of all titles by the words and weights of those that the model was trained with."""
    assert model.scoring is not None
    known = model.scoring.memory.title
    old = pl.read_parquet(
        table_files(trained_items, "items"), columns=["domain", "item_id", "title"], hive_partitioning=False
    )
    vectoriser = title_vectoriser(title_texts(old, model.vocabulary))
    texts = new["title"].fill_null("").to_list()
    of_new = vectoriser.transform(texts) if vectoriser else sparse.csr_matrix((len(texts), 1), dtype=np.float32)
    order = np.argsort(np.concatenate([place_R, vocabulary.encode(new, "items")]))
    return sparse.vstack([known, of_new], format="csr")[order]


def _scoring(
    scoring: Scoring,
    vocabulary: Vocabulary,
    text: Mapping[View, TextVectors],
    place_R: IntArray,
    title: sparse.csr_matrix,
) -> Scoring:
    """Return the experts with the new items."""
    memory = scoring.memory
    is_new_I1 = torch.ones(vocabulary.num_items + 1, dtype=torch.bool)
    is_new_I1[torch.from_numpy(place_R)] = False
    units = {}
    for view, vectors in text.items():
        old_VE = vectors.raw_I1E[vectors.present_I1 & ~is_new_I1]
        mean_E = old_VE.mean(dim=0) if len(old_VE) else torch.zeros(vectors.raw_I1E.shape[1])
        new_NE = torch.nn.functional.normalize(vectors.raw_I1E[is_new_I1] - mean_E, dim=1)
        units[view] = np.empty((len(is_new_I1), memory.text[view].shape[1]), np.float32)
        units[view][place_R] = memory.text[view]
        units[view][is_new_I1.numpy()] = (new_NE * vectors.present_I1[is_new_I1, None]).half().float().numpy()
    grown = Memory(
        offsets=memory.offsets,
        item=place_R[memory.item],
        time_s=memory.time_s,
        title=title,
        text=units,
        bounds=vocabulary.bounds,
    )
    return Scoring.of(scoring.experts, grown, scoring.gate)
