"""The checkpoint: weights, config and vocabulary in a folder, loaded with one call and no training code.

    model.safetensors    parameters, what the model knows of items (domain, support, half-precision text vectors), and
                         what the experts remember (the fit's events, the titles' TF-IDF) with their gate; what texts of
                         later items are measured by (means, words and their weights)
    config.json          the preset with its overrides, the history's length, versions
    vocabulary.parquet   domain, item_id, item_index

Nothing is pickled.
"""

# Shapes: I1 items and the padding.

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from semacdr.errors import DataError, StoreError, close_names, examples
from semacdr.model.config import ModelConfig
from semacdr.model.experts import memory_of, memory_tensors
from semacdr.model.gate import ScoreGate
from semacdr.model.histories import Events, Queries, query_batches
from semacdr.model.item_encoder import TEXT_VIEWS, Catalogue, ItemVectors, Measure
from semacdr.model.scorer import FinalScorer, Scoring
from semacdr.model.semacdr import SemaCdrModel, UserStates
from semacdr.model.vocabulary import COLUMNS, Vocabulary
from semacdr.tables import CONTRACT_VERSIONS, scan_files

FORMAT_VERSION = 11
WEIGHTS_FILE, CONFIG_FILE, VOCABULARY_FILE = "model.safetensors", "config.json", "vocabulary.parquet"
_REDO = "restore the artifact, or run the training stage again"


_BATCH_EVENTS = 4_096
"""Of histories, pads included, read at a time: fewer would pay more for calls, more would leave the core's cache."""
_ITEMS_PER_PART = 8_192
"""Of the catalogue, encoded at a time."""


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to score."""

    model: SemaCdrModel
    config: ModelConfig
    vocabulary: Vocabulary
    max_length: int
    """Events of a history that the model looks back on."""
    details: Mapping[str, Any]
    """What training wrote down, such as ``best_epoch``."""
    scoring: Scoring | None
    """The experts and their gate; None: the preset has none."""

    @cached_property
    def items(self) -> ItemVectors:
        """All items, by ``item_index``; row 0 pads and is zero."""
        return encode_all_items(self.model)

    @torch.inference_mode()
    def user_states(self, events: Events, queries: Queries) -> UserStates:
        """Return the users' vectors at the queries, in their order."""
        return user_states(self.model, self.items, events, queries, max_length=self.max_length)

    def scorer(self, events: Events, queries: Queries, states: UserStates | None = None) -> FinalScorer:
        """Return what scores a domain's items for some of the queries; ``states`` saves computing them again."""
        states = states or self.user_states(events, queries)
        return FinalScorer(states.vector_QD, self.items.vector_RD, events, queries, self.vocabulary, self.scoring)

    @cached_property
    def zero_shot_domains(self) -> tuple[str, ...]:
        """Domains that no training event lies in."""
        support = self.model.items.support_I1
        bounds = zip(self.vocabulary.domains, self.vocabulary.bounds, strict=True)
        return tuple(domain for domain, (start, stop) in bounds if not support[start:stop].any())

    def check_items(self, items: pl.DataFrame) -> None:
        """Refuse an ``items`` table with other items than the model's.

        Raises:
            DataError: an item is on one side only.
        """
        found, known = items.select("domain", "item_id").unique(), self.vocabulary.table.select("domain", "item_id")
        new = found.join(known, on=["domain", "item_id"], how="anti").sort("domain", "item_id")
        gone = known.join(found, on=["domain", "item_id"], how="anti").sort("domain", "item_id")
        if new.is_empty() and gone.is_empty():
            return
        shown = examples("/".join(row) for row in pl.concat([new, gone]).head(6).rows())
        raise DataError(
            "items and checkpoint do not belong together",
            found=f"{new.height} items that the checkpoint lacks, {gone.height} that only it has, such as {shown}",
            expected=f"the {known.height} items of the checkpoint",
            do="use the items that the checkpoint was made from, or run the training stage again",
        )


_STATES = ("vector_QD", "source_QD", "target_QD", "mixed_QD")


def user_states(
    model: SemaCdrModel, items: ItemVectors, events: Events, queries: Queries, *, max_length: int
) -> UserStates:
    """Return the users' vectors at the queries, in their order; batched by length."""
    device = items.vector_RD.device
    made = {name: torch.zeros(len(queries), items.vector_RD.shape[1]) for name in _STATES}
    weight_Q3 = torch.zeros(len(queries), 3)
    for chosen, batch in query_batches(events, queries, max_length, _BATCH_EVENTS):
        states, at = model.user_states(items.vector_RD, batch.to(device)), torch.from_numpy(chosen)
        weight_Q3[at] = states.weight_Q3.cpu()
        for name, values in made.items():
            values[at] = getattr(states, name).cpu()
    return UserStates(weight_Q3=weight_Q3, **made)


@torch.inference_mode()
def encode_all_items(model: SemaCdrModel) -> ItemVectors:
    """Return the vectors of every item by ``item_index``; the padding's row is zero."""
    model.eval()
    item_R = torch.arange(len(model.items.domain_I1), device=model.items.domain_I1.device)
    vector_RD = model.items.norm.weight.new_empty(len(item_R), model.config.dim)
    weight_R3 = vector_RD.new_empty(len(item_R), 3)
    for part in item_R.split(_ITEMS_PER_PART):
        encoded = model.items(part)
        vector_RD[part], weight_R3[part] = encoded.vector_RD, encoded.weight_R3
    vector_RD[0], weight_R3[0] = 0, 0
    return ItemVectors(vector_RD, weight_R3)


def save_checkpoint(
    folder: Path,
    model: SemaCdrModel,
    vocabulary: Vocabulary,
    *,
    max_length: int,
    details: Mapping[str, Any],
    scoring: Scoring | None = None,
) -> None:
    """Write a model into a folder; the store makes the publication atomic."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: (value.half() if name.endswith("_text") else value).contiguous()
        for name, value in model.state_dict().items()
    }
    if scoring is not None:
        tensors |= {f"gate.{name}": value.contiguous() for name, value in scoring.gate.state_dict().items()}
        tensors |= {f"memory.{name}": value for name, value in memory_tensors(scoring.memory).items()}
    save_file(tensors, folder / WEIGHTS_FILE)
    record = {
        "format_version": FORMAT_VERSION,
        "contract_version": CONTRACT_VERSIONS["checkpoint"],
        "model": model.config.model_dump(mode="json"),
        "max_length": max_length,
        "domains": list(vocabulary.domains),
        "num_items": vocabulary.num_items,
        "details": dict(details),
    }
    (folder / CONFIG_FILE).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    vocabulary.table.write_parquet(folder / VOCABULARY_FILE)


def is_readable(folder: Path) -> bool:
    """Return whether a checkpoint's config is one that this version of SemaCDR reads."""
    try:
        _read_config(folder / CONFIG_FILE)
    except StoreError:
        return False
    return True


def load_checkpoint(folder: Path, device: str = "cpu") -> LoadedModel:
    """Load a model in evaluation mode.

    Raises:
        StoreError: a file is missing or broken, of another version, or does not fit the others; the message says which.
    """
    record = _read_config(folder / CONFIG_FILE)
    try:
        config = ModelConfig.model_validate(record["model"])
    except ValidationError as error:
        unknown = [str(detail["loc"][-1]) for detail in error.errors() if detail["type"] == "extra_forbidden"]
        raise StoreError(
            f"{folder / CONFIG_FILE}: the model's config does not fit this version of SemaCDR",
            found=f"unknown {unknown[0]}, {close_names(unknown[0], ModelConfig.model_fields)}" if unknown else error,
            do=_REDO,
        ) from error
    vocabulary = _read_vocabulary(folder / VOCABULARY_FILE, record)
    tensors = _read_tensors(folder / WEIGHTS_FILE)
    scoring = _scoring(folder / WEIGHTS_FILE, config, vocabulary, tensors)
    model = _build(folder / WEIGHTS_FILE, config, vocabulary, tensors)
    model.to(device)
    return LoadedModel(
        model=model,
        config=config,
        vocabulary=vocabulary,
        max_length=int(record["max_length"]),
        details=record["details"],
        scoring=scoring,
    )


def _scoring(path: Path, config: ModelConfig, vocabulary: Vocabulary, tensors: dict[str, Tensor]) -> Scoring | None:
    """Take the experts' tensors out of the rest."""
    parts = {
        prefix: {name.removeprefix(prefix): tensors.pop(name) for name in list(tensors) if name.startswith(prefix)}
        for prefix in ("gate.", "memory.")
    }
    if not config.experts:
        return None
    gate = ScoreGate.of(config.experts, len(vocabulary.domains))
    try:
        # Checkpoints of before it know no trend.
        gate.load_state_dict({"by_pair": gate.by_pair.detach()} | parts["gate."])
        memory = memory_of(parts["memory."], vocabulary)
    except (KeyError, RuntimeError) as error:
        raise StoreError(f"{path}: the experts do not fit {CONFIG_FILE}", found=error, do=_REDO) from error
    if memory.titles.tfidf_RV.shape[0] != vocabulary.num_items + 1 or memory.item.max(initial=0) > vocabulary.num_items:
        raise StoreError(
            f"{path} does not fit {VOCABULARY_FILE}",
            found=f"titles of {memory.titles.tfidf_RV.shape[0] - 1} items",
            expected=f"{vocabulary.num_items} items",
            do=_REDO,
        )
    return Scoring.of(config.experts, memory, gate.requires_grad_(requires_grad=False))


def _read_config(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read", found=error, do=_REDO) from error
    if not isinstance(record, dict):
        raise StoreError(f"{path} is no checkpoint's config", found=type(record).__name__, expected="a table", do=_REDO)
    for key, known in (("format_version", FORMAT_VERSION), ("contract_version", CONTRACT_VERSIONS["checkpoint"])):
        if record.get(key) != known:
            raise StoreError(
                f"{path}: {key} is another than this version of SemaCDR reads",
                found=record.get(key),
                expected=known,
                do=_REDO,
            )
    missing = {"model", "max_length", "domains", "num_items", "details"} - set(record)
    if missing:
        raise StoreError(f"{path} lacks {', '.join(sorted(missing))}", do=_REDO)
    return record


def _read_vocabulary(path: Path, record: Mapping[str, Any]) -> Vocabulary:
    try:
        table = scan_files(path).collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise StoreError(f"{path} cannot be read", found=error, do=_REDO) from error
    if tuple(table.columns) != COLUMNS or table["item_index"].to_list() != list(range(1, table.height + 1)):
        raise StoreError(f"{path} is no vocabulary", found=table.columns, expected="items counted from 1", do=_REDO)
    vocabulary = Vocabulary(table)
    found = (vocabulary.num_items, list(vocabulary.domains))
    expected = (record["num_items"], record["domains"])
    if found != expected:
        raise StoreError(
            f"{path} does not fit {CONFIG_FILE}",
            found=f"{found[0]} items of {', '.join(found[1])}",
            expected=f"{expected[0]} items of {', '.join(expected[1])}",
            do=_REDO,
        )
    return vocabulary


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{path} cannot be read", found=error, do=_REDO) from error
    return {name: value.float() if name.endswith("_text") else value for name, value in tensors.items()}


def _build(path: Path, config: ModelConfig, vocabulary: Vocabulary, tensors: Mapping[str, Tensor]) -> SemaCdrModel:
    views = [view for view in TEXT_VIEWS if view in config.views]
    text_tensors = [f"items.{view}_{kind}" for view in views for kind in ("text", "present")]
    measures = [f"items.{view}_{name}" for view in views for name in Measure._fields]
    needed = ("items.domain_I1", "items.support_I1", *text_tensors, *measures)
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise StoreError(f"{path} lacks tensors", found=examples(missing), do=_REDO)
    rows = {name: len(tensors[name]) for name in ("items.support_I1", *text_tensors)}
    wrong = {name: size for name, size in rows.items() if size != vocabulary.num_items + 1}
    if wrong:
        raise StoreError(
            f"{path} does not fit {VOCABULARY_FILE}",
            found=", ".join(f"{name} has {size} rows" for name, size in wrong.items()),
            expected=f"{vocabulary.num_items + 1}: the items and the padding",
            do=_REDO,
        )
    text = {view: (tensors[f"items.{view}_text"], tensors[f"items.{view}_present"]) for view in views}
    catalogue = Catalogue(
        domain_I1=torch.from_numpy(vocabulary.domain_of_item),
        support_I1=tensors["items.support_I1"],
        text=text,
        measure={view: Measure(*(tensors[f"items.{view}_{name}"] for name in Measure._fields)) for view in text},
        num_domains=len(vocabulary.domains),
    )
    model = SemaCdrModel(config, catalogue)
    try:
        model.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise StoreError(f"{path} does not fit {CONFIG_FILE}", found=error, do=_REDO) from error
    if not torch.equal(model.items.domain_I1, torch.from_numpy(vocabulary.domain_of_item)):
        raise StoreError(f"{path} does not fit {VOCABULARY_FILE}: items lie in other domains", do=_REDO)
    return model.eval()
