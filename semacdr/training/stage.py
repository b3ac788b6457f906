"""The training stage: find the number of epochs on validation, then fit once more on all that is known."""

# Shapes: Q queries.

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import structlog
import torch

from semacdr.dataset import Split, Training
from semacdr.errors import DataError
from semacdr.manifest import Facts
from semacdr.model.checkpoint import encode_all_items, save_checkpoint, user_states
from semacdr.model.config import load_preset
from semacdr.model.histories import Events, queries_of_targets, read_events
from semacdr.model.ranking import hit, macro, ndcg, rank_targets
from semacdr.model.semacdr import SemaCdrModel
from semacdr.model.text_vectors import read_text_vectors
from semacdr.model.vocabulary import Vocabulary
from semacdr.progress import Progress, Task
from semacdr.tables import Part, table_files
from semacdr.training.fit import Fit, FitInputs

log = structlog.get_logger()

CUT = 10
"""NDCG@10 decides."""


@dataclass(frozen=True)
class Score:
    """Validation, full ranking, macro over domains."""

    ndcg_10: float
    hr_10: float


def train(
    config: Training,
    split: Split,
    inputs: Mapping[str, Path],
    output: Path,
    threads: int | None,
    progress: Progress,
) -> Facts:
    """Train a model and write the ``checkpoint`` artifact.

    The fit ``train`` sees events of part train only and stops early on validation; the fit ``refit`` starts anew on
    training and validation events for as many epochs as were best, and is what is saved. Bit-equal for one seed and
    number of threads on a CPU.

    Args:
        config: preset, overrides, seed.
        split: for the longest history.
        inputs: folders of ``items``, ``sequences`` and ``embeddings``.
        output: an empty folder.
        threads: of torch; None leaves torch's own choice.
        progress: where epochs are reported.

    Raises:
        ConfigError: an unknown preset or field, or a model that cannot be.
        DataError: nothing to train on or to validate with, or a loss that is not finite.
    """
    model_config = load_preset(config.preset, config.overrides)
    vocabulary = Vocabulary.of_items(_read_items(inputs["items"]))
    events = read_events(inputs["sequences"], vocabulary)
    _check_parts(events)
    text = read_text_vectors(inputs["embeddings"], vocabulary)
    fit_inputs = FitInputs(
        config=model_config,
        vocabulary=vocabulary,
        text=text,
        events=events.up_to(Part.TRAIN),
        max_length=min(split.max_length, model_config.max_length or split.max_length),
    )
    history: list[dict[str, Any]] = []
    with _torch_settings(threads):
        best_epoch, best = _fit_train(fit_inputs, events, config.seed, history, progress)
        refit_inputs = replace(fit_inputs, events=events.up_to(Part.VALIDATION))
        model = _fit_refit(refit_inputs, best_epoch, config.seed, history, progress)
        details = {
            "preset": model_config.preset,
            "best_epoch": best_epoch,
            "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
            "seconds_per_epoch": round(sum(row["seconds"] for row in history) / len(history), 3),
            "torch_threads": torch.get_num_threads(),
            "max_length": fit_inputs.max_length,
        }
    save_checkpoint(output, model, vocabulary, max_length=fit_inputs.max_length, details={"best_epoch": best_epoch})
    schema = {
        "fit": pl.String,
        "epoch": pl.Int64,
        "loss": pl.Float64,
        "validation_ndcg_10": pl.Float64,
        "seconds": pl.Float64,
    }
    pl.DataFrame(history, schema=schema).write_parquet(output / "training_history.parquet")
    log.info("training", rows_in=len(events.item), users=events.num_users, **details, validation_ndcg_10=best.ndcg_10)
    return Facts(
        rows_in=events.num_users,
        details=details,
        metrics={"ndcg_10": best.ndcg_10, "hr_10": best.hr_10},
        seed=config.seed,
    )


def _fit_train(
    inputs: FitInputs, events: Events, seed: int, history: list[dict[str, Any]], progress: Progress
) -> tuple[int, Score]:
    """Train until validation stops getting better; return the best epoch and its score."""
    fit = Fit(inputs, seed)
    best_epoch, best = 0, Score(-1.0, 0.0)
    with progress.task("training: fit train", inputs.config.max_epochs) as task:
        for epoch in range(1, inputs.config.max_epochs + 1):
            started = time.monotonic()
            loss = fit.epoch()
            score = validate(fit.model, inputs, events, seed)
            _record(history, task, "train", epoch, loss, score.ndcg_10, time.monotonic() - started)
            if score.ndcg_10 > best.ndcg_10:
                best_epoch, best = epoch, score
            if epoch - best_epoch >= inputs.config.patience:
                break
    return best_epoch, best


def _fit_refit(
    inputs: FitInputs, epochs: int, seed: int, history: list[dict[str, Any]], progress: Progress
) -> SemaCdrModel:
    fit = Fit(inputs, seed)
    with progress.task("training: fit refit", epochs) as task:
        for epoch in range(1, epochs + 1):
            started = time.monotonic()
            _record(history, task, "refit", epoch, fit.epoch(), None, time.monotonic() - started)
    return fit.model


def _record(
    history: list[dict[str, Any]],
    task: Task,
    fit: str,
    epoch: int,
    loss: float,
    ndcg_10: float | None,
    seconds: float,
) -> None:
    history.append({"fit": fit, "epoch": epoch, "loss": loss, "validation_ndcg_10": ndcg_10, "seconds": seconds})
    facts = {} if ndcg_10 is None else {"validation_ndcg_10": round(ndcg_10, 5)}
    log.debug("epoch", fit=fit, epoch=epoch, loss=round(loss, 5), seconds=round(seconds, 2), **facts)
    task.advance(1, loss=round(loss, 4), **facts)


def validate(model: SemaCdrModel, inputs: FitInputs, events: Events, seed: int) -> Score:
    """Return the validation score of a model: every item a candidate, histories strictly before the target's time."""
    queries = queries_of_targets(events, Part.VALIDATION)
    with torch.inference_mode():
        items = encode_all_items(model)
        states = user_states(model, items, events, queries, max_length=inputs.max_length)
    bounds = inputs.vocabulary.bounds
    ranks = rank_targets(
        lambda chosen, domain: states.vector_QD[chosen] @ items.vector_RD[slice(*bounds[domain])].T,
        events,
        queries,
        inputs.vocabulary,
        seed=seed,
    )
    return Score(macro(ndcg(ranks.rank, CUT), queries.domain), macro(hit(ranks.rank, CUT), queries.domain))


def _read_items(folder: Path) -> pl.DataFrame:
    files = table_files(folder, "items")
    if not files:
        raise DataError("items: table items has no file", expected=f"items.parquet in {folder}", do="run ingest again")
    return pl.concat(pl.read_parquet(file, columns=["domain", "item_id"], hive_partitioning=False) for file in files)


def _check_parts(events: Events) -> None:
    num_train = len(events.up_to(Part.TRAIN).item)
    if num_train == 0:
        raise DataError(
            "sequences: no event is in part train",
            expected="events before the validation cut",
            do="give the data set more data, or raise split.validation_quantile",
        )
    if len(queries_of_targets(events, Part.VALIDATION)) == 0:
        raise DataError(
            "sequences: no validation target, so training cannot tell when to stop",
            found=f"{num_train} training events, 0 targets in part validation",
            expected="events between the two cuts",
            do="move split.validation_quantile and split.test_quantile further apart",
        )


@contextlib.contextmanager
def _torch_settings(threads: int | None) -> Iterator[None]:
    """Set the threads, and keep the caller's random state as it was."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads or before)
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(before)
