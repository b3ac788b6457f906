from __future__ import annotations

from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.parameters import Refreshable, StageName
from flows.pipeline import REFRESHED
from flows.setup import PREFECT_YAML, open_server, read_deployments
from semacdr.errors import ConfigError
from semacdr.pipeline import STAGES
from tests.processes import PROJECT, free_port
from tests.receiver import receiving


def test_parameters_name_the_stages():
    assert list(StageName.__args__) == [stage.name for stage in STAGES]
    refreshable = [stage.name for stage in STAGES if stage.gather or stage.keeps]
    assert list(Refreshable.__args__) == refreshable
    assert [stage for switches in REFRESHED.values() for stage in switches.values()] == refreshable


@pytest.fixture(autouse=True)
def _gpu_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMACDR_GPU_POOL", "graphics")


def test_our_deployments_are_right():
    pools = [deployment["work_pool"]["name"] for deployment in read_deployments(PROJECT / PREFECT_YAML)]
    assert pools == ["semacdr", "graphics", "graphics", "graphics", "graphics", "semacdr"]


def test_gpu_pool_without_a_name_says_which_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SEMACDR_GPU_POOL")
    with pytest.raises(ConfigError, match="SEMACDR_GPU_POOL"):
        read_deployments(PROJECT / PREFECT_YAML)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("timezone: UTC", "timezone: Europe/Berlni", "Europe/Berlin"),
        ("work_pool: *cpu", "work_pool: {}", "no work pool"),
    ],
)
def test_wrong_deployment_is_named(tmp_path: Path, old: str, new: str, said: str):
    path = tmp_path / "prefect.yaml"
    path.write_text((PROJECT / PREFECT_YAML).read_text().replace(old, new))
    with pytest.raises(ConfigError, match=said):
        read_deployments(path)


def test_no_server_says_how_to_start_one():
    with (
        temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}),
        pytest.raises(ConfigError, match="prefect server start"),
        open_server(),
    ):
        pass


def test_without_a_url_says_which_variable():
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(ConfigError, match="PREFECT_API_URL"),
        open_server(),
    ):
        pass


def test_url_of_the_ui_says_that_the_api_has_another():
    with (
        receiving(answer=b"<html>") as ui,
        temporary_settings({PREFECT_API_URL: ui.url}),
        pytest.raises(ConfigError, match="ends with /api"),
        open_server(),
    ):
        pass


def test_server_with_a_password_says_which_variable():
    with (
        receiving(status=401) as locked,
        temporary_settings({PREFECT_API_URL: locked.url}),
        pytest.raises(ConfigError, match="PREFECT_API_AUTH_STRING"),
        open_server(),
    ):
        pass


def test_server_of_another_version_is_refused():
    with (
        receiving(answer=b'"2.20.1"') as old,
        temporary_settings({PREFECT_API_URL: old.url}),
        pytest.raises(ConfigError, match=r"another version(.|\n)*2\.20\.1"),
        open_server(),
    ):
        pass
