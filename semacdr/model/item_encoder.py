"""An item's vector: its agnostic and specific text and its ID, fused by a gate that knows how well the ID is supported.

A missing text and a missing ID are ordinary: what is missing has weight 0, and the rest share its weight.
"""

# Shapes: I1 all items and the padding, R the items asked for, K whitened width, D model width, N domains, 3 views.

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from semacdr.model.config import ItemView, ModelConfig
from semacdr.model.text_vectors import Standard

TEXT_VIEWS = (ItemView.AGNOSTIC, ItemView.SPECIFIC)


class Measure(NamedTuple):
    """How the fit measured a view's vectors: those of items that come later are measured alike."""

    mean_E: Float[Tensor, " encoder"]
    scale_E: Float[Tensor, " encoder"]
    offset_NK: Float[Tensor, "domains whitened"]
    """What is taken out of each domain's."""

    @property
    def standard(self) -> Standard:
        """What comes before the offset."""
        return Standard(self.mean_E, self.scale_E)


@dataclass(frozen=True)
class Catalogue:
    """What is known of every item, and fixed while a model is fitted."""

    domain_I1: Int[Tensor, " items1"]
    """``domain_index``; the padding's is 0 and means nothing."""
    support_I1: Int[Tensor, " items1"]
    """Events of the item that the fit may see; 0: its ID was never trained."""
    text: Mapping[ItemView, tuple[Float[Tensor, "items1 whitened"], Bool[Tensor, " items1"]]]
    """Whitened (and centred) vectors of each text view, and which items have one."""
    measure: Mapping[ItemView, Measure]
    """How they were measured."""
    num_domains: int


@dataclass(frozen=True)
class ItemVectors:
    """Items as the model sees them; row by row the items asked for."""

    vector_RD: Float[Tensor, "rows dim"]
    weight_R3: Float[Tensor, "rows 3"]
    """Share of each view in the vector, in the order of ``ItemView``; all 0 for an item without any view."""


@dataclass(frozen=True)
class ItemViews(ItemVectors):
    """Items and their two texts in the model's width."""

    agnostic_RD: Float[Tensor, "rows dim"]
    specific_RD: Float[Tensor, "rows dim"]


class Projection(nn.Module):
    """A text vector in the model's width: LN(W2 GELU(W1 z) + W z + B_d A_d z), d being the item's domain.

    The last term is each domain's own addition of low rank (Hu et al. 2021, LoRA, section 4.1); B_d starts at 0. As a
    mixture it is the sum of all of them, each weighed by softmax(R z).
    """

    def __init__(self, text_dim: int, dim: int, rank: int, num_domains: int, *, mixture: bool = False) -> None:
        super().__init__()
        self.rank, self.num_domains = rank, num_domains
        # All that reads the text is one matrix, the adapters' first halves too: one product over a large input.
        self.hidden_and_skip = nn.Linear(text_dim, 2 * dim + rank * num_domains)
        self.out = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        if rank:
            self.adapter = nn.Linear(rank * num_domains, dim, bias=False)
            nn.init.zeros_(self.adapter.weight)
        if rank and mixture:
            self.router = nn.Linear(text_dim, num_domains)

    def forward(self, z_RK: Float[Tensor, "rows text"], domain_R: Int[Tensor, " rows"]) -> Float[Tensor, "rows dim"]:
        """Return the projected vectors."""
        dim = self.out.in_features
        read = self.hidden_and_skip(z_RK)
        projected = self.out(nn.functional.gelu(read[:, :dim])) + read[:, dim : 2 * dim]
        if self.rank:
            if hasattr(self, "router"):
                share_RN = torch.softmax(self.router(z_RK), dim=1)
            else:
                share_RN = nn.functional.one_hot(domain_R, self.num_domains).to(read.dtype)
            low = read[:, 2 * dim :].view(-1, self.num_domains, self.rank) * share_RN[:, :, None]
            projected = projected + self.adapter(low.flatten(1))
        normed: Tensor = self.norm(projected)
        return normed


class ItemEncoder(nn.Module):
    """Fuses the views of items."""

    domain_I1: Tensor
    support_I1: Tensor

    def __init__(self, config: ModelConfig, catalogue: Catalogue) -> None:
        super().__init__()
        self.config = config
        self.num_domains = catalogue.num_domains
        self.register_buffer("domain_I1", catalogue.domain_I1.long().clone())
        self.register_buffer("support_I1", catalogue.support_I1.long().clone())
        self.projections = nn.ModuleDict()
        for view in TEXT_VIEWS:
            if view not in config.views:
                continue
            whitened_I1K, present_I1 = catalogue.text[view]
            self.register_buffer(f"{view}_text", whitened_I1K)
            self.register_buffer(f"{view}_present", present_I1)
            for name, value in catalogue.measure[view]._asdict().items():
                self.register_buffer(f"{view}_{name}", value)
            rank = config.adapter_rank if view is ItemView.SPECIFIC else 0
            self.projections[view] = Projection(
                whitened_I1K.shape[1], config.dim, rank, self.num_domains, mixture=config.adapter_mixture
            )
        if ItemView.ID in config.views:
            self.ids = nn.Embedding(len(catalogue.domain_I1), config.dim, padding_idx=0)
            nn.init.normal_(self.ids.weight, std=ID_STD)
            with torch.no_grad():
                self.ids.weight[0] = 0
        if config.item_fusion == "gate":
            self.gate = nn.Linear(2 * config.dim + 1 + self.num_domains, len(ItemView))
            nn.init.zeros_(self.gate.weight)
            nn.init.zeros_(self.gate.bias)
        if config.item_fusion == "concat":
            self.joint = nn.Linear(len(ItemView) * config.dim, config.dim)
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, item_R: Int[Tensor, " rows"]) -> ItemViews:
        """Return the vectors of items by ``item_index``; in training, some IDs are hidden."""
        domain_R, support_R = self.domain_I1[item_R], self.support_I1[item_R]
        text = {view: self._text(view, item_R) for view in TEXT_VIEWS}
        id_RD, has_id_R = self._id(item_R, support_R, has_text_R=text[TEXT_VIEWS[0]][1] | text[TEXT_VIEWS[1]][1])
        views_R3D = torch.stack([*(vector for vector, _ in text.values()), id_RD], dim=1)
        present_R3 = torch.stack([*(present for _, present in text.values()), has_id_R], dim=1)
        domain_RN = nn.functional.one_hot(domain_R, self.num_domains).to(id_RD.dtype)
        # A hidden ID is hidden from the gate too, or it would learn to tell hidden from missing.
        log_support_R1 = (torch.log1p(support_R.to(id_RD.dtype)) * has_id_R)[:, None]
        if self.config.item_fusion == "gate":
            logit_R3 = self.gate(torch.cat([views_R3D[:, 0], views_R3D[:, 1], log_support_R1, domain_RN], dim=1))
        else:
            logit_R3 = torch.zeros_like(present_R3, dtype=id_RD.dtype)
        weight_R3 = masked_softmax(logit_R3, present_R3)
        if self.config.item_fusion == "concat":
            fused_RD = self.joint((views_R3D * present_R3[:, :, None]).flatten(1))
        else:
            share_R3 = present_R3.to(id_RD.dtype) if self.config.item_fusion == "sum" else weight_R3
            fused_RD = (share_R3[:, :, None] * views_R3D).sum(dim=1)
        return ItemViews(self.norm(fused_RD), weight_R3, views_R3D[:, 0], views_R3D[:, 1])

    def measure(self, view: ItemView) -> Measure:
        """Return how a view's vectors were measured."""
        return Measure(*(self.get_buffer(f"{view}_{name}") for name in Measure._fields))

    def _text(
        self, view: ItemView, item_R: Int[Tensor, " rows"]
    ) -> tuple[Float[Tensor, "rows dim"], Bool[Tensor, " rows"]]:
        if view not in self.projections:
            absent_R = torch.zeros_like(item_R, dtype=torch.bool)
            return self.norm.weight.new_zeros(len(item_R), self.config.dim), absent_R
        z_RK, present_R = self.get_buffer(f"{view}_text")[item_R], self.get_buffer(f"{view}_present")[item_R]
        return self.projections[view](z_RK, self.domain_I1[item_R]) * present_R[:, None], present_R

    def _id(
        self, item_R: Int[Tensor, " rows"], support_R: Int[Tensor, " rows"], has_text_R: Bool[Tensor, " rows"]
    ) -> tuple[Float[Tensor, "rows dim"], Bool[Tensor, " rows"]]:
        if ItemView.ID not in self.config.views:
            return self.norm.weight.new_zeros(len(item_R), self.config.dim), torch.zeros_like(has_text_R)
        has_id_R = support_R > 0
        if self.training and self.config.id_dropout:
            hidden_R = torch.rand(len(item_R), device=item_R.device) < self.config.id_dropout
            has_id_R = has_id_R & ~(hidden_R & has_text_R)
        return self.ids(item_R) * has_id_R[:, None], has_id_R


ID_STD = 0.1
"""Below the texts' unit scale, so that a fresh ID says little."""


def masked_softmax(logit_RC: Float[Tensor, "*rows choices"], mask_RC: Bool[Tensor, "*rows choices"]) -> Tensor:
    """Return the softmax over what the mask admits; all 0 where it admits nothing."""
    # A row without choices would be NaN, forwards and backwards, with -inf in all of it.
    lowest = torch.finfo(logit_RC.dtype).min
    return torch.softmax(logit_RC.masked_fill(~mask_RC, lowest), dim=-1) * mask_RC


def offsets(
    text: tuple[Float[Tensor, "items1 whitened"], Bool[Tensor, " items1"]],
    domain_I1: Int[Tensor, " items1"],
    support_I1: Int[Tensor, " items1"],
    share: float,
) -> Float[Tensor, "domains whitened"]:
    """Return a share of how far each domain's items lie from the mean of all: those that training may see."""
    whitened_I1K, present_I1 = text
    visible_I1 = present_I1 & (support_I1 > 0)
    offset_NK = whitened_I1K.new_zeros(int(domain_I1.max()) + 1, whitened_I1K.shape[1])
    for domain in range(len(offset_NK)):
        chosen_I1 = visible_I1 & (domain_I1 == domain)
        if chosen_I1.any():
            offset_K = whitened_I1K[chosen_I1].mean(dim=0) - whitened_I1K[visible_I1].mean(dim=0)
            offset_NK[domain] = share * offset_K
    return offset_NK


def centred(
    text: tuple[Float[Tensor, "items1 whitened"], Bool[Tensor, " items1"]],
    domain_I1: Int[Tensor, " items1"],
    offset_NK: Float[Tensor, "domains whitened"],
) -> tuple[Float[Tensor, "items1 whitened"], Bool[Tensor, " items1"]]:
    """Return a view with each domain's offset taken out.

    Values are rounded to half precision, in which a checkpoint stores them, so that a model scores alike before and
    after a round trip.
    """
    whitened_I1K, present_I1 = text
    shifted_I1K = whitened_I1K.clone()
    for domain, offset_K in enumerate(offset_NK):
        shifted_I1K[(domain_I1 == domain) & present_I1] -= offset_K
    return shifted_I1K.half().float(), present_I1
