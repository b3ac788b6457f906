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


def rotation_of(position_BL: Int[Tensor, "batch length"], width: int) -> Tensor:
    """Return the rotation of vectors of a width by their positions, as complex numbers: [B, L, 1, half]."""
    half = width // 2
    rate_F = ROPE_BASE ** (-torch.arange(half, device=position_BL.device, dtype=torch.float32) / half)
    angle_BLF = position_BL[:, :, None].float() * rate_F
    return torch.polar(torch.ones_like(angle_BLF), angle_BLF)[:, :, None]


def rotated(x_BLXF: Float[Tensor, "batch length vectors width"], rotation_BL1F: Tensor) -> Tensor:
    """Return vectors turned by their positions, so that their products depend on distances only.

    A vector's halves are the real and the imaginary parts; they come back as pairs, which is all the same to products.
    """
    real, imaginary = x_BLXF.float().chunk(2, dim=-1)
    return torch.view_as_real(torch.complex(real, imaginary) * rotation_BL1F).flatten(-2).to(x_BLXF.dtype)


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

    def __init__(self, dim: int, num_heads: int, dropout: float, *, gated: bool = False) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.feed_norm = nn.LayerNorm(dim)
        self.widen = nn.Linear(dim, (2 if gated else 1) * WIDENING * dim)
        self.narrow = nn.Linear(WIDENING * dim, dim)
        self.gates = nn.ModuleList(nn.Linear(dim, dim) for _ in range(2 if gated else 0))
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x_BLD: Float[Tensor, "batch length dim"],
        rotation_BL1F: Tensor | None,
        mask_BHLL: Tensor,
        at_BA: Int[Tensor, "batch asked"] | None = None,
    ) -> Float[Tensor, "batch asked dim"]:
        """Return the states after this block.

        Args:
            x_BLD: the states before it.
            rotation_BL1F: of queries and keys.
            mask_BHLL: what is added to attention, -inf where nothing may be looked at; 1 for H.
            at_BA: the positions whose states are wanted; None: all.
        """
        batch, length, dim = x_BLD.shape
        heads = self.num_heads
        qkv_BLXF = self.qkv(self.attention_norm(x_BLD)).view(batch, length, 3 * heads, dim // heads)
        qk_BLXF, v_BLHF = qkv_BLXF[:, :, : 2 * heads], qkv_BLXF[:, :, 2 * heads :]
        if rotation_BL1F is not None:
            qk_BLXF = rotated(qk_BLXF, rotation_BL1F)
        q_BHLF, k_BHLF = qk_BLXF.transpose(1, 2).chunk(2, dim=1)
        v_BHLF = v_BLHF.transpose(1, 2)
        if at_BA is not None:
            x_BLD, q_BHLF, mask_BHLL = _at(x_BLD, at_BA), _at(q_BHLF, at_BA[:, None]), _at(mask_BHLL, at_BA[:, None])
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
    """Return some places of the last dimension but one, those of each row."""
    return x.gather(-2, at[..., None].expand(*x.shape[:-2], at.shape[-1], x.shape[-1]))


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
        position_BL = torch.cat([self._positions(histories, reading) for reading in readings])
        states = (x_BLD + self.domains(histories.domain_BL)).repeat(len(readings), 1, 1)
        rotation = None
        if self.config.position == "learned":
            states = states + self.positions(position_BL.clamp(max=LEARNED_POSITIONS - 1))
        else:
            rotation = rotation_of(position_BL, self.config.dim // self.config.num_heads)
        states = self.input_dropout(states)
        mask = torch.cat([self._mask(histories, reading) for reading in readings])
        for block in self.blocks[:-1]:
            states = block(states, rotation, mask)
        if asked_BL is None:
            states = self.norm(self.blocks[-1](states, rotation, mask))
        else:
            at_BA = asked_BL.int().topk(int(asked_BL.sum(dim=1).max()), dim=1).indices.repeat(len(readings), 1)
            asked_BAD = self.norm(self.blocks[-1](states, rotation, mask, at_BA))
            states = torch.zeros_like(states).scatter(1, at_BA[:, :, None].expand_as(asked_BAD), asked_BAD)
        return list(states.chunk(len(readings)))

    def _positions(self, histories: Histories, reading: Reading) -> Int[Tensor, "batch length"]:
        if reading is Reading.MIXED:
            length = histories.domain_BL.shape[1]
            return torch.arange(length, device=histories.domain_BL.device).expand_as(histories.domain_BL)
        counts_BLN = counts_by_domain(histories.domain_BL, histories.is_event_BL, self.num_domains)
        return counts_BLN.gather(2, histories.domain_BL[:, :, None])[:, :, 0]

    def _mask(self, histories: Histories, reading: Reading) -> Tensor:
        """What is added to attention, -inf where an event may not look: [B, H or 1, L, L]."""
        domain_BL, is_event_BL = histories.domain_BL, histories.is_event_BL
        mask_BLL = causal_mask(is_event_BL) if reading is Reading.MIXED else own_mask(domain_BL, is_event_BL)
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
