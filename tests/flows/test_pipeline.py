from __future__ import annotations

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import pipeline, stages
from semacdr.errors import TransientError


def test_without_a_server_the_night_runs_here_although_the_settings_say_apart(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SEMACDR_APART", "true")
    monkeypatch.setattr(pipeline, "run_stages", lambda names, *_, **__: dict.fromkeys(names, "here"))
    monkeypatch.setattr(pipeline, "_run_deployments", lambda *_: None)
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        assert set(pipeline.nightly.fn("toy").values()) == {"here"}
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:4200/api"}):
        assert pipeline.nightly.fn("toy") == {}


def test_what_may_pass_by_itself_is_tried_again_before_the_first_stage():
    assert stages.check.retries == stages.run_stage.retries == 3
    assert stages.check.retry_condition_fn is stages.run_stage.retry_condition_fn
    assert stages._is_transient(None, None, failed(TransientError("the store does not answer")))
    assert not stages._is_transient(None, None, failed(ValueError()))


class failed:  # noqa: N801 (reads as what it is)
    def __init__(self, error: Exception) -> None:
        self.error = error

    def result(self) -> None:
        raise self.error
