"""Final scores at a moment after all remembered events, made at once and not column by column.

The final score is linear in its columns, with weights that depend on the query and on the item's bucket of support. So
items stand in the order of their buckets, and for each bucket one product of matrices adds up the trained score, the
texts and popularity: the weights are multiplied into the queries' side. Titles and transitions, sparse both, are added.
``FinalScorer`` gives the same numbers for any time, and keeps every column.
"""

# Shapes: Q queries of a block, I items of one domain in the order of their buckets, X columns (the trained score
# first), B buckets, K ranks, M recent events of all queries, W width of all dense features of an item side by side,
# E width of a text, V words of titles, R items and the padding.

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from semacdr.model.checkpoint import LoadedModel
from semacdr.model.config import Expert
from semacdr.model.experts import (
    COLUMNS,
    TRANSITION_HALF_LIFE_DAYS,
    Asked,
    column_names,
)
from semacdr.model.gate import NUM_BUCKETS, UP_TO_DATE, query_facts, support_bucket
from semacdr.model.histories import SECONDS_PER_DAY, Events, IntArray, Queries, ragged
from semacdr.model.popularity import SMALLEST, FloatArray
from semacdr.model.present import Present
from semacdr.model.scorer import TRAINED
from semacdr.tables import View


@dataclass(frozen=True)
class Catalogue:
    """A domain's items, in the order of their buckets."""

    item_I: IntArray
    """``item_index`` of each row."""
    place_R: IntArray
    """Row of each of the domain's items, by ``item_index``."""
    bucket_I: Tensor
    edges: list[int]
    """Rows of bucket ``b``: ``edges[b]:edges[b + 1]``."""
    dense_IW: Tensor
    """Features whose products with the queries' are scores: the item's vector, its texts, its popularities."""
    mean_BW: Tensor
    """The mean item of each bucket."""
    title_IV: sparse.csr_matrix | None
    following_RI: sparse.csr_matrix | None

    @cached_property
    def total_R(self) -> FloatArray:  # noqa: N802 (the shape)
        """How much of the domain followed each item."""
        assert self.following_RI is not None
        total_R: FloatArray = np.asarray(self.following_RI.sum(axis=1)).ravel().astype(np.float32)
        return total_R


@dataclass(frozen=True)
class Block:
    """The scores of some queries, and what they are made of."""

    catalogue: Catalogue
    final_IQ: Tensor
    parts: dict[str, Tensor]
    """Of each dense column, the queries' side: [Q, its width]."""
    sparse_columns: dict[str, Tensor]
    """The scores of titles and transitions: [I, Q]."""
    weight_QX: Tensor
    """The part of each column's weight that depends on the query."""


@dataclass(frozen=True)
class PresentScorer:
    """Scores all items of a domain for histories as they are now."""

    model: LoadedModel
    present: Present | None
    """None: the trained score is the final one."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the score columns."""
        return (TRAINED, *(column_names(self.model.scoring.experts) if self.model.scoring else ()))

    def facts(self, events: Events, queries: Queries) -> Tensor:
        """Return what the gate knows of each query."""
        scoring, num_domains = self.model.scoring, len(self.model.vocabulary.domains)
        if scoring is None or self.present is None:
            return torch.empty(len(queries), 0)
        facts = torch.from_numpy(query_facts(events, queries, self.present.last_s, self.present.past, num_domains))
        # Of a domain that the gate was not fitted on it knows nothing: the weights are those of the mean query.
        unknown = [domain in self.model.zero_shot_domains for domain in self.model.vocabulary.domains]
        facts[torch.tensor(unknown)[queries.domain], 1:] = scoring.gate.mean_F[1:]
        return facts

    def block(
        self, vector_QD: Tensor, facts_QF: Tensor, events: Events, queries: Queries, chosen: IntArray, domain: int
    ) -> Block:
        """Return the scores of a domain's items for some queries.

        Args:
            vector_QD: the users' vectors, of all queries.
            facts_QF: of all queries.
            events: in which histories lie.
            queries: none of them before the last remembered event.
            chosen: which of them.
            domain: whose items.
        """
        catalogue, index_Q = self._catalogues[domain], torch.from_numpy(chosen)
        vector_QD = vector_QD[index_Q]
        scoring, present = self.model.scoring, self.present
        if scoring is None or present is None:
            final_IQ = catalogue.dense_IW @ vector_QD.T
            return Block(catalogue, final_IQ, {TRAINED: vector_QD}, {}, torch.ones(len(chosen), 1))
        asked, gate = Asked.of(events, queries, chosen), scoring.gate
        parts = {TRAINED: vector_QD} | self._dense_parts(asked)
        sparse_columns = self._sparse_columns(asked, catalogue)
        weight_QX = gate.weights(facts_QF[index_Q])
        place = {name: column for column, name in enumerate(self.columns)}
        widths = [part.shape[1] for part in parts.values()]
        of_feature_W = torch.from_numpy(np.repeat([place[name] for name in parts], widths))
        side_QW = torch.cat(list(parts.values()), dim=1)
        final_IQ = torch.empty(len(catalogue.item_I), len(chosen))
        for bucket, (start, stop) in enumerate(zip(catalogue.edges, catalogue.edges[1:], strict=False)):
            if start == stop:
                continue
            of_bucket_QX = weight_QX + gate.by_support[:, bucket]
            weighed_QW = side_QW * of_bucket_QX.index_select(1, of_feature_W)
            bias_1 = gate.bias[bucket].expand(1) + (gate.cold_boost_SN[UP_TO_DATE, domain] if bucket == 0 else 0)
            torch.addmm(bias_1, catalogue.dense_IW[start:stop], weighed_QW.T, out=final_IQ[start:stop])
            for name, score_IQ in sparse_columns.items():
                final_IQ[start:stop].addcmul_(score_IQ[start:stop], of_bucket_QX[:, place[name]].contiguous())
        return Block(catalogue, final_IQ, parts, sparse_columns, weight_QX)

    def _dense_parts(self, asked: Asked) -> dict[str, Tensor]:
        """The queries' side of texts and popularity."""
        scoring, parts = self.model.scoring, dict[str, Tensor]()
        assert scoring is not None
        if Expert.SEMANTICS in scoring.experts:
            row_M, weight_M1 = torch.from_numpy(asked.row), torch.from_numpy(asked.weight)[:, None]
            for view in View:
                text_ME = torch.from_numpy(scoring.memory.text[view][asked.item])
                parts[str(view)] = text_ME.new_zeros(len(asked), text_ME.shape[1]).index_add_(
                    0, row_M, weight_M1 * text_ME
                )
        if Expert.POPULARITY in scoring.experts:
            parts |= {name: torch.ones(len(asked), 1) for name in COLUMNS[Expert.POPULARITY]}
        return parts

    def _sparse_columns(self, asked: Asked, catalogue: Catalogue) -> dict[str, Tensor]:
        """The scores of titles and of transitions."""
        scoring, present, columns = self.model.scoring, self.present, dict[str, Tensor]()
        assert scoring is not None
        assert present is not None
        if catalogue.following_RI is not None:
            age_s = asked.time_s[asked.row] - present.last_s
            faded = 0.5 ** (age_s / (TRANSITION_HALF_LIFE_DAYS * SECONDS_PER_DAY))
            weight = asked.weight * faded / (faded * catalogue.total_R[asked.item] + 1)
            rate_IQ = _summed(catalogue.following_RI, asked, weight.astype(np.float32))
            columns["transitions"] = (rate_IQ + SMALLEST).log_()
        if catalogue.title_IV is not None:
            word_VQ = _summed(scoring.memory.title, asked, asked.weight)
            columns["title"] = torch.from_numpy(catalogue.title_IV @ word_VQ.numpy())
        return columns

    def lifts(self, block: Block, row_QK: Tensor) -> tuple[Tensor, Tensor]:
        """Return the trained scores of some items, and the column that lifts each most.

        A column lifts an item above the domain's mean item of like support: what the gate adds to or takes from all
        items of one support is no column's doing.

        Args:
            block: their scores.
            row_QK: which items, as rows of the catalogue.
        """
        catalogue = block.catalogue
        at, mean = _dense_columns(block, row_QK)
        for name, score_IQ in block.sparse_columns.items():
            at[name] = score_IQ.T.gather(1, row_QK)
            mean[name] = torch.stack(
                [
                    score_IQ[start:stop].sum(dim=0) / max(1, stop - start)
                    for start, stop in zip(catalogue.edges, catalogue.edges[1:], strict=False)
                ],
                dim=1,
            )
        scoring = self.model.scoring
        if scoring is None:
            return at[TRAINED], torch.zeros_like(row_QK)
        bucket_QK = catalogue.bucket_I[row_QK]
        lift_XQK = torch.stack(
            [
                (block.weight_QX[:, [column]] + scoring.gate.by_support[column][bucket_QK])
                * (at[name] - mean[name].gather(1, bucket_QK))
                for column, name in enumerate(self.columns)
            ]
        )
        return at[TRAINED], lift_XQK.argmax(dim=0)

    @cached_property
    def _catalogues(self) -> tuple[Catalogue, ...]:
        return tuple(self._catalogue(start, stop) for start, stop in self.model.vocabulary.bounds)

    def _catalogue(self, start: int, stop: int) -> Catalogue:
        scoring, present = self.model.scoring, self.present
        bucket = support_bucket(present.support_R[start:stop]) if present else np.zeros(stop - start, np.int64)
        order = np.argsort(bucket, kind="stable")
        item_I, bucket_I = start + order, torch.from_numpy(bucket[order])
        place_R = np.zeros(self.model.vocabulary.num_items + 1, np.int64)
        place_R[item_I] = np.arange(len(item_I))
        dense, title_IV, following_RI = [self.model.items.vector_RD[torch.from_numpy(item_I)]], None, None
        if scoring is not None and present is not None:
            if Expert.SEMANTICS in scoring.experts:
                dense += [torch.from_numpy(scoring.memory.text[view][item_I]) for view in View]
            if Expert.POPULARITY in scoring.experts:
                dense.append(torch.from_numpy(present.popularity_HR[:, item_I].T))
            title_IV = scoring.memory.title[item_I] if Expert.TITLE in scoring.experts else None
            following_RI = present.following[:, item_I] if Expert.TRANSITIONS in scoring.experts else None
        dense_IW = torch.cat(dense, dim=1).contiguous()
        mean_IB = torch.nn.functional.one_hot(bucket_I, NUM_BUCKETS).float()
        mean_IB /= mean_IB.sum(dim=0).clamp(min=1)
        return Catalogue(
            item_I=item_I,
            place_R=place_R,
            bucket_I=bucket_I,
            edges=np.searchsorted(bucket_I.numpy(), np.arange(NUM_BUCKETS + 1)).tolist(),
            dense_IW=dense_IW,
            mean_BW=mean_IB.T @ dense_IW,
            title_IV=title_IV,
            following_RI=following_RI,
        )


def _dense_columns(block: Block, row_QK: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Of each dense column, the scores of some items [Q, K] and of the mean item of each bucket [Q, B]."""
    widths = [part.shape[1] for part in block.parts.values()]
    side_Q1W = torch.cat(list(block.parts.values()), dim=1)[:, None]
    at, mean = (
        {
            name: product.sum(dim=2)
            for name, product in zip(block.parts, (table * side_Q1W).split(widths, 2), strict=True)
        }
        for table in (block.catalogue.dense_IW[row_QK], block.catalogue.mean_BW[None])
    )
    return at, mean


def _summed(table_RC: sparse.csr_matrix, asked: Asked, weight_M: FloatArray) -> Tensor:
    """Return the weighted sum of each query's rows of a table: [columns, queries]."""
    start_R = table_RC.indptr.astype(np.int64)
    event, entry = ragged(start_R[asked.item], start_R[asked.item + 1])
    total_CQ = np.zeros((table_RC.shape[1], len(asked)), np.float32)
    place = table_RC.indices[entry].astype(np.int64) * len(asked) + asked.row[event]
    np.add.at(total_CQ.reshape(-1), place, weight_M[event] * table_RC.data[entry])
    return torch.from_numpy(total_CQ)
