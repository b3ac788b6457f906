"""A trained model that learns of new items without training: an item is its texts, so it needs no ID to be scored.

What the model knows stays as it is, bit by bit. A new item's texts are whitened as those of the embeddings that the
model was trained on, and measured as those of its fit; its ID counts as never seen, and the experts read its title and
texts. A checkpoint keeps what that takes, so that nothing of old items is read.
"""

# Shapes: I1 items and the padding of the grown model, R old items and the padding, N new ones.

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from semacdr.errors import DataError, examples
from semacdr.model.checkpoint import LoadedModel
from semacdr.model.experts import text_units
from semacdr.model.histories import IntArray
from semacdr.model.item_encoder import TEXT_VIEWS, Catalogue, centred
from semacdr.model.scorer import Scoring
from semacdr.model.semacdr import SemaCdrModel
from semacdr.model.text_vectors import TextVectors, read_text_vectors
from semacdr.model.vocabulary import Vocabulary
from semacdr.tables import View, scan_files, table_files


@dataclass(frozen=True)
class Growth:
    """A model with more items, and which of them it has learned of."""

    model: LoadedModel
    new_items: int


TRAINED_ON = ("embeddings",)
"""What a checkpoint was made from that tells it of new items."""


def grow(model: LoadedModel, titles: pl.DataFrame, inputs: Mapping[str, Path]) -> Growth:
    """Return the model with the items of ``titles`` that it lacks; items that ``titles`` lacks stay known.

    Args:
        model: a checkpoint.
        titles: domain, item_id, title of the items of today.
        inputs: folders of today's ``embeddings``, and of those that the checkpoint was made from, as
            ``trained_embeddings``.

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
    places = np.concatenate([[0], vocabulary.encode(known.table, "checkpoint")]), vocabulary.encode(new, "items")
    text = read_text_vectors(now, vocabulary, whitened_as=trained_on, only=new)
    grown = _model(model, vocabulary, text, places)
    titles_N = new["title"].fill_null("").to_list()
    scoring = _scoring(model.scoring, vocabulary, text, places, titles_N) if model.scoring else None
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
        table = scan_files(table_files(folder, "embeddings"))
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


def _model(
    model: LoadedModel, vocabulary: Vocabulary, text: Mapping[View, TextVectors], places: tuple[IntArray, IntArray]
) -> SemaCdrModel:
    old = model.model.state_dict()
    place_R, place_N = map(torch.from_numpy, places)

    def moved(values_R: Tensor, values_N: Tensor | None = None) -> Tensor:
        target_I1 = values_R.new_zeros(vocabulary.num_items + 1, *values_R.shape[1:])
        target_I1[place_R] = values_R
        if values_N is not None:
            target_I1[place_N] = values_N
        return target_I1

    domain_I1 = torch.from_numpy(vocabulary.domain_of_item)
    support_I1 = moved(old["items.support_I1"])
    views, measure = {}, {}
    for view in TEXT_VIEWS:
        if view in model.config.views:
            vectors, measure[view] = text[View(view)], model.model.items.measure(view)
            values = vectors.for_model(model.config, measure[view].standard)[place_N], vectors.present_I1[place_N]
            shifted, present = centred(values, domain_I1[place_N], measure[view].offset_NK)
            views[view] = moved(old[f"items.{view}_text"], shifted), moved(old[f"items.{view}_present"], present)
    num_domains = len(vocabulary.domains)
    catalogue = Catalogue(
        domain_I1=domain_I1, support_I1=support_I1, text=views, measure=measure, num_domains=num_domains
    )
    grown = SemaCdrModel(model.config, catalogue)
    tensors = old | {f"items.{view}_text": values for view, (values, _) in views.items()}
    tensors |= {f"items.{view}_present": present for view, (_, present) in views.items()}
    tensors |= {"items.domain_I1": domain_I1, "items.support_I1": support_I1}
    if "items.ids.weight" in old:
        tensors["items.ids.weight"] = moved(old["items.ids.weight"])
    grown.load_state_dict(tensors)
    return grown.eval()


def _scoring(
    scoring: Scoring,
    vocabulary: Vocabulary,
    text: Mapping[View, TextVectors],
    places: tuple[IntArray, IntArray],
    titles_N: list[str],
) -> Scoring:
    """Return the experts with the new items: their titles by the words, their texts less the mean of the fit's."""
    memory, (place_R, place_N) = scoring.memory, places
    order = np.argsort(np.concatenate(places))
    units = {}
    for view, vectors in text.items():
        of_new = text_units(vectors.raw_I1E[place_N], vectors.present_I1[place_N], memory.text_mean[view])
        units[view] = np.concatenate([memory.text[view], of_new])[order]
    grown = replace(
        memory,
        item=place_R[memory.item],
        titles=memory.titles.with_new(titles_N, places, vocabulary.bounds),
        text=units,
        bounds=vocabulary.bounds,
    )
    return Scoring.of(scoring.experts, grown, scoring.gate)
