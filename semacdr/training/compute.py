"""Where a fit computes."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch

from semacdr.errors import ConfigError


@dataclass(frozen=True)
class Compute:
    """Which item goes where is counted on the CPU; what is computed with lies on the device."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    bfloat16: bool = False
    """Item vectors and states in mixed precision; losses and weights stay single."""
    compiled: bool = False
    """Transformer blocks and text projections through ``torch.compile``."""

    @classmethod
    def of(cls, device: str, *, bfloat16: bool, compiled: bool) -> Compute:
        """Choose the device; of several processes on one machine each gets its own GPU.

        Args:
            device: auto, cpu or cuda.
            bfloat16: see the field.
            compiled: see the field.

        Raises:
            ConfigError: cuda, and torch sees no GPU.
        """
        seen = torch.cuda.is_available()
        if device == "cuda" and not seen:
            raise ConfigError(
                'device = "cuda", but torch sees no GPU',
                found=f"torch {torch.__version__}",
                do='set SEMACDR_DEVICE=cpu, or install the environment for GPUs ("make setup GPU=1")',
            )
        if device == "cpu" or not seen:
            return cls(bfloat16=bfloat16, compiled=compiled)
        return cls(torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))), bfloat16, compiled)

    def precision(self) -> AbstractContextManager[object]:
        """Return what the forward pass runs in."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.bfloat16 else nullcontext()
