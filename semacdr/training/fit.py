"""One fit of one model: from events that it may see to weights."""

# Shapes: V items with support and the padding, Q queries, D model width, S sampled items, I1 items and the padding.

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from semacdr.errors import DataError
from semacdr.model.config import ItemView, ModelConfig
from semacdr.model.contrastive import ViewAlignment, near_duplicates, uniformity
from semacdr.model.histories import Events, HistoryBatch
from semacdr.model.item_encoder import Catalogue, ItemVectors, centred
from semacdr.model.loss import chunked_cross_entropy
from semacdr.model.semacdr import SemaCdrModel
from semacdr.model.text_vectors import TextVectors
from semacdr.model.vocabulary import Vocabulary
from semacdr.tables import View
from semacdr.training.batches import epoch_batches, position_weights, training_windows


@dataclass(frozen=True)
class FitInputs:
    """What a fit sees."""

    config: ModelConfig
    vocabulary: Vocabulary
    text: Mapping[View, TextVectors]
    events: Events
    """Only those that this fit may see."""
    max_length: int


def catalogue_of(inputs: FitInputs) -> Catalogue:
    """Return what the model is told of every item, from the fit's own events only."""
    domain_I1 = torch.from_numpy(inputs.vocabulary.domain_of_item)
    support_I1 = torch.from_numpy(inputs.events.support(inputs.vocabulary.num_items))
    shares = {ItemView.AGNOSTIC: inputs.config.centring, ItemView.SPECIFIC: 0.0}
    text = {
        view: centred(
            (inputs.text[View(view)].whitened_I1K, inputs.text[View(view)].present_I1), domain_I1, support_I1, share
        )
        for view, share in shares.items()
    }
    return Catalogue(domain_I1=domain_I1, support_I1=support_I1, text=text, num_domains=len(inputs.vocabulary.domains))


class Fit:
    """A model being fitted.

    Only items with support are candidates in the softmax: a cold one may not have existed yet, and pushing it down
    would unlearn what its text says.
    """

    def __init__(self, inputs: FitInputs, seed: int) -> None:
        """Set up the model from ``seed``; torch's generator is the caller's to fork."""
        torch.manual_seed(seed)
        self.inputs = inputs
        self.model = SemaCdrModel(inputs.config, catalogue_of(inputs))
        self.alignment = ViewAlignment()
        self._rng = np.random.default_rng(seed)
        support = inputs.events.support(inputs.vocabulary.num_items)
        visible = np.flatnonzero(support)
        self._visible_V = torch.from_numpy(visible)
        row_of_item = np.zeros(len(support), np.int64)
        row_of_item[visible] = np.arange(1, len(visible) + 1)
        self._events = inputs.events.relabelled(row_of_item)
        edges = [int(np.searchsorted(visible, start)) for start, _ in inputs.vocabulary.bounds] + [len(visible)]
        self._bounds = list(pairwise(edges))
        self._windows = training_windows(self._events, inputs.max_length)
        self._weight = torch.from_numpy(position_weights(self._events, inputs.config.half_life))
        both = inputs.text[View.AGNOSTIC].present_I1 & inputs.text[View.SPECIFIC].present_I1
        self._with_both_texts_V = both[self._visible_V]
        self._optimiser = torch.optim.AdamW(_parameter_groups([self.model, self.alignment], inputs.config.weight_decay))
        self._steps = 0

    def epoch(self) -> float:
        """Train for one epoch.

        Returns:
            Mean loss over the steps.

        Raises:
            DataError: the loss is not finite any more.
        """
        self.model.train()
        losses = []
        batches = epoch_batches(self._events, self._windows, self.inputs.config.batch_users, self._rng)
        for batch, event in batches:
            losses.append(self._step(batch, torch.from_numpy(event)))
        return float(np.mean(losses))

    def _step(self, batch: HistoryBatch, event_Q: Int[Tensor, " queries"]) -> float:
        config = self.inputs.config
        items = self.model.items(self._visible_V)
        loss = self._recommendation_loss(items, batch, event_Q) + self._contrastive_loss(items)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise DataError(
                "training: the loss is not finite",
                found=f"{value} in step {self._steps + 1}",
                do="lower learning_rate in training.overrides; if it stays, look for odd vectors in embeddings",
            )
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [parameter for group in self._optimiser.param_groups for parameter in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        self._steps += 1
        rate = config.learning_rate * min(1.0, self._steps / max(1, config.warmup_steps))
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.step()
        return value

    def _recommendation_loss(self, items: ItemVectors, batch: HistoryBatch, event_Q: Int[Tensor, " queries"]) -> Tensor:
        table = torch.cat([items.vector_RD.new_zeros(1, items.vector_RD.shape[1]), items.vector_RD])
        user_QD = self.model.user_states(table, batch).vector_QD
        row_Q = torch.from_numpy(self._events.item)[event_Q] - 1
        weight_Q = self._weight[event_Q] / max(1, len(event_Q))
        loss = user_QD.new_zeros(())
        for domain, (start, stop) in enumerate(self._bounds):
            chosen = batch.domain_Q == domain
            if stop - start < 2 or not chosen.any():  # noqa: PLR2004 (nothing to choose from)
                continue
            # A larger catalogue has a larger loss by nature: log|I_d|, that of a uniform guess, makes domains alike.
            scale = 1 / math.log(stop - start)
            loss = loss + chunked_cross_entropy(
                user_QD[chosen], items.vector_RD[start:stop], row_Q[chosen] - start, weight_Q[chosen] * scale
            )
        return loss

    def _contrastive_loss(self, items: ItemVectors) -> Tensor:
        config = self.inputs.config
        loss = items.vector_RD.new_zeros(())
        if config.aligns_views:
            sample_S = self._sample(torch.nonzero(self._with_both_texts_V)[:, 0])
            if len(sample_S) > 1:
                raw_SE = self.inputs.text[View.SPECIFIC].raw_I1E[self._visible_V[sample_S]]
                loss = loss + config.alignment_weight * self.alignment(
                    items.agnostic_RD[sample_S],
                    items.specific_RD[sample_S],
                    near_duplicates(raw_SE, config.duplicate_cosine),
                )
        if config.uniformity_weight:
            sample_S = self._sample(torch.arange(len(self._visible_V)))
            domain_S = self.model.items.domain_I1[self._visible_V[sample_S]]
            loss = loss + config.uniformity_weight * uniformity(items.vector_RD[sample_S], domain_S)
        return loss

    def _sample(self, from_V: Int[Tensor, " rows"]) -> Int[Tensor, " sampled"]:
        size = min(self.inputs.config.contrastive_items, len(from_V))
        return from_V[torch.from_numpy(self._rng.choice(len(from_V), size, replace=False))]


def _parameter_groups(modules: list[torch.nn.Module], weight_decay: float) -> list[dict[str, object]]:
    """Matrices decay; ID and other tables, biases and norms do not."""
    decayed: list[torch.nn.Parameter] = []
    free: list[torch.nn.Parameter] = []
    for module in modules:
        for part in module.modules():
            for parameter in part.parameters(recurse=False):
                (decayed if isinstance(part, torch.nn.Linear) and parameter.ndim > 1 else free).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
