"""Epoch after epoch, until validation stops getting better or the epochs are done; a crash costs one epoch at most."""

import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import structlog
from tensorboardX import SummaryWriter
from torch import Tensor

from semacdr.progress import Progress
from semacdr.training.fit import Fit
from semacdr.training.snapshot import epochs_in, load_snapshot, save_snapshot

log = structlog.get_logger()

_CURVES = {
    "loss": "loss",
    "seconds": "seconds",
    "validation/ndcg_10": "validation_ndcg_10",
    "validation/hr_10": "validation_hr_10",
}
"""Of TensorBoard, from an epoch's row."""


@dataclass(frozen=True)
class Score:
    """Validation, full ranking, macro over domains."""

    ndcg_10: float
    hr_10: float


@dataclass(frozen=True)
class Plan:
    """How long a fit goes on."""

    name: str
    """train, refit, or train-mixed: of the mixed history alone."""
    max_epochs: int
    patience: int | None = None
    """Epochs without a better score before it ends; None: it does not end early."""
    snapshot: Path | None = None
    """Where to go on from after a crash; None: nowhere."""
    tensorboard: Path | None = None
    """Folder of TensorBoard's event files; None: none are written."""

    def renamed(self, name: str) -> "Plan":
        """Return the same for another fit beside this one, with a snapshot of its own."""
        snapshot = self.snapshot and self.snapshot.with_name(self.snapshot.name.replace(self.name, name, 1))
        return replace(self, name=name, snapshot=snapshot)


@dataclass(frozen=True)
class Outcome:
    """What came of a fit."""

    history: list[dict[str, Any]]
    """One row per epoch of the ``training_history`` table, and ``validation_hr_10``."""
    steps: list[dict[str, Any]]
    """One row per step of the ``training_steps`` table."""
    best_epoch: int
    best: Score | None


def fit_to_end(fit: Fit, plan: Plan, score: Callable[[], Score] | None, progress: Progress) -> Outcome:
    """Train as planned, and leave the fit's model with the weights of its best epoch.

    Args:
        fit: a fresh one; it goes on from the plan's snapshot if there is one, and of several processes each has one
            of the same epoch: a crash may come between two of them, and a node may keep one of an earlier training.
        plan: how long.
        score: measures the model on validation; None: the last epoch is the best.
        progress: where epochs are reported.
    """
    history: list[dict[str, Any]] = []
    steps: list[dict[str, Any]] = []
    best_epoch, best, best_weights = 0, Score(-1.0, 0.0), dict[str, Tensor]()
    if plan.snapshot is not None and fit.all_have(epochs := epochs_in(plan.snapshot)) and epochs:
        record, best_weights = load_snapshot(plan.snapshot, fit)
        history, steps = record["history"], record["step_history"]
        best_epoch, best = record["best_epoch"], Score(**record["best"])
        log.info("training goes on", fit=plan.name, epoch=len(history))
    writer = SummaryWriter(str(plan.tensorboard / plan.name)) if plan.tensorboard else None
    if writer is not None:
        _draw(writer, history, steps)  # the folder is new after a crash
    with progress.task(f"training: fit {plan.name}", plan.max_epochs) as task:
        task.advance(len(history))
        while len(history) < plan.max_epochs and not _over(plan, len(history), best_epoch):
            started = time.monotonic()
            epoch, done = len(history) + 1, fit.epoch()
            steps += [{"fit": plan.name, "epoch": epoch, **one._asdict()} for one in done]
            loss = fmean(one.loss for one in done)
            found = Score(*fit.of_first(*astuple(score()))) if score else None
            seconds = time.monotonic() - started
            history.append(
                {
                    "fit": plan.name,
                    "epoch": epoch,
                    "loss": loss,
                    "validation_ndcg_10": found.ndcg_10 if found else None,
                    "validation_hr_10": found.hr_10 if found else None,
                    "seconds": seconds,
                }
            )
            if found is not None and found.ndcg_10 > best.ndcg_10:
                best_epoch, best, best_weights = epoch, found, _copy(fit.model.state_dict())
            facts = {} if found is None else {"validation_ndcg_10": round(found.ndcg_10, 5)}
            log.debug("epoch", fit=plan.name, epoch=epoch, loss=round(loss, 5), seconds=round(seconds, 2), **facts)
            task.advance(1, loss=round(loss, 4), **facts)
            if writer is not None:
                _draw(writer, history[-1:], steps[-len(done) :])
            if plan.snapshot is not None:
                record = {"history": history, "step_history": steps, "best_epoch": best_epoch, "best": vars(best)}
                save_snapshot(plan.snapshot, fit, record, best_weights)
    if writer is not None:
        writer.close()
    if score is None:
        return Outcome(history, steps, len(history), None)
    if not history:
        return Outcome(history, steps, best_epoch, score())
    fit.model.load_state_dict(best_weights)
    return Outcome(history, steps, best_epoch, best)


def _over(plan: Plan, epoch: int, best_epoch: int) -> bool:
    return plan.patience is not None and epoch - best_epoch >= plan.patience


def _draw(writer: SummaryWriter, history: list[dict[str, Any]], steps: list[dict[str, Any]]) -> None:
    for row in history:
        for name, of_row in _CURVES.items():
            if row.get(of_row) is not None:
                writer.add_scalar(name, row[of_row], row["epoch"])
    for step in steps:
        writer.add_scalar("step/loss", step["loss"], step["step"])
        writer.add_scalar("step/gradient_norm", step["gradient_norm"], step["step"])


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}
