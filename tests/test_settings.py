from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from semacdr.errors import ConfigError
from semacdr.settings import load_settings


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_arguments_win_over_environment_over_file(empty_folder: Path, monkeypatch: pytest.MonkeyPatch):
    (empty_folder / "semacdr.toml").write_text('store = "from-file"\n[llm]\nconcurrency = 3\n')
    assert load_settings().store == "from-file"
    monkeypatch.setenv("SEMACDR_STORE", "from-environment")
    assert load_settings().store == "from-environment"
    assert load_settings(store=Path("from-argument")).store == "from-argument"
    assert load_settings(store=None).llm.concurrency == 3


def test_unknown_key_is_refused_with_the_near_one(empty_folder: Path):
    (empty_folder / "semacdr.toml").write_text("[llm]\nconcurency = 3\n")
    with pytest.raises(ConfigError, match=r"llm\.concurency: unknown key, did you mean 'concurrency'"):
        load_settings()


def test_impossible_value_says_which(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SEMACDR_LLM__CONCURRENCY", "0")
    with pytest.raises(ConfigError, match=r"llm\.concurrency: .*greater than or equal to 1 \(found '0'\)"):
        load_settings()


def test_settings_file_that_is_no_toml_is_refused(empty_folder: Path):
    (empty_folder / "semacdr.toml").write_text("store = \n")
    with pytest.raises(ConfigError, match=r"semacdr\.toml is not TOML"):
        load_settings()


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SEMACDR_LLM__API_KEY", "hush")
    assert "hush" not in repr(load_settings())


def test_list_in_the_environment_that_is_no_json_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SEMACDR_LLM__URLS", "http://gpu-1:8000/v1")
    with pytest.raises(ConfigError, match=r"a list as JSON: '\[\"http"):
        load_settings()


@pytest.mark.parametrize(("set_by_user", "wanted"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_waiting_threads_sleep_unless_the_user_says_otherwise(set_by_user: dict[str, str], wanted: str):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | set_by_user
    command = [sys.executable, "-c", "import semacdr, os; print(os.environ['OMP_WAIT_POLICY'])"]
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout == f"{wanted}\n"


def test_unknown_variable_is_refused_with_the_near_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SEMACDR_ALERT_WEBHOOK", "http://127.0.0.1:1")  # no setting, but ours
    monkeypatch.setenv("SEMACDR_LLM__URLS", '["http://127.0.0.1:1/v1"]')
    monkeypatch.setenv("SEMACDR_API_PORT_4200_TCP", "tcp://10.0.0.1:4200")  # Kubernetes', of a service of that name
    load_settings()
    monkeypatch.setenv("SEMACDR_STOER", "elsewhere")
    with pytest.raises(ConfigError, match=r"SEMACDR_STOER(.*\n)+.*did you mean 'SEMACDR_STORE'"):
        load_settings()


def test_endpoint_without_a_scheme_and_a_store_without_a_name_are_refused(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="store: String should have at least 1 character"):
        load_settings(store="")
    monkeypatch.setenv("SEMACDR_LLM__URLS", '["localhost:8000/v1"]')
    with pytest.raises(ConfigError, match=r"llm\.urls\.0: .*https\?://"):
        load_settings()
