"""Hard negatives: items near an item by the model's own vectors, yet not so near that they may be as good."""

# Shapes: I items of one domain, C of a chunk, N neighbours kept, D model width, E encoder width.

import torch
from jaxtyping import Float, Int
from torch import Tensor

RANKS = (20, 200)
"""Nearer ones are too often what the user would take as well (research 5.8)."""
_CHUNK = 64


@torch.no_grad()
def neighbours(
    vector_ID: Float[Tensor, "items dim"], raw_IE: Float[Tensor, "items encoder"], duplicate_cosine: float
) -> Int[Tensor, "items neighbours"]:
    """Return for each item those at ranks ``RANKS`` by cosine, by exact search, in no order; -1 fills up.

    Args:
        vector_ID: of one domain.
        raw_IE: text vectors as the encoder gave them; zeros for an item without a text.
        duplicate_cosine: items whose texts are nearer than this are left out.
    """
    first, last = RANKS[0] - 1, min(RANKS[1], len(vector_ID) - 1)
    near_IN = torch.full((len(vector_ID), max(0, last - first)), -1, dtype=torch.int32, device=vector_ID.device)
    if last <= first:
        return near_IN
    unit_ID, text_IE = (torch.nn.functional.normalize(rows, dim=1) for rows in (vector_ID, raw_IE))
    for item_C in torch.arange(len(vector_ID), device=vector_ID.device).split(_CHUNK):
        cosine_CI = unit_ID[item_C] @ unit_ID.T
        cosine_CI[torch.arange(len(item_C), device=item_C.device), item_C] = -torch.inf
        near_CN = cosine_CI.topk(last).indices[:, first:]
        of_text_CN = torch.einsum("ce,cne->cn", text_IE[item_C], text_IE[near_CN])
        near_CN = near_CN.masked_fill(of_text_CN > duplicate_cosine, -1)
        near_IN[item_C] = near_CN.sort(dim=1, descending=True).values.int()
    return near_IN
