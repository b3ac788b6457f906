"""Causal pre-norm transformers that read histories: the mixed one, and each domain's own.

Within one encoder the weights are shared; only the mask and the positions differ, so all readings are one batched pass.
"""

# Shapes: B histories, L events (pads last), D model width, H heads, F width of a head, N domains, T buckets of time.

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from semacdr.model.config import ModelConfig

ROPE_BASE = 10_000.0
"""Su et al. 2021 (RoFormer), section 3.2.2."""
WIDENING = 2
"""Of the feed-forward layer: between the 1 of SASRec (Kang and McAuley 2018, section III.B) and the usual 4."""
LEARNED_POSITIONS = 512
TIME_UNIT_S, TIME_BUCKETS = 3_600, 20
"""Times between events in powers of two of an hour: the last bucket begins at 30 years."""


class Reading(StrEnum):
    """What an event's state has seen."""

    MIXED = "mixed"
    """Every event up to it."""
    OWN = "own"
    """The events of its own domain up to it."""


@dataclass(frozen=True)
class Histories:
    """Padded histories as the encoder needs them."""

    domain_BL: Int[Tensor, "batch length"]
    time_BL: Int[Tensor, "batch length"]
    is_event_BL: Bool[Tensor, "batch length"]


def causal_mask(length: int, device: torch.device) -> Bool[Tensor, "1 length length"]:
    """Return what each event may look at in the mixed history: itself and every event before it.

    Pads come last, so that no event looks at one.
    """
    return torch.ones(1, length, length, dtype=torch.bool, device=device).tril()


def own_mask(domain_BL: Int[Tensor, "batch length"]) -> Bool[Tensor, "batch length length"]:
    """Return what each event may look at in its own domain's history."""
    same_BLL = domain_BL[:, :, None] == domain_BL[:, None, :]
    return same_BLL & causal_mask(domain_BL.shape[1], domain_BL.device)


def counts_by_domain(
    domain_BL: Int[Tensor, "batch length"], is_event_BL: Bool[Tensor, "batch length"], num_domains: int
) -> Int[Tensor, "batch length domains"]:
    """Return how many events of each domain there are up to each position, itself included."""
    is_domain_BLN = nn.functional.one_hot(domain_BL, num_domains) * is_event_BL[:, :, None]
    return is_domain_BLN.cumsum(dim=1)


def rotations(length: int, width: int, device: torch.device) -> Tensor:
    """Return the rotations of vectors by positions up to a length, as complex numbers: [1 + length, half the width]."""
    half = width // 2
    rate_F = ROPE_BASE ** (-torch.arange(half, device=device, dtype=torch.float32) / half)
    angle_PF = torch.arange(1 + length, device=device)[:, None] * rate_F
    return torch.polar(torch.ones_like(angle_PF), angle_PF)


def rotated(x_BLHF: Float[Tensor, "batch length heads width"], rotation_BLF: Tensor | None) -> Tensor:
    """Return vectors, pairs of real and imaginary parts, turned by their positions: products know distances only.

    Without rotations they stay as they are.
    """
    if rotation_BLF is None:
        return x_BLHF
    pairs_BLHF = torch.view_as_complex(x_BLHF.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs_BLHF * rotation_BLF[:, :, None]).flatten(-2).to(x_BLHF.dtype)


class Dropout(nn.Module):
    """Dropout whose random numbers cost an eighth: a share of 1/256 is fine enough, so one draw serves eight places."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.threshold = round(share * 256)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with some of its places at zero and the rest raised to the same mean."""
        if not self.training or not self.threshold:
            return x
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device).random_(-(2**63), None)
        kept = (words.view(torch.uint8)[: x.numel()] >= self.threshold).view(x.shape)
        return x * (kept * (256 / (256 - self.threshold)))


class Block(nn.Module):
    """Attention and a feed-forward layer, each behind a norm and beside a residual.

    With ``gated``, what either adds is multiplied by a sigmoid of the block's input, and the feed-forward layer is
    SwiGLU (LiGR: Borisyuk et al. 2025, section 3.2; as eSASRec uses it).
    """

    paired: Tensor

    def __init__(self, dim: int, num_heads: int, dropout: float, *, gated: bool = False) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.feed_norm = nn.LayerNorm(dim)
        self.widen = nn.Linear(dim, (2 if gated else 1) * WIDENING * dim)
        self.narrow = nn.Linear(WIDENING * dim, dim)
        # Of queries and keys, the weights hold a head's real parts before its imaginary ones; they are used in pairs.
        halves_X2F = torch.arange(2 * dim).view(2 * num_heads, 2, -1)
        order = torch.cat([halves_X2F.transpose(1, 2).flatten(), torch.arange(2 * dim, 3 * dim)])
        self.register_buffer("paired", order, persistent=False)
        self.gates = nn.ModuleList(nn.Linear(dim, dim) for _ in range(2 if gated else 0))
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x_BLD: Float[Tensor, "batch length dim"],
        rotation_BLF: Tensor | None,
        mask_BHLL: Tensor,
        at_BA: Int[Tensor, "batch asked"] | None = None,
    ) -> Float[Tensor, "batch asked dim"]:
        """Return the states after this block.

        Args:
            x_BLD: the states before it.
            rotation_BLF: of queries and keys.
            mask_BHLL: what is added to attention, -inf where nothing may be looked at; 1 for H.
            at_BA: the positions whose states are wanted; None: all.
        """
        dim, heads = x_BLD.shape[-1], (-1, x_BLD.shape[-1] // self.num_heads)
        weight, bias = (part.index_select(0, self.paired) for part in (self.qkv.weight, self.qkv.bias))
        normed_BLD = self.attention_norm(x_BLD)
        kv_BLHF = nn.functional.linear(normed_BLD, weight[dim:], bias[dim:]).unflatten(-1, heads)
        k_BLHF, v_BLHF = kv_BLHF.chunk(2, dim=2)
        k_BLHF = rotated(k_BLHF, rotation_BLF)
        if at_BA is not None:
            x_BLD, normed_BLD, mask_BHLL = _at(x_BLD, at_BA), _at(normed_BLD, at_BA), _at(mask_BHLL, at_BA[:, None])
            rotation_BLF = None if rotation_BLF is None else _at(rotation_BLF, at_BA)
        q_BLHF = nn.functional.linear(normed_BLD, weight[:dim], bias[:dim]).unflatten(-1, heads)
        q_BLHF = rotated(q_BLHF, rotation_BLF)
        q_BHLF, k_BHLF, v_BHLF = (part.transpose(1, 2) for part in (q_BLHF, k_BLHF, v_BLHF))
        read_BHLF = nn.functional.scaled_dot_product_attention(q_BHLF, k_BHLF, v_BHLF, attn_mask=mask_BHLL)
        read_BLD = self.out(read_BHLF.transpose(1, 2).flatten(2))
        x_BLD = x_BLD + self._gated(0, x_BLD, self.dropout(read_BLD))
        wide = self.widen(self.feed_norm(x_BLD))
        if self.gates:
            gate, value = wide.chunk(2, dim=-1)
            wide = nn.functional.silu(gate) * value
        else:
            wide = nn.functional.gelu(wide)
        return x_BLD + self._gated(1, x_BLD, self.dropout(self.narrow(wide)))

    def _gated(self, which: int, x_BLD: Tensor, added_BLD: Tensor) -> Tensor:
        return torch.sigmoid(self.gates[which](x_BLD)) * added_BLD if self.gates else added_BLD


def _at(x: Tensor, at: Int[Tensor, "*rows asked"]) -> Tensor:
    """Return some places of the last dimension but one, those of each row; of ``x`` 1 row counts for all."""
    rows = at.shape[:1] + x.shape[1:-2]
    return x.expand(*rows, -1, -1).gather(-2, at[..., None].expand(*rows, -1, x.shape[-1]))


def _under_each_other(parts: Sequence[Tensor], rows: int) -> Tensor:
    """Return parts of so many rows, or of 1 that counts for all; one part stays as it is."""
    return parts[0] if len(parts) == 1 else torch.cat([part.expand(rows, *part.shape[1:]) for part in parts])


class SequenceEncoder(nn.Module):
    """Reads histories of item vectors into one state per event and reading."""

    def __init__(self, config: ModelConfig, num_domains: int) -> None:
        super().__init__()
        self.config = config
        self.num_domains = num_domains
        self.domains = nn.Embedding(num_domains, config.dim)
        nn.init.zeros_(self.domains.weight)
        if config.position == "learned":
            self.positions = nn.Embedding(LEARNED_POSITIONS, config.dim)
            nn.init.normal_(self.positions.weight, std=0.02)
        if config.position == "rope+time":
            self.time_bias = nn.Parameter(torch.zeros(TIME_BUCKETS, config.num_heads))
        if config.domain_price and num_domains > 1:
            # softplus(-4) is nearly nothing: the price has to be learned.
            self.price = nn.Parameter(torch.full((config.num_heads,), -4.0))
        self.input_dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(config.dim, config.num_heads, config.dropout, gated=config.block == "ligr")
            for _ in range(config.num_blocks)
        )
        self.norm = nn.LayerNorm(config.dim)

    def forward(
        self,
        x_BLD: Float[Tensor, "batch length dim"],
        histories: Histories,
        readings: Sequence[Reading],
        asked_BL: Bool[Tensor, "batch length"] | None = None,
    ) -> list[Tensor]:
        """Return the states of events, for each reading: [B, L, D].

        Args:
            x_BLD: the items' vectors.
            histories: where they stand.
            readings: which are wanted.
            asked_BL: the events whose states are wanted, the others' being of no use; None: all. The last block, where
                nothing reads them any more, leaves the others out.
        """
        batch = len(x_BLD)
        position_BL = _under_each_other([self._positions(histories, reading) for reading in readings], batch)
        states = _under_each_other([x_BLD + self.domains(histories.domain_BL)] * len(readings), batch)
        rotation = None
        if self.config.position == "learned":
            states = states + self.positions(position_BL.clamp(max=LEARNED_POSITIONS - 1))
        else:
            width = self.config.dim // self.config.num_heads
            rotation = rotations(position_BL.shape[1], width, position_BL.device)[position_BL]
        states = self.input_dropout(states)
        mask = _under_each_other([self._mask(histories, reading) for reading in readings], batch)
        for block in self.blocks[:-1]:
            states = block(states, rotation, mask)
        if asked_BL is None:
            states = self.norm(self.blocks[-1](states, rotation, mask))
        else:
            at_BA = asked_BL.int().topk(int(asked_BL.sum(dim=1).max()), dim=1).indices.repeat(len(readings), 1)
            asked_BAD = self.norm(self.blocks[-1](states, rotation, mask, at_BA))
            states = torch.zeros_like(states).scatter(1, at_BA[:, :, None].expand_as(asked_BAD), asked_BAD)
        return list(states.chunk(len(readings)))

    def _positions(self, histories: Histories, reading: Reading) -> Int[Tensor, "rows length"]:
        if reading is Reading.MIXED:
            return torch.arange(histories.domain_BL.shape[1], device=histories.domain_BL.device)[None]
        counts_BLN = counts_by_domain(histories.domain_BL, histories.is_event_BL, self.num_domains)
        return counts_BLN.gather(2, histories.domain_BL[:, :, None])[:, :, 0]

    def _mask(self, histories: Histories, reading: Reading) -> Tensor:
        """What is added to attention, -inf where an event may not look: [B or 1, H or 1, L, L]."""
        domain_BL = histories.domain_BL
        mixed = reading is Reading.MIXED
        mask_BLL = causal_mask(domain_BL.shape[1], domain_BL.device) if mixed else own_mask(domain_BL)
        bias_BHLL = self.domains.weight.new_zeros(1, 1, 1, 1)
        if hasattr(self, "price"):
            across_BLL = domain_BL[:, :, None] != domain_BL[:, None, :]
            bias_BHLL = bias_BHLL - nn.functional.softplus(self.price)[None, :, None, None] * across_BLL[:, None]
        if hasattr(self, "time_bias"):
            bucket_BLL = time_bucket(histories.time_BL[:, :, None] - histories.time_BL[:, None, :])
            bias_BHLL = bias_BHLL + self.time_bias[bucket_BLL].permute(0, 3, 1, 2)
        return torch.where(mask_BLL[:, None], bias_BHLL, -torch.inf)


def time_bucket(seconds: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Return the place of times on a scale of powers of two of an hour."""
    return (1 + seconds.clamp(min=0) / TIME_UNIT_S).log2().long().clamp(max=TIME_BUCKETS - 1)
