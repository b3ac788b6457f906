"""What a prediction costs: cross-entropy over a domain's items or a sample of them, gBCE, BCE.

No loss needs memory that grows with positions times items: scores are made, used and dropped chunk by chunk.
"""

# Shapes: P positions, I items of one domain, K negatives, D model width, C positions of a chunk.

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

CHUNK_SCORES = 1_000_000
"""Scores held at a time (4 MB in single precision: about a core's share of cache and a small matrix product)."""


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The gradient is made in the forward pass, chunk by chunk, so that no score is kept or made twice.

    The idea is that of fused linear cross-entropy (Hsu et al. 2024, Liger Kernel, section 3.2). The target's score
    comes apart from those of the candidates; a candidate that is the target itself does not count.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 (torch's own context)
        state_PD: Tensor,
        target_PD: Tensor,
        candidate_KD: Tensor,
        at_target_P: Tensor,
        weight_P: Tensor,
        offset: float | Tensor,
    ) -> Tensor:
        loss = state_PD.new_zeros(())
        grad_state_PD = torch.empty_like(state_PD)
        grad_target_PD = torch.empty_like(target_PD)
        grad_candidate_KD = torch.zeros_like(candidate_KD)
        size = max(1, CHUNK_SCORES // len(candidate_KD))
        for start in range(0, len(state_PD), size):
            part = slice(start, start + size)
            state_CD, own_CD, weight_C = state_PD[part], target_PD[part], weight_P[part]
            score_CK = state_CD @ candidate_KD.T
            if isinstance(offset, Tensor) or offset:
                score_CK += offset
            hit_C = torch.nonzero(at_target_P[part] >= 0)[:, 0]
            score_CK[hit_C, at_target_P[part][hit_C]] = -torch.inf
            score_C = (state_CD * own_CD).sum(dim=1)
            total_C = torch.logaddexp(score_CK.logsumexp(dim=1), score_C)
            loss += (weight_C * (total_C - score_C)).sum()
            share_CK = score_CK.sub_(total_C[:, None]).exp_().mul_(weight_C[:, None])
            missing_C1 = (((score_C - total_C).exp() - 1) * weight_C)[:, None]
            grad_state_PD[part] = torch.addmm(missing_C1 * own_CD, share_CK, candidate_KD)
            grad_target_PD[part] = missing_C1 * state_CD
            grad_candidate_KD.addmm_(share_CK.T, state_CD)
        ctx.save_for_backward(grad_state_PD, grad_target_PD, grad_candidate_KD)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        state, target, candidate = ctx.saved_tensors
        return state * grads[0], target * grads[0], candidate * grads[0], None, None, None


def chunked_cross_entropy(
    state_PD: Float[Tensor, "positions dim"],
    item_ID: Float[Tensor, "items dim"],
    target_P: Int[Tensor, " positions"],
    weight_P: Float[Tensor, " positions"],
) -> Float[Tensor, ""]:
    """Return the weighted sum of -log softmax(state . items)[target] over the positions.

    Args:
        state_PD: users' vectors.
        item_ID: vectors of all items of the domain.
        target_P: the row of ``item_ID`` that was taken.
        weight_P: weight of each position; no gradient flows into it.
    """
    return sampled_cross_entropy(state_PD, item_ID[target_P], item_ID, target_P, weight_P)


def sampled_cross_entropy(
    state_PD: Float[Tensor, "positions dim"],
    target_PD: Float[Tensor, "positions dim"],
    candidate_KD: Float[Tensor, "candidates dim"],
    at_target_P: Int[Tensor, " positions"],
    weight_P: Float[Tensor, " positions"],
    stands_for: float | Float[Tensor, " candidates"] = 1.0,
) -> Float[Tensor, ""]:
    """Return the weighted sum of the cross-entropy of each target among itself and the candidates.

    Args:
        state_PD: users' vectors.
        target_PD: vectors of what was taken.
        candidate_KD: vectors of candidates that all positions share.
        at_target_P: which candidate is a position's own target; -1: none.
        weight_P: weight of each position; no gradient flows into it.
        stands_for: items that each candidate stands for, or all alike: its score is raised by the logarithm (logQ
            correction, Bengio and Senecal 2008, section III.A; 1: none).
    """
    offset = stands_for.log() if isinstance(stands_for, Tensor) else math.log(stands_for)
    loss: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        state_PD, target_PD, candidate_KD, at_target_P, weight_P, offset
    )
    return loss


def binary_cross_entropy(
    positive_P: Float[Tensor, " positions"],
    negative_PK: Float[Tensor, "positions negatives"],
    weight_P: Float[Tensor, " positions"],
    power: float = 1.0,
) -> Float[Tensor, ""]:
    """Return the weighted sum of -log(sigmoid(s+)^power) - sum over negatives of log(1 - sigmoid(s-)).

    With ``power`` 1 and one negative it is the loss of SASRec; ``gbce_power`` makes it gBCE. A score of -inf is no
    negative.
    """
    softplus = nn.functional.softplus
    loss: Tensor = (weight_P * (power * softplus(-positive_P) + softplus(negative_PK).sum(dim=1))).sum()
    return loss


def gbce_power(num_negatives: int, num_items: int, calibration: float) -> float:
    """Return beta of gBCE: a(t(1 - 1/a) + 1/a), a being the share of items sampled.

    Petrov and Macdonald 2023, gSASRec, equation 16.
    """
    share = num_negatives / max(1, num_items - 1)
    return share * (calibration * (1 - 1 / share) + 1 / share)
