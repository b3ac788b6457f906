"""Hyper-parameter search on validation, and on nothing else; the study is a file that the next search goes on with."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import structlog
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from semacdr.dataset import Split, Training
from semacdr.errors import ConfigError
from semacdr.manifest import fingerprint
from semacdr.progress import Progress
from semacdr.training.stage import Run, validate_config

log = structlog.get_logger()

_MODEL, _FIXED = "model", "fixed"
"""What a study in the file is of: a model, over these overrides."""


def _space(trial: optuna.Trial) -> dict[str, Any]:
    """What is tried: the same for every preset, so that none is tuned harder than another; values that TOML can say."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 3e-4, 5e-3, log=True),
        "dropout": round(trial.suggest_float("dropout", 0.1, 0.6, step=0.1), 1),
        "id_dropout": round(trial.suggest_float("id_dropout", 0.0, 0.6, step=0.1), 1),
        "dim": trial.suggest_categorical("dim", [64, 128]),
        "half_life": trial.suggest_categorical("half_life", [0.1, 0.3, 1.0]),
    }


@dataclass(frozen=True)
class Study:
    """Where the trials of one model are kept."""

    file: Path
    """Several models may share it."""
    model: str
    searched_on: str = ""
    """Tells the data and the split of new trials from others."""

    @property
    def storage(self) -> JournalStorage:
        """The file as Optuna reads it.

        Raises:
            ConfigError: it is no study.
        """
        # Optuna checks nothing: it writes behind whatever is there, and fails where it stumbles.
        with contextlib.suppress(FileNotFoundError), self.file.open("rb") as file:
            first = file.readline()
            if first and not _is_entry(first):
                raise ConfigError(
                    f"{self.file} is no study",
                    found=repr(first[:80]),
                    expected="a file that an earlier search wrote",
                    do="name another file, or move this one away",
                )
        return JournalStorage(JournalFileBackend(str(self.file)))

    def name(self, fixed: Mapping[str, Any]) -> str:
        """What the file calls the trials that can be compared: of one model, on the same data, over these overrides."""
        return f"{self.model} {fingerprint({'searched_on': self.searched_on, 'fixed': fixed})[:16]}"

    def best_overrides(self, fixed: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return those of the best trial over these overrides, on what was searched on last; None: there is none."""
        if not self.file.is_file():
            return None
        storage, found = self.storage, []
        for summary in optuna.get_all_study_summaries(storage):
            if summary.user_attrs == {_MODEL: self.model, _FIXED: fixed}:
                study = optuna.load_study(study_name=summary.study_name, storage=storage)
                found += [study] if study.get_trials(states=[TrialState.COMPLETE]) else []
        return _best(max(found, key=_last_ended)) if found else None


def search(
    config: Training,
    split: Split,
    inputs: Mapping[str, Path],
    kept: Study,
    run: Run,
    progress: Progress,
    trials: int,
) -> dict[str, Any]:
    """Try configurations of a model, score each on validation after the fit ``train``, and keep all in the study.

    The first trial is the model as it is. Test targets are never read. Trials on other data or over other overrides
    are in the study, too, and not compared with these.

    Args:
        config: preset, the overrides that stay, and the seed.
        split: the protocol, and the longest history.
        inputs: folders of ``items``, ``sequences``, ``embeddings`` and, for the leak linter, ``semantics``.
        kept: is made, or gone on with.
        run: threads.
        progress: where epochs are reported.
        trials: how many more.

    Returns:
        The overrides of the best trial.

    Raises:
        ConfigError: no trial at all.
    """
    if trials < 1:
        raise ConfigError("search: no trial", found=trials, expected="at least one", do="give --trials")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kept.file.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=kept.name(config.overrides),
        storage=kept.storage,
        direction="maximize",
        load_if_exists=True,
    )
    study.set_user_attr(_MODEL, kept.model)
    study.set_user_attr(_FIXED, config.overrides)

    # With the seed alone a study that goes on would draw its first trials again.
    study.sampler = optuna.samplers.TPESampler(seed=config.seed + len(study.trials))

    def objective(trial: optuna.Trial) -> float:
        known = [one.user_attrs["overrides"] for one in study.get_trials(states=[TrialState.COMPLETE])]
        overrides = _space(trial) if config.overrides in known else {}
        tried = config.model_copy(update={"overrides": {**overrides, **config.overrides}})
        found = validate_config(tried, split, inputs, run, progress)
        trial.set_user_attr("overrides", tried.overrides)
        trial.set_user_attr("hr_10", found.hr_10)
        log.info("trial", number=trial.number, ndcg_10=round(found.ndcg_10, 5), **tried.overrides)
        return found.ndcg_10

    study.optimize(objective, n_trials=trials)
    return _best(study)


def _is_entry(line: bytes) -> bool:
    try:
        entry = json.loads(line)
    except ValueError:
        return False
    return isinstance(entry, dict) and {"op_code", "worker_id"} <= entry.keys()


def _best(study: optuna.Study) -> dict[str, Any]:
    best: dict[str, Any] = study.best_trial.user_attrs["overrides"]
    return best


def _last_ended(study: optuna.Study) -> datetime:
    times = [trial.datetime_complete for trial in study.get_trials(states=[TrialState.COMPLETE])]
    return max(time for time in times if time)
