"""Contrastive regularisation: two sides of one thing agree, and the items of a domain spread out."""

# Shapes: S sampled items, D model width, E encoder width.

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

TEMPERATURE_START, TEMPERATURE_RANGE = 0.1, (0.05, 0.5)
UNIFORMITY_SHARPNESS = 2.0
"""Wang and Isola 2020, Understanding Contrastive Representation Learning, section 4.1.2 (t = 2)."""


class Agreement(nn.Module):
    """InfoNCE between two sides of the same things, both ways, with a learned temperature.

    Args:
        dim: width of a space of its own that both sides are first projected into; None: they agree as they are.
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.project = nn.Identity() if dim is None else nn.Linear(dim, dim, bias=False)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(TEMPERATURE_START)))

    def forward(
        self,
        one_SD: Float[Tensor, "sampled dim"],
        other_SD: Float[Tensor, "sampled dim"],
        same_SS: Bool[Tensor, "sampled sampled"],
    ) -> Float[Tensor, ""]:
        """Return the loss; pairs marked as the same thing, or nearly, are no negatives."""
        return info_nce(self.project(one_SD), self.project(other_SD), same_SS, self.log_temperature)


class ProfileAgreement(nn.Module):
    """InfoNCE between users' states and profiles of another width, both ways, with a learned temperature."""

    def __init__(self, dim: int, profile_dim: int) -> None:
        super().__init__()
        self.of_user = nn.Linear(dim, dim, bias=False)
        self.of_profile = nn.Linear(profile_dim, dim, bias=False)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(TEMPERATURE_START)))

    def forward(
        self, user_SD: Float[Tensor, "sampled dim"], profile_SE: Float[Tensor, "sampled encoder"]
    ) -> Float[Tensor, ""]:
        """Return the loss; every other user is a negative."""
        nobody_SS = torch.zeros(len(user_SD), len(user_SD), dtype=torch.bool, device=user_SD.device)
        return info_nce(self.of_user(user_SD), self.of_profile(profile_SE), nobody_SS, self.log_temperature)


def info_nce(
    one_SD: Float[Tensor, "sampled dim"],
    other_SD: Float[Tensor, "sampled dim"],
    same_SS: Bool[Tensor, "sampled sampled"],
    log_temperature: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Return -log of a pair's share among all pairs, both ways (van den Oord et al. 2018, equation 4)."""
    low, high = (math.log(bound) for bound in TEMPERATURE_RANGE)
    temperature = log_temperature.clamp(low, high).exp()
    normalise = nn.functional.normalize
    logit_SS = normalise(one_SD, dim=1) @ normalise(other_SD, dim=1).T / temperature
    itself_SS = torch.eye(len(logit_SS), dtype=torch.bool, device=logit_SS.device)
    logit_SS = logit_SS.masked_fill(same_SS & ~itself_SS, -torch.inf)
    at_itself_S = torch.arange(len(logit_SS), device=logit_SS.device)
    cross_entropy = nn.functional.cross_entropy
    return (cross_entropy(logit_SS, at_itself_S) + cross_entropy(logit_SS.T, at_itself_S)) / 2


def near_duplicates(raw_SE: Float[Tensor, "sampled encoder"], cosine: float) -> Bool[Tensor, "sampled sampled"]:
    """Return which pairs of raw text vectors lie nearer than a cosine."""
    unit_SE = nn.functional.normalize(raw_SE, dim=1)
    return unit_SE @ unit_SE.T > cosine


def uniformity(vector_SD: Float[Tensor, "sampled dim"], domain_S: Int[Tensor, " sampled"]) -> Float[Tensor, ""]:
    """Return log E exp(-2 |x - y|^2) over pairs of items of one domain on the unit sphere; 0 without pairs."""
    unit_SD = nn.functional.normalize(vector_SD, dim=1)
    squared_SS = 2 - 2 * unit_SD @ unit_SD.T
    pair_SS = (domain_S[:, None] == domain_S[None, :]).triu(diagonal=1)
    num_pairs = int(pair_SS.sum())
    if num_pairs == 0:
        return vector_SD.new_zeros(())
    among_pairs_SS = (-UNIFORMITY_SHARPNESS * squared_SS).masked_fill(~pair_SS, -torch.inf)
    return among_pairs_SS.flatten().logsumexp(dim=0) - math.log(num_pairs)
