"""Adaptive fusion: how much of a user's target, source and mixed history goes into what is predicted."""

# Shapes: Q queries, D model width, N domains, 3 threads in the order of ``Thread``, S facts of support, C states,
# B histories, L events, W queries of a history.

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from semacdr.model.config import Thread
from semacdr.model.histories import HistoryBatch
from semacdr.model.item_encoder import masked_softmax
from semacdr.model.sequence_encoder import TIME_BUCKETS, time_bucket

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

    def __init__(self, dim: int, kind: Literal["gate", "mean", "sum", "concat", "target"]) -> None:
        super().__init__()
        self.kind = kind
        if kind == "gate":
            last = nn.Linear(dim, len(Thread))
            # It starts at 0: at first every history that is there counts alike.
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.gate = nn.Sequential(nn.Linear(len(Thread) * dim + NUM_FACTS, dim), nn.GELU(), last)
        if kind == "concat":
            self.joint = nn.Linear(len(Thread) * dim, dim)

    def forward(
        self,
        state_Q3D: Float[Tensor, "queries 3 dim"],
        usable_Q3: Bool[Tensor, "queries 3"],
        facts_QS: Float[Tensor, "queries facts"],
    ) -> tuple[Float[Tensor, "queries dim"], Float[Tensor, "queries 3"]]:
        """Return the fused state and the threads' weights; no thread usable: zeros, but for ``concat``.

        Without a gate the weights tell only which threads are there.
        """
        if self.kind == "gate":
            logit_Q3 = self.gate(torch.cat([state_Q3D.flatten(1), facts_QS], dim=1))
        else:
            logit_Q3 = torch.zeros_like(usable_Q3, dtype=state_Q3D.dtype)
        if self.kind == "target":
            usable_Q3 = usable_Q3 & (usable_Q3.cumsum(dim=1) == 1)
        weight_Q3 = masked_softmax(logit_Q3, usable_Q3)
        if self.kind == "concat":
            return self.joint((state_Q3D * usable_Q3[:, :, None]).flatten(1)), weight_Q3
        share_Q3 = usable_Q3.to(state_Q3D.dtype) if self.kind == "sum" else weight_Q3
        return (share_Q3[:, :, None] * state_Q3D).sum(dim=1), weight_Q3


class GatedCrossAttention(nn.Module):
    """The target's state reads the other states; what it reads passes a gate that starts at 0: as if it were not there.

    tanh(gamma) W_o attention(target <- others), gamma = 0 at first (Flamingo: Alayrac et al. 2022, section 2.2).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(
        self,
        target_QD: Float[Tensor, "queries dim"],
        state_QCD: Float[Tensor, "queries states dim"],
        usable_QC: Bool[Tensor, "queries states"],
    ) -> Float[Tensor, "queries dim"]:
        """Return what is added to the fused state; zeros where no state is usable."""
        logit_QC = (self.key(state_QCD) @ self.query(target_QD)[:, :, None])[:, :, 0] / target_QD.shape[1] ** 0.5
        read_QD = (masked_softmax(logit_QC, usable_QC)[:, :, None] * state_QCD).sum(dim=1)
        added_QD: Tensor = torch.tanh(self.gate) * self.out(read_QD) * usable_QC.any(dim=1, keepdim=True)
        return added_QD


class TimedReading(nn.Module):
    """The history's items read once more at the time of the query, each by its content and its age at that time.

    tanh(gamma) W_o sum_l softmax_l(q . k_l / sqrt(d) + b[age_l]) x_l, gamma = 0 at first. The encoder's states know
    nothing of the query's time: one state may be read at many.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self.age_bias = nn.Parameter(torch.zeros(TIME_BUCKETS))
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(
        self, state_QD: Float[Tensor, "queries dim"], x_BLD: Float[Tensor, "batch length dim"], batch: HistoryBatch
    ) -> Float[Tensor, "queries dim"]:
        """Return what is added to the fused state; zeros where the history is empty.

        Args:
            state_QD: the fused state.
            x_BLD: the items' vectors.
            batch: the histories; ``row_Q`` ascends.
        """
        count_B = torch.bincount(batch.row_Q, minlength=len(x_BLD))
        slot_Q = torch.arange(len(batch.row_Q), device=count_B.device) - (count_B.cumsum(0) - count_B)[batch.row_Q]
        width = int(count_B.max())

        def by_history(value: Tensor) -> Tensor:
            return value.new_zeros(len(x_BLD), width, *value.shape[1:]).index_put((batch.row_Q, slot_Q), value)

        # Position -1 sees nothing; what a slot without a query sees is never read.
        seen_BWL = torch.arange(x_BLD.shape[1], device=x_BLD.device) <= by_history(batch.position_Q)[:, :, None]
        bucket_BWL = time_bucket(by_history(batch.time_Q)[:, :, None] - batch.time_BL[:, None, :])
        logit_BWL = by_history(self.query(state_QD)) @ self.key(x_BLD).transpose(1, 2) / x_BLD.shape[2] ** 0.5
        weight_BWL = masked_softmax(logit_BWL + self.age_bias[bucket_BWL], seen_BWL)
        read_QD = (weight_BWL @ x_BLD)[batch.row_Q, slot_Q]
        added_QD: Tensor = torch.tanh(self.gate) * self.out(read_QD) * (batch.position_Q >= 0)[:, None]
        return added_QD
