"""Cross-entropy over a whole catalogue, in memory that does not grow with positions times items."""

# Shapes: P positions, I items of one domain, D model width, C positions of a chunk.

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK_SCORES = 4_000_000
"""Scores held at a time (16 MB in single precision: about a core's share of cache and a small matrix product)."""


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The gradient is made in the forward pass, chunk by chunk, so that no score is kept or made twice.

    The idea is that of fused linear cross-entropy (Hsu et al. 2024, Liger Kernel, section 3.2).
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 (torch's own context)
        state_PD: Tensor,
        item_ID: Tensor,
        target_P: Tensor,
        weight_P: Tensor,
    ) -> Tensor:
        loss = state_PD.new_zeros(())
        wants_gradient = state_PD.requires_grad or item_ID.requires_grad
        grad_state_PD = torch.empty_like(state_PD) if wants_gradient else None
        grad_item_ID = torch.zeros_like(item_ID) if wants_gradient else None
        size = max(1, CHUNK_SCORES // len(item_ID))
        for start in range(0, len(state_PD), size):
            part = slice(start, start + size)
            state_CD, target_C1, weight_C = state_PD[part], target_P[part, None], weight_P[part]
            score_CI = state_CD @ item_ID.T
            at_target_C1 = score_CI.gather(1, target_C1)
            total_C1 = score_CI.logsumexp(dim=1, keepdim=True)
            loss += (weight_C * (total_C1 - at_target_C1)[:, 0]).sum()
            if grad_state_PD is None or grad_item_ID is None:
                continue
            grad_CI = score_CI.sub_(total_C1).exp_()
            grad_CI.scatter_add_(1, target_C1, grad_CI.new_full(target_C1.shape, -1.0))
            grad_CI.mul_(weight_C[:, None])
            grad_state_PD[part] = grad_CI @ item_ID
            grad_item_ID.addmm_(grad_CI.T, state_CD)
        if grad_state_PD is not None and grad_item_ID is not None:
            ctx.save_for_backward(grad_state_PD, grad_item_ID)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:  # noqa: ANN401
        grad_state_PD, grad_item_ID = ctx.saved_tensors
        return grad_state_PD * grads[0], grad_item_ID * grads[0], None, None


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
    loss: Tensor = _ChunkedCrossEntropy.apply(state_PD, item_ID, target_P, weight_P)  # type: ignore[no-untyped-call]
    return loss
