from __future__ import annotations

import pickle

import pytest

from semacdr import errors
from semacdr.errors import AbsentError, ConfigError, DataError, EngineError, SemacdrError, StoreError, TransientError


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [(ConfigError, 2), (DataError, 2), (StoreError, 1), (AbsentError, 1), (EngineError, 1), (TransientError, 1)],
)
def test_exit_code_tells_mistakes_from_faults(kind: type[SemacdrError], exit_code: int):
    assert kind("what").exit_code == exit_code


def test_every_error_is_drawn_in_the_tree():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SemacdrError)]
    assert len(kinds) == 7
    for kind in kinds:
        assert f"{kind.__name__} " in str(errors.__doc__)
        assert f"exit {kind.exit_code}" in str(errors.__doc__).split(kind.__name__, 1)[1].splitlines()[0]


def test_message_says_what_found_expected_and_what_to_do():
    error = ConfigError("split is odd", found=3, expected=4, do="mend it")
    assert str(error) == "split is odd\n  found:    3\n  expected: 4\n  do:       mend it"
    assert str(ConfigError("alone")) == "alone"


def test_error_survives_pickling():
    error = DataError("w", found="f", expected="e", do="d")
    copy = pickle.loads(pickle.dumps(error))  # Prefect does this to carry it between processes
    assert (type(copy), str(copy), copy.do) == (DataError, str(error), "d")


def test_examples_are_bounded():
    assert errors.examples(range(9)) == "0, 1, 2, 3, 4, and 4 more"
    assert errors.examples([]) == ""


def test_close_names_suggests_or_lists():
    assert errors.close_names("fod", ["food", "kitchen"]) == "did you mean 'food'?"
    assert errors.close_names("zzz", ["food", "kitchen"]) == "known: food, kitchen"
    assert errors.close_names("zzz", []) == "known: none"
