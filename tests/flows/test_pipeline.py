from __future__ import annotations

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import pipeline, stages


def test_without_a_server_the_night_runs_here_although_the_settings_say_apart(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SEMACDR_APART", "true")
    monkeypatch.setattr(pipeline, "run_stages", lambda names, *_, **__: dict.fromkeys(names, "here"))
    monkeypatch.setattr(pipeline, "_run_deployments", lambda *_: None)
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        assert set(pipeline.nightly.fn("toy").values()) == {"here"}
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:4200/api"}):
        assert pipeline.nightly.fn("toy") == {}


def test_a_data_set_is_checked_by_a_task_that_is_tried_again(monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(stages.check, "with_options", lambda **given: lambda *about: asked.append((given, *about)))
    assert stages.run_stages([], "toy", "store", None, retries=2) == {}
    assert asked == [({"retries": 2}, "toy", "store")]
    assert stages.check.retry_condition_fn is stages.run_stage.retry_condition_fn
