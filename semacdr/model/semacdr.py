"""SemaCDR: item vectors from semantics and IDs, user vectors from source, target and mixed histories."""

# Shapes: B histories, L events (pads last), Q queries, D model width, N domains, I1 items and the padding, 3 threads.

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from semacdr.errors import ConfigError
from semacdr.model.config import ModelConfig, Thread
from semacdr.model.fusion import GatedCrossAttention, SourceMix, ThreadFusion, TimedReading
from semacdr.model.histories import SECONDS_PER_DAY, HistoryBatch
from semacdr.model.item_encoder import Catalogue, ItemEncoder
from semacdr.model.sequence_encoder import Histories, Reading, SequenceEncoder, counts_by_domain

SILENT = -30.0
"""Logarithm of the scale of a score that says nothing."""


@dataclass(frozen=True)
class UserStates:
    """Users as the model sees them, one per query."""

    vector_QD: Float[Tensor, "queries dim"]
    """Its product with an item's vector is the item's score."""
    weight_Q3: Float[Tensor, "queries 3"]
    """Share of each history, in the order of ``Thread``; all 0 for a user without any."""
    source_QD: Float[Tensor, "queries dim"]
    """What the other domains' histories say; zeros where there are none or the thread is off."""
    target_QD: Float[Tensor, "queries dim"]
    mixed_QD: Float[Tensor, "queries dim"]


class SemaCdrModel(nn.Module):
    """The whole model, for any number of domains.

    Raises:
        ConfigError: the source history is the only thread, and there is one domain only.
    """

    def __init__(self, config: ModelConfig, catalogue: Catalogue) -> None:
        super().__init__()
        if config.threads == (Thread.SOURCE,) and catalogue.num_domains == 1:
            raise ConfigError(
                "training: threads = ['source'] needs two domains", found="one domain", do="add 'target' to threads"
            )
        self.config = config
        self.num_domains = catalogue.num_domains
        self.items = ItemEncoder(config, catalogue)
        names = [thread.value for thread in config.threads] if config.backbone == "towers" else ["shared"]
        self.sequences = nn.ModuleDict({name: SequenceEncoder(config, catalogue.num_domains) for name in names})
        self.source_mix = SourceMix(config.dim)
        self.fusion = ThreadFusion(config.dim, config.sequence_fusion)
        if config.reads_across:
            self.cross_attention = GatedCrossAttention(config.dim)
        if config.query_time:
            self.timed = TimedReading(config.dim)
        self.start = nn.Embedding(catalogue.num_domains, config.dim)
        self.query = nn.Embedding(catalogue.num_domains, config.dim)
        nn.init.zeros_(self.query.weight)
        log_scale = -0.5 * torch.log(torch.tensor(float(config.dim))).item()
        self.log_scale = nn.Parameter(torch.tensor(log_scale if config.max_epochs else SILENT))

    def user_states(self, table_ID: Float[Tensor, "rows dim"], batch: HistoryBatch) -> UserStates:
        """Return the users' vectors at their queries.

        Args:
            table_ID: item vectors; row 0 pads, and ``batch.item_BL`` counts its rows.
            batch: histories and queries.
        """
        threads = self.config.threads
        read = _Reading(batch, self.num_domains)
        empty_QD = table_ID.new_zeros(len(batch.row_Q), self.config.dim)
        x_BLD = table_ID.index_select(0, batch.item_BL.flatten()).view(*batch.item_BL.shape, table_ID.shape[1])
        # In training nearly every event is some query's last one.
        state = self._states(x_BLD, batch, None if self.training else read.asked_BL)
        mixed_QD = read.last(state[Thread.MIXED]) if Thread.MIXED in threads else empty_QD
        target_QD, source_QD, own_QND = empty_QD, empty_QD, None
        if Thread.TARGET in threads:
            own_QND = read.last_of_each_domain(state[Thread.TARGET])
            target_QD = own_QND[torch.arange(len(own_QND)), batch.domain_Q]
        if Thread.SOURCE in threads:
            if own_QND is None or self.config.backbone == "towers":
                own_QND = read.last_of_each_domain(state[Thread.SOURCE])
            source_QD = self.source_mix(own_QND, read.count_QN.to(own_QND.dtype).log1p(), read.is_source_QN)
        switched_on_3 = torch.tensor([thread in threads for thread in Thread]).to(table_ID.device)
        usable_Q3 = read.not_empty_Q3 & switched_on_3
        state_Q3D = torch.stack([target_QD, source_QD, mixed_QD], dim=1) * usable_Q3[:, :, None]
        fused_QD, weight_Q3 = self.fusion(state_Q3D, usable_Q3, read.facts_QS.to(table_ID.dtype))
        if self.config.reads_across:
            fused_QD = fused_QD + self.cross_attention(state_Q3D[:, 0], state_Q3D[:, 1:], usable_Q3[:, 1:])
        if self.config.query_time:
            fused_QD = fused_QD + self.timed(fused_QD, x_BLD, batch)
        fused_QD = torch.where(usable_Q3.any(dim=1, keepdim=True), fused_QD, self.start(batch.domain_Q))
        vector_QD = (fused_QD + self.query(batch.domain_Q)) * self.log_scale.exp()
        target_QD, source_QD, mixed_QD = state_Q3D.unbind(dim=1)
        return UserStates(vector_QD, weight_Q3, source_QD=source_QD, target_QD=target_QD, mixed_QD=mixed_QD)

    def _states(
        self, x_BLD: Float[Tensor, "batch length dim"], batch: HistoryBatch, asked_BL: Tensor | None
    ) -> dict[Thread, Tensor]:
        """The states that each thread reads: [B, L, D]."""
        histories = Histories(batch.domain_BL, batch.time_BL, batch.item_BL > 0)
        threads = self.config.threads
        if self.config.backbone == "towers":
            return {
                thread: self.sequences[thread.value](x_BLD, histories, [_READING[thread]], asked_BL)[0]
                for thread in threads
            }
        readings = sorted({_READING[thread] for thread in threads})
        states = dict(zip(readings, self.sequences["shared"](x_BLD, histories, readings, asked_BL), strict=True))
        return {thread: states[_READING[thread]] for thread in threads}


_READING = {Thread.TARGET: Reading.OWN, Thread.SOURCE: Reading.OWN, Thread.MIXED: Reading.MIXED}


class _Reading:
    """What lies before each query: which events are the last ones, how many there are, and how old they are."""

    def __init__(self, batch: HistoryBatch, num_domains: int) -> None:
        self.batch = batch
        is_event_BL = batch.item_BL > 0
        has_event_Q1 = (batch.position_Q >= 0)[:, None]
        position_Q = batch.position_Q.clamp(min=0)
        self._position_Q = position_Q
        count_BLN = counts_by_domain(batch.domain_BL, is_event_BL, num_domains)
        self.count_QN = count_BLN[batch.row_Q, position_Q] * has_event_Q1
        self._last_QN = last_by_domain(batch.domain_BL, is_event_BL, num_domains)[batch.row_Q, position_Q].clamp(min=0)
        is_target_QN = nn.functional.one_hot(batch.domain_Q, num_domains).bool()
        self.is_source_QN = (self.count_QN > 0) & ~is_target_QN
        num_target_Q = (self.count_QN * is_target_QN).sum(dim=1)
        num_source_Q = (self.count_QN * ~is_target_QN).sum(dim=1)
        self.not_empty_Q3 = torch.stack([num_target_Q > 0, num_source_Q > 0, num_target_Q + num_source_Q > 0], dim=1)
        last_time_QN = batch.time_BL[batch.row_Q[:, None], self._last_QN]
        days_QN = ((batch.time_Q[:, None] - last_time_QN).clamp(min=0) / SECONDS_PER_DAY).log1p()
        # An event of long ago stands in for none at all; the counts tell the two apart.
        days_target_Q = days_QN.where(is_target_QN & (self.count_QN > 0), torch.inf).amin(dim=1)
        days_source_Q = days_QN.where(self.is_source_QN, torch.inf).amin(dim=1)
        self.facts_QS = torch.stack(
            [
                num_target_Q.float().log1p(),
                num_source_Q.float().log1p(),
                days_target_Q.nan_to_num(posinf=0.0),
                days_source_Q.nan_to_num(posinf=0.0),
                ((num_target_Q > 0) & (num_source_Q > 0)).float(),
            ],
            dim=1,
        )

    @property
    def asked_BL(self) -> Bool[Tensor, "batch length"]:  # noqa: N802 (the shape)
        """The events whose states some query reads."""
        asked_BL = torch.zeros_like(self.batch.item_BL, dtype=torch.bool)
        asked_BL[self.batch.row_Q, self._position_Q] = True
        asked_BL[self.batch.row_Q[:, None], self._last_QN] = True
        return asked_BL

    def last(self, state_BLD: Float[Tensor, "batch length dim"]) -> Float[Tensor, "queries dim"]:
        """Return the state of each query's last event."""
        return _rows(state_BLD, self.batch.row_Q, self._position_Q)

    def last_of_each_domain(self, state_BLD: Float[Tensor, "batch length dim"]) -> Float[Tensor, "queries domains dim"]:
        """Return the states of each query's last event of every domain; any state where there is none."""
        row_QN = self.batch.row_Q[:, None].expand_as(self._last_QN)
        return _rows(state_BLD, row_QN.flatten(), self._last_QN.flatten()).view(*row_QN.shape, state_BLD.shape[2])


def _rows(
    state_BLD: Float[Tensor, "batch length dim"], row_S: Int[Tensor, " states"], position_S: Int[Tensor, " states"]
) -> Float[Tensor, "states dim"]:
    # index_select and not an index: its gradient is an index_add, several times faster than an index_put.
    return state_BLD.flatten(0, 1).index_select(0, row_S * state_BLD.shape[1] + position_S)


def last_by_domain(
    domain_BL: Int[Tensor, "batch length"], is_event_BL: Tensor, num_domains: int
) -> Int[Tensor, "batch length domains"]:
    """Return the position of each domain's last event up to each position, itself included; -1: none."""
    position_L = torch.arange(domain_BL.shape[1], device=domain_BL.device)
    is_domain_BLN = nn.functional.one_hot(domain_BL, num_domains).bool() & is_event_BL[:, :, None]
    return position_L[None, :, None].where(is_domain_BLN, -1).cummax(dim=1).values
