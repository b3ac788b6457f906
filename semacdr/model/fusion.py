"""Adaptive fusion: how much of a user's target, source and mixed history goes into what is predicted."""

# Shapes: Q queries, D model width, N domains, 3 threads in the order of ``Thread``, S facts about the support.

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from semacdr.model.config import Thread
from semacdr.model.item_encoder import masked_softmax

NUM_FACTS = 5
"""log counts of the target and source histories, log days since the last event of each, and whether both are there."""


class SourceMix(nn.Module):
    """The source state: the other domains' own states, weighted by content and support."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.score = nn.Linear(dim + 1, 1)
        nn.init.zeros_(self.score.weight)

    def forward(
        self,
        state_QND: Float[Tensor, "queries domains dim"],
        log_count_QN: Float[Tensor, "queries domains"],
        usable_QN: Bool[Tensor, "queries domains"],
    ) -> Float[Tensor, "queries dim"]:
        """Return the mix; zeros where no domain is usable."""
        logit_QN = self.score(torch.cat([state_QND, log_count_QN[:, :, None]], dim=2))[:, :, 0]
        return (masked_softmax(logit_QN, usable_QN)[:, :, None] * state_QND).sum(dim=1)


class ThreadFusion(nn.Module):
    """Weighs the three threads of a query."""

    def __init__(self, dim: int, kind: Literal["gate", "mean"]) -> None:
        super().__init__()
        self.kind = kind
        last = nn.Linear(dim, len(Thread))
        # It starts at 0: at first every history that is there counts alike.
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.gate = nn.Sequential(nn.Linear(len(Thread) * dim + NUM_FACTS, dim), nn.GELU(), last)

    def forward(
        self,
        state_Q3D: Float[Tensor, "queries 3 dim"],
        usable_Q3: Bool[Tensor, "queries 3"],
        facts_QS: Float[Tensor, "queries facts"],
    ) -> tuple[Float[Tensor, "queries dim"], Float[Tensor, "queries 3"]]:
        """Return the fused state and the threads' weights; zeros where no thread is usable."""
        if self.kind == "gate":
            logit_Q3 = self.gate(torch.cat([state_Q3D.flatten(1), facts_QS], dim=1))
        else:
            logit_Q3 = torch.zeros_like(usable_Q3, dtype=state_Q3D.dtype)
        weight_Q3 = masked_softmax(logit_Q3, usable_Q3)
        return (weight_Q3[:, :, None] * state_Q3D).sum(dim=1), weight_Q3
