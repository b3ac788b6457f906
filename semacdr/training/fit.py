"""One fit of one model: from events that it may see to weights."""

# Shapes: V items with support and the padding, R items of a step, Q queries, K negatives, D model width, S samples.

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int
from torch import Tensor

from semacdr.errors import DataError
from semacdr.model.checkpoint import encode_all_items
from semacdr.model.config import ItemView, ModelConfig
from semacdr.model.contrastive import Agreement, ProfileAgreement, near_duplicates, uniformity
from semacdr.model.histories import SECONDS_PER_DAY, Events, HistoryBatch, Visibility
from semacdr.model.item_encoder import Catalogue, ItemViews, Measure, Projection, centred, offsets
from semacdr.model.loss import binary_cross_entropy, chunked_cross_entropy, gbce_power, sampled_cross_entropy
from semacdr.model.semacdr import SemaCdrModel, UserStates
from semacdr.model.sequence_encoder import Block
from semacdr.model.text_vectors import TextVectors
from semacdr.model.vocabulary import Vocabulary
from semacdr.tables import View
from semacdr.training.batches import ALONE, Batch, Share, epoch_batches, position_weights, training_windows
from semacdr.training.compute import Compute
from semacdr.training.negatives import Drawn, Negatives
from semacdr.training.neighbours import neighbours

CO_INTERACTION_DAYS = 30
"""Events of two domains that one user had within so many days are a pair (research 5.3, L_xd)."""


@dataclass(frozen=True)
class FitInputs:
    """What a fit sees."""

    config: ModelConfig
    vocabulary: Vocabulary
    text: Mapping[View, TextVectors]
    titles: pl.DataFrame
    """domain, item_id, title."""
    events: Events
    """Only those that this fit may see."""
    max_length: int
    visibility: Visibility = Visibility.EARLIER_IN_TIME


def catalogue_of(inputs: FitInputs) -> Catalogue:
    """Return what the model is told of every item, from the fit's own events only."""
    domain_I1 = torch.from_numpy(inputs.vocabulary.domain_of_item)
    support_I1 = torch.from_numpy(inputs.events.support(inputs.vocabulary.num_items))
    shares = {ItemView.AGNOSTIC: inputs.config.centring, ItemView.SPECIFIC: 0.0}
    text, measure = {}, {}
    for view, share in shares.items():
        vectors = inputs.text[View(view)]
        standard = vectors.standard(inputs.config, support_I1)
        values = vectors.for_model(inputs.config, standard), vectors.present_I1
        measure[view] = Measure(*standard, offsets(values, domain_I1, support_I1, share))
        text[view] = centred(values, domain_I1, measure[view].offset_NK)
    num_domains = len(inputs.vocabulary.domains)
    return Catalogue(domain_I1=domain_I1, support_I1=support_I1, text=text, measure=measure, num_domains=num_domains)


def share_of_process() -> Share:
    """Return this process's place among those that ``torchrun`` started."""
    return Share(dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else ALONE


@dataclass(frozen=True)
class Step:
    """The items of one step, encoded once, and the histories in terms of their rows."""

    items: ItemViews
    row_of_V: Int[Tensor, " visible1"]
    """From visible item to row of ``items``, both from 1; 0: not encoded."""
    item_R: Int[Tensor, " rows"]
    """By ``item_index``."""
    domain_R: Int[Tensor, " rows"]
    with_both_texts_R: Tensor


class StepFacts(NamedTuple):
    """What a step was like."""

    step: int
    """From 1, through all epochs of the fit."""
    loss: float
    """With several processes, that of all."""
    gradient_norm: float
    """Before clipping."""
    learning_rate: float


class Fit:
    """A model being fitted.

    Only items with support are candidates in the loss: a cold one may not have existed yet, and pushing it down would
    unlearn what its text says. A step encodes the items that it needs and no others.
    """

    def __init__(self, inputs: FitInputs, seed: int, compute: Compute | None = None) -> None:
        """Set up the model from ``seed``; torch's generator is the caller's to fork."""
        torch.manual_seed(seed)
        self.inputs, self.compute = inputs, compute or Compute()
        self.model = SemaCdrModel(inputs.config, catalogue_of(inputs))
        self.alignment = Agreement()
        self.domain_agreement = Agreement(inputs.config.dim)
        self.user_agreement = Agreement(inputs.config.dim)
        self.share = share_of_process()
        # The same in all processes: the order of batches and the negatives. Its own in each: dropout and samples.
        self.rng = np.random.default_rng(seed)
        self.own_rng = np.random.default_rng([seed, self.share.rank])
        torch.manual_seed(seed + self.share.rank)
        support = inputs.events.support(inputs.vocabulary.num_items)
        visible = np.flatnonzero(support)
        self._visible_V = torch.from_numpy(visible)
        row_of_item = np.zeros(len(support), np.int64)
        row_of_item[visible] = np.arange(1, len(visible) + 1)
        self._events = inputs.events.relabelled(row_of_item)
        edges = [int(np.searchsorted(visible, start)) for start, _ in inputs.vocabulary.bounds] + [len(visible)]
        self._bounds = list(pairwise(edges))
        self._negatives = Negatives(inputs.config, self._bounds, torch.from_numpy(support[visible]), self.rng)
        self._windows = training_windows(self._events, inputs.max_length, inputs.visibility)
        self._weight = torch.from_numpy(position_weights(self._events, inputs.config.half_life)).to(self.compute.device)
        both = inputs.text[View.AGNOSTIC].present_I1 & inputs.text[View.SPECIFIC].present_I1
        self._with_both_texts_V = both[self._visible_V]
        modules = [self.model, self.alignment, self.domain_agreement, self.user_agreement]
        if inputs.config.aligns_profiles:
            width = inputs.text[View.AGNOSTIC].raw_I1E.shape[1]
            self.profile_agreement = ProfileAgreement(inputs.config.dim, width)
            modules.append(self.profile_agreement)
        self.modules = torch.nn.ModuleList(modules).to(self.compute.device)
        if self.compute.compiled:
            for part in self.model.modules():
                if isinstance(part, Block | Projection):
                    part.compile(dynamic=True)
        self.optimiser = torch.optim.AdamW(_parameter_groups(modules, inputs.config.weight_decay), fused=True)
        self.steps = 0

    def epoch(self) -> list[StepFacts]:
        """Train for one epoch.

        Returns:
            What each of its steps was like.

        Raises:
            DataError: the loss is not finite any more.
        """
        config = self.inputs.config
        if config.negatives_from == "neighbours":
            self._negatives.neighbours = self._neighbours()
        self.model.train()
        return [
            self._step(batch)
            for batch in epoch_batches(self._events, self._windows, config.batch_users, self.rng, self.share)
        ]

    def _step(self, batch: Batch) -> StepFacts:
        config = self.inputs.config
        event_Q = torch.from_numpy(batch.event)
        target_Q = torch.from_numpy(self._events.item)[event_Q]
        step_target_Q = torch.from_numpy(self._events.item)[torch.from_numpy(batch.step_event)]
        negatives = list(self._negatives.draw(step_target_Q - 1))
        with self.compute.precision():
            step = self._encode(batch.histories, target_Q, negatives)
            histories = replace(batch.histories, item_BL=step.row_of_V[batch.histories.item_BL])
            histories = histories.to(self.compute.device)
            vector_RD = step.items.vector_RD
            states = self.model.user_states(torch.cat([vector_RD.new_zeros(1, config.dim), vector_RD]), histories)
        weight_Q = self._weight[event_Q.to(self.compute.device)] / max(1, batch.num_queries)
        loss = self._recommendation_loss(step, states, histories, target_Q, weight_Q, negatives)
        loss = loss + self._contrastive_loss(step, states, histories) / self.share.size
        value = self._everyones(loss.detach().clone())
        if not math.isfinite(value):
            raise DataError(
                "training: the loss is not finite",
                found=f"{value} in step {self.steps + 1}",
                do="lower learning_rate in training.overrides; if it stays, look for odd vectors in embeddings",
            )
        self.optimiser.zero_grad()
        if loss.requires_grad:  # a batch may have fewer histories than there are processes
            loss.backward()
        parameters = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        if self.share.size > 1:
            for parameter in parameters:
                # A process whose share holds no overlapping user has no gradient for some parts.
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                dist.all_reduce(parameter.grad)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm))
        self.steps += 1
        rate = config.learning_rate * min(1.0, self.steps / max(1, config.warmup_steps))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        return StepFacts(self.steps, value, norm, rate)

    def _neighbours(self) -> list[Int[Tensor, "items neighbours"]]:
        """The neighbours of each domain's visible items, by the weights as they are."""
        vector_VD = encode_all_items(self.model).vector_RD[self._visible_V.to(self.compute.device)]
        raw_VE = self.inputs.text[View.SPECIFIC].raw_I1E[self._visible_V].to(self.compute.device)
        cosine = self.inputs.config.duplicate_cosine
        return [neighbours(vector_VD[start:stop], raw_VE[start:stop], cosine).cpu() for start, stop in self._bounds]

    def all_have(self, number: int) -> bool:
        """Return whether every process gives the same number."""
        if self.share.size == 1:
            return True
        largest = torch.tensor([number, -number], device=self.compute.device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return bool(largest[0] == -largest[1])

    def of_first(self, *numbers: float) -> list[float]:
        """Return the first process's numbers: machines of two kinds may differ in the last bit."""
        shared = torch.tensor(numbers, dtype=torch.float64, device=self.compute.device)
        if self.share.size > 1:
            dist.broadcast(shared, 0)
        return shared.tolist()

    def _everyones(self, loss: Tensor) -> float:
        if self.share.size > 1:
            dist.all_reduce(loss)
        return float(loss)

    def _encode(self, histories: HistoryBatch, target_Q: Int[Tensor, " queries"], negatives: list[Drawn]) -> Step:
        wanted_V = torch.zeros(len(self._visible_V) + 1, dtype=torch.bool)
        wanted_V[histories.item_BL.flatten()] = True
        wanted_V[target_Q] = True
        for drawn in negatives:
            wanted_V[drawn.item_K + 1] = True
        wanted_V[0] = False
        chosen_R = torch.nonzero(wanted_V)[:, 0]
        row_of_V = torch.zeros(len(wanted_V), dtype=torch.int64)
        row_of_V[chosen_R] = torch.arange(1, len(chosen_R) + 1)
        item_R = self._visible_V[chosen_R - 1]
        return Step(
            items=self.model.items(item_R.to(self.compute.device)),
            row_of_V=row_of_V,
            item_R=item_R,
            domain_R=self.model.items.domain_I1[item_R],
            with_both_texts_R=self._with_both_texts_V[chosen_R - 1],
        )

    def _recommendation_loss(
        self,
        step: Step,
        states: UserStates,
        histories: HistoryBatch,
        target_Q: Int[Tensor, " queries"],
        weight_Q: Float[Tensor, " queries"],
        negatives: list[Drawn],
    ) -> Tensor:
        vector_RD = step.items.vector_RD
        target_QD = vector_RD[step.row_of_V[target_Q] - 1]
        loss = vector_RD.new_zeros(())
        domain_Q = histories.domain_Q.cpu()
        for domain, (start, stop) in enumerate(self._bounds):
            chosen = torch.nonzero(domain_Q == domain)[:, 0]
            if stop - start < 2 or not len(chosen):  # noqa: PLR2004 (nothing to choose from)
                continue
            # A larger catalogue has a larger loss by nature: log|I_d|, that of a uniform guess, makes domains alike.
            weight = weight_Q[chosen] / math.log(stop - start)
            loss = loss + self._domain_loss(
                states.vector_QD[chosen],
                target_QD[chosen],
                target_Q[chosen] - 1,
                negatives[domain],
                vector_RD[step.row_of_V[negatives[domain].item_K + 1] - 1],
                weight,
                (start, stop),
            )
        return loss

    def _domain_loss(
        self,
        state_PD: Float[Tensor, "positions dim"],
        target_PD: Float[Tensor, "positions dim"],
        target_P: Int[Tensor, " positions"],
        drawn: Drawn,
        negative_KD: Float[Tensor, "negatives dim"],
        weight_P: Float[Tensor, " positions"],
        bounds: tuple[int, int],
    ) -> Tensor:
        config, (start, stop), negative_K = self.inputs.config, bounds, drawn.item_K
        if len(negative_K) == stop - start and config.loss in ("softmax", "sampled"):
            return chunked_cross_entropy(state_PD, negative_KD, target_P - start, weight_P)
        place_I = torch.full((stop - start,), -1)
        place_I[negative_K - start] = torch.arange(len(negative_K))
        at_target_P = place_I[target_P - start]
        if config.loss == "sampled":
            stands_for = drawn.stands_for
            stands_for = stands_for.to(self.compute.device) if isinstance(stands_for, Tensor) else stands_for
            return sampled_cross_entropy(state_PD, target_PD, negative_KD, at_target_P, weight_P, stands_for)
        positive_P = (state_PD * target_PD).sum(dim=1)
        if config.loss == "bce":
            drawn_P = torch.from_numpy(self.own_rng.integers(0, len(negative_K), len(target_P)))
            is_target_P = (drawn_P == at_target_P).to(self.compute.device)
            score_P = (state_PD * negative_KD[drawn_P]).sum(dim=1).masked_fill(is_target_P, -torch.inf)
            return binary_cross_entropy(positive_P, score_P[:, None], weight_P)
        score_PK = state_PD @ negative_KD.T
        hit_P = torch.nonzero(at_target_P >= 0)[:, 0]
        score_PK = score_PK.index_put((hit_P, at_target_P[hit_P]), torch.tensor(-torch.inf))
        power = gbce_power(len(negative_K), stop - start, config.gbce_calibration)
        return binary_cross_entropy(positive_P, score_PK, weight_P, power)

    def _contrastive_loss(self, step: Step, states: UserStates, histories: HistoryBatch) -> Tensor:
        config, items = self.inputs.config, step.items
        loss = items.vector_RD.new_zeros(())
        if config.aligns_views:
            sample_S = self._sample(torch.nonzero(step.with_both_texts_R)[:, 0])
            if len(sample_S) > 1:
                raw_SE = self.inputs.text[View.SPECIFIC].raw_I1E[step.item_R[sample_S]]
                loss = loss + config.alignment_weight * self.alignment(
                    items.agnostic_RD[sample_S],
                    items.specific_RD[sample_S],
                    near_duplicates(raw_SE, config.duplicate_cosine).to(self.compute.device),
                )
        if config.uniformity_weight:
            sample_S = self._sample(torch.arange(len(items.vector_RD)))
            loss = loss + config.uniformity_weight * uniformity(items.vector_RD[sample_S], step.domain_R[sample_S])
        if config.aligns_domains:
            loss = loss + config.domain_alignment_weight * self._domain_alignment(step, histories)
        if config.aligns_users:
            loss = loss + config.user_alignment_weight * self._user_alignment(states, histories)
        if config.aligns_profiles:
            loss = loss + config.profile_weight * self._profile_alignment(step, states, histories)
        return loss

    def _domain_alignment(self, step: Step, histories: HistoryBatch) -> Tensor:
        """Agreement of the agnostic vectors of neighbours in a history that lie in two domains."""
        item_BL, domain_BL, time_BL = histories.item_BL, histories.domain_BL, histories.time_BL
        near_BL = (time_BL[:, 1:] - time_BL[:, :-1]) <= CO_INTERACTION_DAYS * SECONDS_PER_DAY
        pair_BL = near_BL & (item_BL[:, 1:] > 0) & (domain_BL[:, 1:] != domain_BL[:, :-1])
        one_S, other_S = item_BL[:, :-1][pair_BL] - 1, item_BL[:, 1:][pair_BL] - 1
        sample_S = self._sample(torch.arange(len(one_S)))
        if len(sample_S) < 2:  # noqa: PLR2004 (no negatives)
            return step.items.vector_RD.new_zeros(())
        one_S, other_S = one_S[sample_S], other_S[sample_S]
        same_SS = (one_S[:, None] == one_S) | (other_S[:, None] == other_S)
        agnostic_RD = step.items.agnostic_RD
        agreement: Tensor = self.domain_agreement(agnostic_RD[one_S], agnostic_RD[other_S], same_SS)
        return agreement

    def _user_alignment(self, states: UserStates, histories: HistoryBatch) -> Tensor:
        """Agreement of the source and the target state of users who have both, at one query of each."""
        both_Q = (states.source_QD.detach() != 0).any(dim=1) & (states.target_QD.detach() != 0).any(dim=1)
        chosen_S = self._one_query_of_each(both_Q, histories)
        if len(chosen_S) < 2:  # noqa: PLR2004 (no negatives)
            return states.vector_QD.new_zeros(())
        nobody_SS = torch.zeros(len(chosen_S), len(chosen_S), dtype=torch.bool, device=self.compute.device)
        agreement: Tensor = self.user_agreement(states.source_QD[chosen_S], states.target_QD[chosen_S], nobody_SS)
        return agreement

    def _profile_alignment(self, step: Step, states: UserStates, histories: HistoryBatch) -> Tensor:
        """Agreement of the mixed state and the mean of the agnostic texts that it has seen, at one query of each."""
        chosen_S = self._one_query_of_each(histories.position_Q >= 0, histories)
        if len(chosen_S) < 2:  # noqa: PLR2004 (no negatives)
            return states.vector_QD.new_zeros(())
        text, device = self.inputs.text[View.AGNOSTIC], self.compute.device
        row_S, position_S1 = histories.row_Q[chosen_S], histories.position_Q[chosen_S][:, None]
        item_SL = histories.item_BL[row_S]
        seen_SL = (torch.arange(item_SL.shape[1], device=device) <= position_S1) & (item_SL > 0)
        raw_RE = text.raw_I1E[step.item_R].to(device)  # zeros without a text
        profile_SE = (raw_RE[(item_SL - 1).clamp(min=0)] * seen_SL[:, :, None]).mean(dim=1)
        agreement: Tensor = self.profile_agreement(states.mixed_QD[chosen_S], profile_SE)
        return agreement

    def _one_query_of_each(self, usable_Q: Bool[Tensor, " queries"], histories: HistoryBatch) -> Tensor:
        """Return one usable query, at random, of each history that has any."""
        usable = torch.nonzero(usable_Q)[:, 0]
        usable = usable[torch.from_numpy(self.own_rng.permutation(len(usable)))]
        one_of_row = torch.full((len(histories.item_BL),), -1, device=self.compute.device)
        one_of_row[histories.row_Q[usable]] = usable
        return one_of_row[one_of_row >= 0]

    def _sample(self, from_V: Int[Tensor, " rows"]) -> Int[Tensor, " sampled"]:
        size = min(self.inputs.config.contrastive_items, len(from_V))
        return from_V[torch.from_numpy(self.own_rng.choice(len(from_V), size, replace=False))]


def _parameter_groups(modules: list[torch.nn.Module], weight_decay: float) -> list[dict[str, object]]:
    """Matrices decay; ID and other tables, biases and norms do not."""
    decayed: list[torch.nn.Parameter] = []
    free: list[torch.nn.Parameter] = []
    for module in modules:
        for part in module.modules():
            for parameter in part.parameters(recurse=False):
                (decayed if isinstance(part, torch.nn.Linear) and parameter.ndim > 1 else free).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
