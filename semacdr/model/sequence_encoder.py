"""One causal pre-norm transformer that reads every history: the mixed one, and each domain's own.

The weights are shared; only the mask and the positions differ, so both readings are one batched pass.
"""

# Shapes: B histories, L events (pads last), D model width, H heads, F width of a head, N domains.

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

ROPE_BASE = 10_000.0
"""Su et al. 2021 (RoFormer), section 3.2.2."""
WIDENING = 2
"""Of the feed-forward layer: between the 1 of SASRec (Kang and McAuley 2018, section III.B) and the usual 4."""


def causal_mask(is_event_BL: Bool[Tensor, "batch length"]) -> Bool[Tensor, "batch length length"]:
    """Return what each event may look at in the mixed history: itself and every event before it.

    Pads look at themselves, so that no row is empty.
    """
    length = is_event_BL.shape[1]
    before_LL = torch.ones(length, length, dtype=torch.bool, device=is_event_BL.device).tril()
    itself_LL = torch.eye(length, dtype=torch.bool, device=is_event_BL.device)
    return (before_LL & is_event_BL[:, None, :]) | itself_LL


def own_mask(
    domain_BL: Int[Tensor, "batch length"], is_event_BL: Bool[Tensor, "batch length"]
) -> Bool[Tensor, "batch length length"]:
    """Return what each event may look at in its own domain's history."""
    return causal_mask(is_event_BL) & (domain_BL[:, :, None] == domain_BL[:, None, :])


def counts_by_domain(
    domain_BL: Int[Tensor, "batch length"], is_event_BL: Bool[Tensor, "batch length"], num_domains: int
) -> Int[Tensor, "batch length domains"]:
    """Return how many events of each domain there are up to each position, itself included."""
    is_domain_BLN = nn.functional.one_hot(domain_BL, num_domains) * is_event_BL[:, :, None]
    return is_domain_BLN.cumsum(dim=1)


def rotate(x_BHLF: Float[Tensor, "batch heads length width"], position_BL: Int[Tensor, "batch length"]) -> Tensor:
    """Return the vectors rotated by their positions, so that products depend on distances only."""
    half = x_BHLF.shape[-1] // 2
    rate_F = ROPE_BASE ** (-torch.arange(half, device=x_BHLF.device, dtype=x_BHLF.dtype) / half)
    angle_B1LF = (position_BL[:, :, None].to(x_BHLF.dtype) * rate_F)[:, None]
    cos, sin = angle_B1LF.cos(), angle_B1LF.sin()
    first, second = x_BHLF[..., :half], x_BHLF[..., half:]
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


class Block(nn.Module):
    """Attention and a feed-forward layer, each behind a norm and beside a residual."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.feed_norm = nn.LayerNorm(dim)
        self.feed = nn.Sequential(nn.Linear(dim, WIDENING * dim), nn.GELU(), nn.Linear(WIDENING * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x_BLD: Float[Tensor, "batch length dim"],
        position_BL: Int[Tensor, "batch length"],
        mask_BLL: Bool[Tensor, "batch length length"],
    ) -> Float[Tensor, "batch length dim"]:
        """Return the states after this block."""
        batch, length, dim = x_BLD.shape
        qkv = self.qkv(self.attention_norm(x_BLD)).view(batch, length, 3, self.num_heads, dim // self.num_heads)
        q_BHLF, k_BHLF, v_BHLF = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        read_BHLF = nn.functional.scaled_dot_product_attention(
            rotate(q_BHLF, position_BL), rotate(k_BHLF, position_BL), v_BHLF, attn_mask=mask_BLL[:, None]
        )
        x_BLD = x_BLD + self.dropout(self.out(read_BHLF.transpose(1, 2).reshape(batch, length, dim)))
        fed_BLD: Tensor = x_BLD + self.dropout(self.feed(self.feed_norm(x_BLD)))
        return fed_BLD


class SequenceEncoder(nn.Module):
    """Reads histories of item vectors into one state per event and reading."""

    def __init__(self, dim: int, num_blocks: int, num_heads: int, dropout: float, num_domains: int) -> None:
        super().__init__()
        self.num_domains = num_domains
        self.domains = nn.Embedding(num_domains, dim)
        nn.init.zeros_(self.domains.weight)
        self.input_dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(dim, num_heads, dropout) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        x_BLD: Float[Tensor, "batch length dim"],
        domain_BL: Int[Tensor, "batch length"],
        is_event_BL: Bool[Tensor, "batch length"],
        *,
        mixed: bool = True,
        own: bool = True,
    ) -> tuple[Float[Tensor, "batch length dim"] | None, Float[Tensor, "batch length dim"] | None]:
        """Return the mixed and the own states of every event; None for a reading that is not asked for.

        An event's own state has seen the events of its own domain only.
        """
        masks, positions = [], []
        if mixed:
            masks.append(causal_mask(is_event_BL))
            positions.append(torch.arange(x_BLD.shape[1], device=x_BLD.device).expand_as(domain_BL))
        if own:
            masks.append(own_mask(domain_BL, is_event_BL))
            counts_BLN = counts_by_domain(domain_BL, is_event_BL, self.num_domains)
            positions.append(counts_BLN.gather(2, domain_BL[:, :, None])[:, :, 0])
        readings = len(masks)
        states = self.input_dropout(x_BLD + self.domains(domain_BL)).repeat(readings, 1, 1)
        position, mask = torch.cat(positions), torch.cat(masks)
        for block in self.blocks:
            states = block(states, position, mask)
        parts = list(self.norm(states).chunk(readings))
        return (parts.pop(0) if mixed else None), (parts.pop(0) if own else None)
