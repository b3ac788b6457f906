from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from semacdr.dataset import Split, Training
from semacdr.errors import ConfigError
from semacdr.progress import Progress
from semacdr.training import Run
from semacdr.training.loop import Score
from semacdr.training.search import Study, search

TINY = {"num_blocks": 1, "batch_users": 16, "max_epochs": 1}
CONFIG = Training(preset="sasrec-mixed", overrides=TINY)


def run(
    artifacts: dict[str, Path], study: Path, trials: int, on: str = "toy", config: Training = CONFIG
) -> dict[str, object]:
    return search(config, Split(max_length=12), artifacts, Study(study, "sasrec-mixed", on), Run(1), Progress(), trials)


def test_search_keeps_every_trial_and_goes_on(toy_artifacts: dict[str, Path], tmp_path: Path):
    best = run(toy_artifacts, tmp_path / "study.log", 2)
    assert TINY.items() <= best.items()
    run(toy_artifacts, tmp_path / "study.log", 1)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "study.log")))
    study = optuna.load_study(
        study_name=Study(tmp_path / "study.log", "sasrec-mixed", "toy").name(TINY), storage=storage
    )
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    assert study.trials[0].user_attrs["overrides"] == TINY
    assert study.trials[1].params != study.trials[2].params
    assert study.trials[2].params.keys() == {"learning_rate", "dropout", "id_dropout", "dim", "half_life"}
    choices = [getattr(known, "choices", ()) for known in study.trials[2].distributions.values()]
    assert (
        Study(tmp_path / "study.log", "sasrec-mixed").best_overrides(TINY) == study.best_trial.user_attrs["overrides"]
    )
    assert Study(tmp_path / "study.log", "esasrec").best_overrides(TINY) is None
    assert None not in [choice for one in choices for choice in one]  # TOML has no such value


def test_trials_on_other_data_or_over_other_overrides_are_not_compared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    file, found = tmp_path / "study.log", iter([0.1, 0.9, 0.1, 0.2, 0.3])
    monkeypatch.setattr("semacdr.training.search.validate_config", lambda *_: Score(next(found), 0.0))
    assert run({}, file, 2, "others") != TINY
    # The first on these data is the model as it is, and .9 was reached on others.
    assert run({}, file, 1) == TINY
    wider = Training(preset="sasrec-mixed", overrides=TINY | {"dim": 32})
    assert run({}, file, 1, config=wider) == wider.overrides
    assert Study(file, "sasrec-mixed").best_overrides(TINY) == TINY
    assert Study(file, "sasrec-mixed").best_overrides({"dim": 16}) is None
    assert run({}, file, 1) != TINY  # .3


def test_a_search_that_was_killed_in_its_first_trial_begins_with_the_model_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def killed(*_: object) -> Score:
        raise KeyboardInterrupt

    monkeypatch.setattr("semacdr.training.search.validate_config", killed)
    with pytest.raises(KeyboardInterrupt):
        run({}, tmp_path / "study.log", 1)
    monkeypatch.setattr("semacdr.training.search.validate_config", lambda *_: Score(0.1, 0.1))
    assert run({}, tmp_path / "study.log", 1) == TINY


def test_search_without_trials_is_refused(toy_artifacts: dict[str, Path], tmp_path: Path):
    with pytest.raises(ConfigError, match="no trial"):
        run(toy_artifacts, tmp_path / "study.log", 0)


@pytest.mark.parametrize("text", ["not a study\n", "[1]\n", '{"op_code": 0}\n'])
def test_search_in_a_file_that_is_no_study_is_refused_and_leaves_it(
    toy_artifacts: dict[str, Path], tmp_path: Path, text: str
):
    file = tmp_path / "study.log"
    file.write_text(text)
    with pytest.raises(ConfigError, match="no study"):
        run(toy_artifacts, file, 1)
    assert file.read_text() == text
    with pytest.raises(ConfigError, match="no study"):
        Study(file, "sasrec-mixed").best_overrides(TINY)
