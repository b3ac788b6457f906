"""The training stage: find the number of epochs and the gate on validation, then fit once more on all that is known."""

# Shapes: Q queries, I items of one domain.

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import structlog
import torch

from semacdr.dataset import Split, Training
from semacdr.errors import DataError
from semacdr.leaks import as_json, check_split, lint, written_texts
from semacdr.manifest import Facts
from semacdr.model.checkpoint import save_checkpoint
from semacdr.model.config import load_preset
from semacdr.model.experts import Memory
from semacdr.model.histories import Events, Visibility, queries_of_targets, read_events
from semacdr.model.scorer import Scoring
from semacdr.model.text_vectors import read_text_vectors
from semacdr.model.titles import read_titles
from semacdr.model.vocabulary import Vocabulary
from semacdr.progress import Progress
from semacdr.tables import FitOn, History, Part, Steps
from semacdr.training.compute import Compute
from semacdr.training.fit import Fit, FitInputs, share_of_process
from semacdr.training.gate import CrossFitted, cross_fitted_gate
from semacdr.training.loop import Outcome, Plan, Score, fit_to_end
from semacdr.training.validation import Validation

log = structlog.get_logger()


@dataclass(frozen=True)
class Run:
    """Where a training runs; nothing here shapes what comes out, but for rounding."""

    threads: int | None = None
    """Of torch; None leaves torch's own choice."""
    snapshots: Path | None = None
    """A folder of this run's own, to go on from after a crash; None: it starts anew."""
    compute: Compute = field(default_factory=Compute)


def train(
    config: Training,
    split: Split,
    inputs: Mapping[str, Path],
    output: Path,
    run: Run,
    progress: Progress,
    fit: FitOn = FitOn.REFIT,
) -> Facts:
    """Train a model and write the ``checkpoint`` artifact.

    The fit ``train`` sees events of part train only and stops early on validation, where the threads are chosen and the
    score gate is fitted too; the fit ``refit`` starts anew on training and validation events for as many epochs as were
    best, keeps threads and gate, and is what is saved, unless the other is asked for. What the leak linter refuses is
    not trained on. Bit-equal for one seed and number of threads on a CPU, also when it was killed on the way.
    In a process group each process trains on its share of every batch, and the first one writes.

    Args:
        config: preset, overrides, seed.
        split: the protocol, and the longest history.
        inputs: folders of ``items``, ``sequences``, ``embeddings`` and, for the linter, ``semantics``.
        output: an empty folder.
        run: threads, device, and where snapshots lie.
        progress: where epochs are reported.
        fit: whose model is saved.

    Raises:
        ConfigError: an unknown preset or field, or a model that cannot be.
        DataError: nothing to train on or to validate with, a leak, or a loss that is not finite.
    """
    fit_inputs, events = _fit_inputs(config, split, inputs)
    leaks = _lint(fit_inputs, events, inputs, config.seed)
    model_config, vocabulary = fit_inputs.config, fit_inputs.vocabulary
    with _torch_settings(run):
        plan = _plan("train", output, run)
        found = _fit_train(fit_inputs, events, config.seed, plan, run.compute, progress)
        fitted, outcome, gate = found.fit, found.outcome, found.gate
        history, steps = outcome.history, outcome.steps
        if fit is FitOn.REFIT:
            refit_inputs = replace(fitted.inputs, events=events.up_to(fit.last_part))
            fitted = Fit(refit_inputs, config.seed, run.compute)
            check_split(vocabulary, events, refit_inputs.events, fit_inputs.visibility, fit)
            plan = replace(_plan("refit", output, run), max_epochs=outcome.best_epoch)
            refitted = fit_to_end(fitted, plan, None, progress)
            history, steps = history + refitted.history, steps + refitted.steps
        num_threads = torch.get_num_threads()
    assert outcome.best is not None
    score = found.score
    details = {
        "processes": fitted.share.size,
        "protocol": split.protocol.value,
        "fit": fit.value,
        "preset": model_config.preset,
        "threads": [thread.value for thread in fitted.inputs.config.threads],
        "best_epoch": outcome.best_epoch,
        "num_parameters": sum(parameter.numel() for parameter in fitted.model.parameters()),
        "seconds_per_epoch": round(sum(row["seconds"] for row in history) / max(len(history), 1), 3),
        "torch_threads": num_threads,
        "device": run.compute.device.type,
        "bfloat16": run.compute.bfloat16,
        "compiled": run.compute.compiled,
        "max_length": fit_inputs.max_length,
        "validation_trained_alone": asdict(outcome.best),
    }
    if gate is not None:
        details["expert_history"] = gate.history
    facts = Facts(
        rows_in=events.num_users,
        details={**details, "leaks": leaks},
        metrics={"ndcg_10": score.ndcg_10, "hr_10": score.hr_10},
        seed=config.seed,
    )
    if fitted.share.rank == 0:
        save_checkpoint(
            output,
            fitted.model,
            vocabulary,
            max_length=fit_inputs.max_length,
            details={"best_epoch": outcome.best_epoch},
            scoring=_scoring(fitted.inputs, gate),
        )
        pl.DataFrame(history, schema=History.create_empty().schema).write_parquet(output / "training_history.parquet")
        pl.DataFrame(steps, schema=Steps.create_empty().schema).write_parquet(output / "training_steps.parquet")
        rows = {"rows_in": len(events.item), "users": events.num_users}
        log.info("training", **rows, **details, validation_ndcg_10=score.ndcg_10)
    if run.snapshots is not None:
        _forget(run.snapshots, fitted.share.rank)
    return facts


def validate_config(config: Training, split: Split, inputs: Mapping[str, Path], run: Run, progress: Progress) -> Score:
    """Return what the fit ``train`` of a configuration is worth on validation, its gate measured on other users.

    Raises:
        ConfigError: an unknown preset or field, or a model that cannot be.
        DataError: see ``train``.
    """
    fit_inputs, events = _fit_inputs(config, split, inputs)
    _lint(fit_inputs, events, inputs, config.seed)
    with _torch_settings(run):
        plan = Plan(name="train", max_epochs=0)
        return _fit_train(fit_inputs, events, config.seed, plan, run.compute, progress).score


def _fit_inputs(config: Training, split: Split, inputs: Mapping[str, Path]) -> tuple[FitInputs, Events]:
    """What the fit ``train`` sees, and all events."""
    model_config = load_preset(config.preset, config.overrides)
    titles = read_titles(inputs["items"])
    vocabulary = Vocabulary.of_items(titles)
    events = read_events(inputs["sequences"], vocabulary)
    visibility = Visibility(split.protocol)
    _check_parts(events, visibility)
    fit_inputs = FitInputs(
        config=model_config,
        vocabulary=vocabulary,
        text=read_text_vectors(inputs["embeddings"], vocabulary),
        titles=titles,
        events=events.up_to(Part.TRAIN),
        max_length=min(split.max_length, model_config.max_length or split.max_length),
        visibility=visibility,
    )
    return fit_inputs, events


def _lint(inputs: FitInputs, events: Events, folders: Mapping[str, Path], seed: int) -> list[dict[str, str]]:
    """Return what the leak linter found, for the manifest; texts that the model does not read are let be."""
    texts = inputs.config.reads_texts
    findings = lint(
        inputs.vocabulary,
        events,
        fit_events=inputs.events,
        selection_events=Validation(inputs, events, seed).events,
        visibility=inputs.visibility,
        embeddings=folders["embeddings"] if texts else None,
        text=inputs.text,
        written=written_texts(folders["semantics"], inputs.vocabulary) if texts and "semantics" in folders else None,
    )
    return as_json(findings)


def _plan(name: str, output: Path, run: Run) -> Plan:
    rank = share_of_process().rank
    snapshot = run.snapshots / f"{name}-{rank}.safetensors" if run.snapshots else None
    return Plan(name=name, max_epochs=0, snapshot=snapshot, tensorboard=None if rank else output / "tensorboard")


def _forget(snapshots: Path, rank: int) -> None:
    """Remove this process's snapshots, and the folder after the last of its node's processes."""
    for path in snapshots.glob(f"*-{rank}.*"):
        path.unlink()
    with contextlib.suppress(OSError):  # another process's are there
        snapshots.rmdir()


@dataclass(frozen=True)
class Found:
    """What the fit ``train`` found."""

    fit: Fit
    outcome: Outcome
    gate: CrossFitted | None

    @property
    def score(self) -> Score:
        """On validation, the gate's measured on other users than it was fitted on."""
        if self.gate is not None:
            return self.gate.score
        assert self.outcome.best is not None
        return self.outcome.best


def _fit_train(inputs: FitInputs, events: Events, seed: int, plan: Plan, compute: Compute, progress: Progress) -> Found:
    """Train until validation stops getting better, and fit the gate on the best epoch's scores.

    Of several choices of threads the best is kept, with the curves of all.
    """
    config, validation = inputs.config, Validation(inputs, events, seed)
    several = len(inputs.vocabulary.domains) > 1
    looks = {"target": [False], "mixed": [True], "best": [False, True]}[config.expert_history]
    first = [_memory(inputs, mixed=looks[0])] if config.experts else []
    memories = [replace(memory, mixed=mixed) for memory in first for mixed in (looks if several else looks[:1])]
    tried: list[Found] = []
    worth: list[float] = []
    for threads in config.tried_threads if several else [config.threads]:
        fit = Fit(replace(inputs, config=config.model_copy(update={"threads": threads})), seed, compute)
        once = replace(plan, max_epochs=config.max_epochs, patience=config.patience)
        if threads != config.threads:
            once = once.renamed(f"{plan.name}-{'-'.join(threads)}")
        outcome = fit_to_end(fit, once, partial(validation.score, fit.model), progress)
        gate = _best_gate(validation, fit, memories, seed, once.name, progress) if memories else None
        tried.append(Found(fit, outcome, gate))
        worth += fit.of_first(tried[-1].score.ndcg_10)
        # What the experts look at is no matter of the threads: a gate each is minutes on a large log.
        memories = [memory for memory in memories if gate and memory.mixed == gate.mixed]
    best = tried[worth.index(max(worth))]
    history = [row for one in tried for row in one.outcome.history]
    steps = [row for one in tried for row in one.outcome.steps]
    return replace(best, outcome=replace(best.outcome, history=history, steps=steps))


def _best_gate(
    validation: Validation, fit: Fit, memories: list[Memory], seed: int, name: str, progress: Progress
) -> CrossFitted:
    """Fit a gate for each memory, on a log of 170,000 events a minute each, and return the best."""
    gates: list[CrossFitted] = []
    with progress.task(f"training: gate {name}", len(memories)) as task:
        for memory in memories:
            gates.append(cross_fitted_gate(validation, fit.model, memory, seed))
            facts = {"expert_history": gates[-1].history, "validation_ndcg_10": round(gates[-1].score.ndcg_10, 5)}
            log.debug("gate", fit=name, **facts)
            task.advance(1, **facts)
    return max(gates, key=lambda one: one.score.ndcg_10)


def _memory(inputs: FitInputs, *, mixed: bool) -> Memory:
    return Memory.of(inputs.events, inputs.vocabulary, inputs.titles, inputs.text, mixed=mixed)


def _scoring(inputs: FitInputs, gate: CrossFitted | None) -> Scoring | None:
    if gate is None:
        return None
    return Scoring.of(inputs.config.experts, _memory(inputs, mixed=gate.mixed), gate.gate)


def _check_parts(events: Events, visibility: Visibility) -> None:
    num_train = len(events.up_to(Part.TRAIN).item)
    if num_train == 0:
        raise DataError(
            "sequences: no event is in part train",
            expected="events before the validation cut",
            do="give the data set more data, or raise split.validation_quantile",
        )
    if len(queries_of_targets(events, Part.VALIDATION, visibility)) == 0:
        raise DataError(
            "sequences: no validation target, so training cannot tell when to stop",
            found=f"{num_train} training events, 0 targets in part validation",
            expected="events between the two cuts",
            do="move split.validation_quantile and split.test_quantile further apart",
        )


@contextlib.contextmanager
def _torch_settings(run: Run) -> Iterator[None]:
    """Set the threads, demand equal bits of a CPU, and keep the caller's settings and random state as they were."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    switches: Any = torch.utils.deterministic
    filled = switches.fill_uninitialized_memory
    try:
        torch.set_num_threads(run.threads or threads)
        if run.compute.device.type == "cpu":
            # Else several threads add up the gradients of a row in any order. A GPU lacks some of the ops.
            torch.use_deterministic_algorithms(mode=True)
            switches.fill_uninitialized_memory = False
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(mode=deterministic)
        switches.fill_uninitialized_memory = filled
