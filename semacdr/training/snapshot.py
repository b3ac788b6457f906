"""What a fit needs to go on after a crash: one safetensors file, replaced atomically after each epoch.

Weights, the optimiser's moments, the state of every random generator, and the best weights so far. So a fit that was
killed ends with the same weights as one that was not.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from semacdr.training.fit import Fit

log = structlog.get_logger()

_RECORD = "record"


def save_snapshot(path: Path, fit: Fit, record: dict[str, Any], best: dict[str, Tensor]) -> None:
    """Write a snapshot of a fit between two epochs.

    Args:
        path: is replaced in one step.
        fit: as it is.
        record: what else is to be remembered, as JSON.
        best: the weights of the best epoch; empty: none yet.
    """
    tensors = {f"module.{name}": value for name, value in fit.modules.state_dict().items()}
    for index, state in fit.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value for name, value in state.items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    tensors["random"] = torch.get_rng_state()
    if fit.compute.device.type == "cuda":
        tensors["random_cuda"] = torch.cuda.get_rng_state(fit.compute.device)
    facts = {
        **record,
        "steps": fit.steps,
        "rng": fit.rng.bit_generator.state,
        "own_rng": fit.own_rng.bit_generator.state,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    save_file(
        {name: value.contiguous().clone() for name, value in tensors.items()}, draft, {_RECORD: json.dumps(facts)}
    )
    with draft.open("rb") as written:
        os.fsync(written.fileno())
    os.replace(draft, path)  # noqa: PTH105 (the point is that it replaces)


def epochs_in(path: Path) -> int:
    """Return after how many epochs a snapshot was taken; 0: there is none that can be read."""
    if not path.is_file():
        return 0
    try:
        with safe_open(path, framework="pt") as file:
            return len(json.loads(file.metadata()[_RECORD])["history"])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        log.warning("a snapshot of the training is broken; it starts anew", file=str(path), error=str(error))
        return 0


def load_snapshot(path: Path, fit: Fit) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Put a fit back to where a snapshot was taken.

    Returns:
        The record, and the weights of the best epoch.
    """
    with safe_open(path, framework="pt") as file:
        record: dict[str, Any] = json.loads(file.metadata()[_RECORD])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    fit.modules.load_state_dict(_below("module.", tensors))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _below("optimiser.", tensors).items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    groups = fit.optimiser.state_dict()["param_groups"]
    fit.optimiser.load_state_dict({"state": state, "param_groups": groups})
    torch.set_rng_state(tensors["random"])
    if fit.compute.device.type == "cuda" and "random_cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random_cuda"], fit.compute.device)
    fit.steps = record.pop("steps")
    for rng, name in ((fit.rng, "rng"), (fit.own_rng, "own_rng")):
        rng.bit_generator.state = _generator_state(record.pop(name))
    return record, _below("best.", tensors)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _generator_state(state: dict[str, Any]) -> dict[str, Any]:
    assert state["bit_generator"] == type(np.random.default_rng().bit_generator).__name__
    return state
