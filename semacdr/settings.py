"""Settings of the machine: where things lie and which engines are used.

Nothing here shapes content, but for the LLM's model name, which the semantics stage puts into the identity of
every answer. Read once, at the entry point, from ``semacdr.toml`` in the working directory and from the environment
(``SEMACDR_STORE``, ``SEMACDR_LLM__URLS``, ...).
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from semacdr.dataset import config_error
from semacdr.errors import ConfigError, close_names


class DuckDbSettings(BaseModel):
    """Limits of the ingest and sequences stages."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    memory_limit: str = "2GB"
    """Of a process; DuckDB may take four fifths of it, and spills to disk beyond."""
    threads: int | None = Field(default=None, ge=1)
    """None: one per core."""


class LlmSettings(BaseModel):
    """The vLLM server that writes item semantics: one of ours, or one that runs already."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    urls: tuple[Annotated[str, Field(pattern="^https?://.")], ...] = ()
    """OpenAI-compatible endpoints (``http://host:8000/v1``); empty: a server is started on this machine."""
    api_key: SecretStr | None = None
    """Of the endpoints; best set as ``SEMACDR_LLM__API_KEY``."""
    model: str | None = None
    """Folder or hub name. None: ``gpu_model`` on a GPU, else the converted SmolLM2 below ``cache``."""
    gpu_model: str = "Qwen/Qwen3-4B-Instruct-2507"
    served_name: str | None = None
    """The model's name at the endpoint; None: the folder's or model's own name."""
    revision: str = ""
    """Revision of the model, kept with every answer: another revision is another model. Of a model of the hub it is
    what a server that we start serves; for a folder and for servers elsewhere it is what you say."""
    python: Path | None = None
    """Interpreter that has vLLM; None: ``.venv-vllm/bin/python`` here, or beside this environment."""
    max_model_len: int = Field(default=2048, ge=256)
    """Context of a server that we start, in tokens."""
    replicas: int = Field(default=1, ge=0)
    """Servers that we start, each on a GPU of its own; 0: as many as there are GPUs."""
    restarts: int = Field(default=3, ge=0)
    """How often each of them is started anew within a run."""
    concurrency: int = Field(default=256, ge=1)
    """The most requests in flight per endpoint: vLLM's own ``max_num_seqs`` keeps its queue full. A run starts with
    32 and finds by itself how many are good."""
    start_timeout_s: float = Field(default=300, gt=0)
    request_timeout_s: float = Field(default=300, gt=0)
    patience_s: float = Field(default=60, gt=0)
    """How long a run waits while no endpoint answers before it fails; what was answered is kept."""


class EncoderSettings(BaseModel):
    """Where texts are embedded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str | None = None
    """A vLLM pooling endpoint (``http://host:8001/v1``); None: sentence-transformers in this process."""
    api_key: SecretStr | None = None
    batch_size: int = Field(default=64, ge=1)


_SERVICE_LINK = re.compile(r"_(SERVICE_HOST|SERVICE_PORT|PORT)(_|$)")
"""What Kubernetes puts into the environment for a service that is called like us."""
OTHER_VARIABLES = frozenset({"SEMACDR_ALERT_WEBHOOK", "SEMACDR_GPU_POOL"})
"""Read by what sets Prefect up."""


class Settings(BaseSettings):
    """The one settings tree."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="SEMACDR_",
        env_nested_delimiter="__",
        toml_file="semacdr.toml",
    )

    store: str = Field(default="store", min_length=1)
    """Where artifacts are published: a folder, or ``s3://bucket/prefix``."""
    cache: Path = Path(".cache")
    """What can be made again: converted models."""
    datasets: tuple[Path, ...] = (Path("examples"),)
    """Folders in which data sets are found by name."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of torch; None: torch's own choice."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models are trained; ``auto``: on a GPU if torch sees one. Lists are made on the CPU."""
    bfloat16: bool = False
    """Train in mixed precision: faster on GPUs, less exact."""
    compile: bool = False
    """Train through ``torch.compile``, which needs a C++ compiler and most of a minute: no faster on a CPU, unknown on
    a GPU."""
    runner: str = Field(default="local", pattern=r"^(local|ray|dask|(ray|tcp|tls)://.+)$")
    """Where shards of ingest, embeddings and recommendations run: ``local``, one after the other; ``ray`` or ``dask``,
    a cluster on this machine; or the address of one (``ray://head:10001``, ``tcp://scheduler:8786``)."""
    apart: bool = False
    """``pipeline/nightly`` runs each step as a deployment of its own: for CPU and GPU work pools that differ."""
    stage_timeout_s: float | None = Field(default=86_400, gt=0)
    """How long one stage of a flow may take; None: as long as it likes. What it has cached is kept."""
    logs: Literal["auto", "console", "json"] = "auto"
    """``json``: one object a line. ``auto``: for people in a terminal, ``json`` elsewhere."""
    duckdb: DuckDbSettings = DuckDbSettings()
    llm: LlmSettings = LlmSettings()
    encoder: EncoderSettings = EncoderSettings()

    @field_validator("store", mode="before")
    @classmethod
    def _store_may_be_a_path(cls, store: object) -> object:
        return str(store) if isinstance(store, Path) else store

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over the environment, the environment over ``semacdr.toml``."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_settings(**overrides: object) -> Settings:
    """Read the settings; ``overrides`` that are None are left out.

    Raises:
        ConfigError: an unknown key or an impossible value.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    _refuse_unknown_variables()
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise config_error("settings (semacdr.toml, SEMACDR_*)", error, Settings, "semacdr/settings.py") from error
    except SettingsError as error:
        raise ConfigError(
            f"settings: {error}",
            found=error.__cause__,
            expected="in a variable of the environment, a list as JSON: '[\"http://gpu-1:8000/v1\"]'",
            do="mend the variable",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("semacdr.toml is not TOML", found=error, do="mend the line that is named") from error


def _refuse_unknown_variables() -> None:
    """Look for slips of the pen in the environment, which pydantic takes for variables of somebody else."""
    known = {f"SEMACDR_{name.upper()}" for name in Settings.model_fields} | OTHER_VARIABLES
    given = {name.upper().partition("__")[0] for name in os.environ if name.upper().startswith("SEMACDR_")}
    given = {name for name in given if not _SERVICE_LINK.search(name)}
    if unknown := sorted(given - known):
        raise ConfigError(
            f"no setting is called {unknown[0]}",
            found="a variable of the environment",
            expected=close_names(unknown[0], known),
            do="mend it, or unset it",
        )
