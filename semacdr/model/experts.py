"""Score experts: what memory alone says of an item, for a user, at a time.

    popularity    an item's share of its domain's events, faded with age by several half-lives
    transitions   what followed the last items of the history, in anyone's history
    title         how near an item's title lies to those of the last items of the history
    semantics     the same of its two texts
    repeats       how often and how lately the user took the very item
    similar       how near an item's title lies to those of what followed them
    neighbours    what those took who took an item of the history (``neighbours.py``)

The last items are those of the domain asked for, and of other domains where the user has none in it; or, where that
validates better, those of all domains alike.

Every score is computed from events strictly before the query, so that a training event never says a word about itself:
the fit's events are kept whole, with their times, and filtered at each query. Memory-based scorers of this kind are
what no trained peer has beaten under a global temporal split (docs/decisions); a gate weighs them (``gate.py``).
"""

# Shapes: Q queries, I items of one domain, X expert columns, E events of the fit, M recent items, K width of a text.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float
from scipy import sparse
from torch import Tensor

from semacdr.model import neighbours
from semacdr.model.asked import Asked
from semacdr.model.config import Expert
from semacdr.model.histories import SECONDS_PER_DAY, Events, IntArray, ItemCounts, Queries, ragged
from semacdr.model.neighbours import Takers
from semacdr.model.popularity import SMALLEST, DayCounter, FloatArray, PastPopularity
from semacdr.model.text_vectors import TextVectors
from semacdr.model.titles import Titles, title_texts
from semacdr.model.vocabulary import Vocabulary
from semacdr.tables import View

HALF_LIVES_DAYS = (1, 7, 30, 180, 3_650)
"""From a day's craze to what decades agree on; the gate chooses among them."""
WINDOW = 5
"""Events after an item that count as following it; the n-th counts 1/n."""
TRANSITION_HALF_LIFE_DAYS = 360

COLUMNS: Mapping[Expert, tuple[str, ...]] = {
    Expert.POPULARITY: tuple(f"popularity_{days}" for days in HALF_LIVES_DAYS),
    Expert.TRANSITIONS: ("transitions",),
    Expert.TITLE: ("title",),
    Expert.SEMANTICS: tuple(str(view) for view in View),
    Expert.REPEATS: ("repeats",),
    Expert.SIMILAR: ("similar",),
    Expert.NEIGHBOURS: ("neighbours",),
}
"""The columns of scores that each expert gives, in order."""


def column_names(experts: Sequence[Expert]) -> tuple[str, ...]:
    """Return the names of the score columns of some experts, in order."""
    return tuple(name for expert in Expert if expert in experts for name in COLUMNS[expert])


@dataclass(frozen=True)
class Memory:
    """What the experts remember: the fit's events, and every item's texts."""

    offsets: IntArray
    """Events of user ``u``: ``offsets[u]:offsets[u + 1]``, oldest first."""
    item: IntArray
    time_s: IntArray
    titles: Titles
    text: Mapping[View, FloatArray]
    """Vectors of length 1 by ``item_index``, the mean of the catalogue's taken out: a catalogue is known before its
    items are taken, and the mean says nothing of who takes them."""
    text_mean: Mapping[View, FloatArray]
    bounds: tuple[tuple[int, int], ...]
    mixed: bool
    """Histories are looked at as one, whatever the domains."""

    @classmethod
    def of(
        cls,
        events: Events,
        vocabulary: Vocabulary,
        titles: pl.DataFrame,
        text: Mapping[View, TextVectors],
        *,
        mixed: bool = False,
    ) -> "Memory":
        """Remember the events of a fit.

        Args:
            events: those that the fit may see.
            vocabulary: of the items.
            titles: domain, item_id, title.
            text: both views' vectors.
            mixed: histories are looked at as one, whatever the domains.
        """
        mean = {view: _mean(vectors) for view, vectors in text.items()}
        return cls(
            offsets=events.offsets,
            item=events.item,
            time_s=events.time_s,
            titles=Titles.of(title_texts(titles, vocabulary), vocabulary.bounds),
            text={view: text_units(vectors.raw_I1E, vectors.present_I1, mean[view]) for view, vectors in text.items()},
            text_mean=mean,
            bounds=vocabulary.bounds,
            mixed=mixed,
        )

    def with_events(self, events: Events) -> "Memory":
        """Return the same memory of texts, with other events of the same items."""
        return replace(self, offsets=events.offsets, item=events.item, time_s=events.time_s)

    @cached_property
    def counts(self) -> ItemCounts:
        """How many events items had before any time."""
        return ItemCounts(self.item, self.time_s)

    @cached_property
    def past(self) -> PastPopularity:
        """How popular items were when they were taken."""
        counter = DayCounter()
        counter.add(self.item, self.time_s)
        return PastPopularity.of(counter.counts(), self.last_s, self.bounds)

    @cached_property
    def by_time(self) -> IntArray:
        """The events in the order of time."""
        return np.argsort(self.time_s, kind="stable")

    @cached_property
    def following(self) -> "Following":
        """What followed each item."""
        return Following.of(self)

    @cached_property
    def takers(self) -> Takers:
        """Who took each item."""
        return Takers.of(self.offsets, self.item, self.time_s, self.counts, self.bounds[-1][1])

    @cached_property
    def title_of_domain(self) -> tuple[sparse.csr_matrix, ...]:
        """The titles of each domain's items, a column each."""
        return tuple(self.titles.tfidf_RV[start:stop].T.tocsr() for start, stop in self.bounds)

    @cached_property
    def last_popularity(self) -> tuple[list[FloatArray], ...]:
        """The popularity of each domain's items after the last event, whenever that is asked."""
        after = np.array([self.last_s + 1])
        return tuple(_popularity(self, after, domain) for domain in range(len(self.bounds)))

    @cached_property
    def last_s(self) -> int:
        """The time of the last event."""
        return int(self.time_s.max(initial=0))


@dataclass(frozen=True)
class Following:
    """For each item, what was taken within ``WINDOW`` events after it: entries ``start[item]:start[item + 1]``."""

    start: IntArray
    item: IntArray
    time_s: IntArray
    """When it was taken."""
    weight: FloatArray

    @classmethod
    def of(cls, memory: Memory) -> "Following":
        """Sort the pairs by what they follow."""
        starts = [start for start, _ in memory.bounds]
        domain = np.searchsorted(starts, memory.item, side="right") - 1
        source, taken, weight = near_pairs(memory.offsets, memory.time_s, domain, mixed=memory.mixed)
        order = np.argsort(memory.item[source], kind="stable")
        num_items = memory.bounds[-1][1]
        return cls(
            start=np.searchsorted(memory.item[source][order], np.arange(num_items + 1)).astype(np.int64),
            item=memory.item[taken][order],
            time_s=memory.time_s[taken][order],
            weight=weight[order],
        )


def near_pairs(
    offsets: IntArray, time_s: IntArray, domain: IntArray, *, mixed: bool
) -> tuple[IntArray, IntArray, FloatArray]:
    """Return the pairs of events of one user that lie near each other: the earlier, the later, the pair's weight.

    Unless ``mixed``, events of one domain follow each other past those of others. Two events of one timestamp follow
    each other both ways: their order is not known.
    """
    user = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    if mixed:
        return _near(user, time_s)
    by_domain = np.lexsort((domain, user))
    own = _near((user * (domain.max(initial=0) + 1) + domain)[by_domain], time_s[by_domain])
    source, taken, weight = _near(user, time_s)
    across = domain[source] != domain[taken]
    return (
        np.concatenate([by_domain[own[0]], source[across]]),
        np.concatenate([by_domain[own[1]], taken[across]]),
        np.concatenate([own[2], weight[across]]),
    )


def _near(run: IntArray, time_s: IntArray) -> tuple[IntArray, IntArray, FloatArray]:
    """Return what ``near_pairs`` does, of events that lie in one run."""
    columns = []
    for distance in range(1, WINDOW + 1):
        before = np.flatnonzero(run[distance:] == run[:-distance])
        after = before + distance
        weight = np.full(len(before), 1 / distance, np.float32)
        columns.append((before, after, weight))
        tied = time_s[before] == time_s[after]
        columns.append((after[tied], before[tied], weight[tied]))
    source, taken, weight = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    return source, taken, weight


def _mean(vectors: TextVectors) -> FloatArray:
    raw, present = vectors.raw_I1E, vectors.present_I1
    mean: FloatArray = (raw[present].mean(dim=0) if present.any() else torch.zeros(raw.shape[1])).numpy()
    return mean


def text_units(
    raw_NE: Float[Tensor, "items encoder"], present_N: Bool[Tensor, " items"], mean_E: FloatArray
) -> FloatArray:
    """Return raw vectors less a mean, of length 1, in the half precision that a checkpoint stores; 0 without text."""
    unit_NE = torch.nn.functional.normalize(raw_NE - torch.from_numpy(mean_E), dim=1)
    unit: FloatArray = (unit_NE * present_N[:, None]).half().float().numpy()
    return unit


def expert_scores(
    memory: Memory, experts: Sequence[Expert], events: Events, queries: Queries, chosen: IntArray, domain: int
) -> Float[Tensor, "columns queries items"]:
    """Return the scores of a domain's items for some queries, one matrix per column of ``column_names``.

    Args:
        memory: of the fit.
        experts: which are switched on.
        events: the users' events, in which histories lie.
        queries: at their times.
        chosen: which of them.
        domain: whose items.
    """
    start, stop = memory.bounds[domain]
    score_XQI = np.empty((len(column_names(experts)), len(chosen), stop - start), np.float32)
    fill_expert_scores(score_XQI, memory, experts, events, queries, chosen, domain)
    return torch.from_numpy(score_XQI)


def fill_expert_scores(
    out_XQI: FloatArray,
    memory: Memory,
    experts: Sequence[Expert],
    events: Events,
    queries: Queries,
    chosen: IntArray,
    domain: int,
) -> None:
    """Write what ``expert_scores`` returns into an array."""
    asked = Asked.of(events, queries, chosen, mixed=memory.mixed)
    start, stop = memory.bounds[domain]
    profile = asked.profile(memory.bounds[-1][1])
    column = 0
    if Expert.POPULARITY in experts:
        for share_QI in popularity(memory, asked.time_s, domain):
            out_XQI[column] = share_QI
            column += 1
    rate = transitions(memory, asked, domain) if {Expert.TRANSITIONS, Expert.SIMILAR} & {*experts} else None
    if Expert.TRANSITIONS in experts:
        _fill_log(out_XQI[column], rate)
        column += 1
    if Expert.TITLE in experts:
        (profile @ memory.titles.tfidf_RV @ memory.title_of_domain[domain]).toarray(out=out_XQI[column])
        column += 1
    if Expert.SEMANTICS in experts:
        for view in View:
            np.matmul(profile @ memory.text[view], memory.text[view][start:stop].T, out=out_XQI[column])
            column += 1
    if Expert.REPEATS in experts:
        repeats(events, queries, chosen, memory.bounds[domain]).toarray(out=out_XQI[column])
        column += 1
    if Expert.SIMILAR in experts:
        _fill_log(out_XQI[column], rate @ memory.titles.similar_RR[start:stop, start:stop])
        column += 1
    if Expert.NEIGHBOURS in experts:
        longer = neighbours.asked_of(events, queries, chosen, mixed=memory.mixed)
        memory.takers.fill_shares(out_XQI[column], longer, memory.bounds[domain])
        np.log(out_XQI[column] + neighbours.FLOOR, out=out_XQI[column])


def _fill_log(out_QI: FloatArray, rate: sparse.csr_matrix) -> None:
    rate.toarray(out=out_QI)
    np.log(out_QI + SMALLEST, out=out_QI)


def popularity(memory: Memory, time_s: IntArray, domain: int) -> list[FloatArray]:
    """Return, per half-life, the log share of each item among the domain's events strictly before each time."""
    if len(time_s) and time_s.min() > memory.last_s:
        return [np.broadcast_to(share, (len(time_s), share.shape[1])) for share in memory.last_popularity[domain]]
    return _popularity(memory, time_s, domain)


def _popularity(memory: Memory, time_s: IntArray, domain: int) -> list[FloatArray]:
    start, stop = memory.bounds[domain]
    # Shares do not fade together: after the last event they stay as they are.
    moments, of_query = np.unique(np.minimum(time_s, memory.last_s + 1), return_inverse=True)
    of_domain = memory.by_time[(memory.item[memory.by_time] >= start) & (memory.item[memory.by_time] < stop)]
    item, event_s = memory.item[of_domain] - start, memory.time_s[of_domain]
    known = np.searchsorted(event_s, moments, side="left")
    columns = []
    for half_life in HALF_LIVES_DAYS:
        rate = np.log(2) / (half_life * SECONDS_PER_DAY)
        faded, share = np.zeros(stop - start), np.zeros((len(moments), stop - start), np.float32)
        done, now_s = 0, moments[0] if len(moments) else 0
        for at, (moment, upto) in enumerate(zip(moments, known, strict=True)):
            faded *= np.exp(-rate * (moment - now_s))
            fresh = slice(done, upto)
            faded += np.bincount(item[fresh], np.exp(-rate * (moment - event_s[fresh])), minlength=stop - start)
            done, now_s = upto, moment
            share[at] = faded / max(faded.sum(), np.finfo(np.float64).tiny)
        columns.append(np.log(share + SMALLEST)[of_query])
    return columns


def transitions(memory: Memory, asked: Asked, domain: int) -> sparse.csr_matrix:
    """Return how often each item followed the last items of the history before the query, as a weighted rate."""
    start, stop = memory.bounds[domain]
    following = memory.following
    source, entry = ragged(following.start[asked.item], following.start[asked.item + 1])
    row, taken = asked.row[source], following.item[entry]
    age_s = asked.time_s[row] - following.time_s[entry]
    known = age_s > 0
    faded = following.weight[entry] * 0.5 ** (age_s.clip(min=0) / (TRANSITION_HALF_LIFE_DAYS * SECONDS_PER_DAY)) * known
    here = known & (taken >= start) & (taken < stop)
    # All of the domain that followed a source item: its rates sum to less than 1, the less the rarer it is.
    total = np.bincount(source, faded * here, minlength=len(asked.item)) + 1
    weight = faded * (asked.weight / total)[source]
    places = (row[here], taken[here] - start)
    return sparse.csr_matrix((weight[here], places), shape=(len(asked), stop - start)).astype(np.float32)


def repeats(events: Events, queries: Queries, chosen: IntArray, bounds: tuple[int, int]) -> sparse.csr_matrix:
    """Return how often each item of a domain stands in the histories, the n-th last event of the domain counted 1/n.

    Where an item that the user had cannot be asked for, as in most logs, it says nothing.

    Args:
        events: in which histories lie.
        queries: at their times.
        chosen: which of them.
        bounds: ``item_index`` of the domain's first item, and of the first one after it.

    Returns:
        A row per query, a column per item of the domain.
    """
    start, stop = bounds
    row, index = ragged(events.offsets[queries.user[chosen]], queries.stop[chosen])
    item = events.item[index]
    here = (item >= start) & (item < stop)
    row, item = row[here], item[here] - start
    from_last = np.searchsorted(row, row, side="right") - np.arange(len(row))
    return sparse.csr_matrix(((1 / from_last).astype(np.float32), (row, item)), shape=(len(chosen), stop - start))


def memory_tensors(memory: Memory) -> dict[str, Tensor]:
    """Return the memory as tensors for a checkpoint."""
    arrays: dict[str, Any] = {
        "offsets": memory.offsets,
        "item": memory.item.astype(np.int32),
        "time_s": memory.time_s,
        "mixed": np.array([memory.mixed]),
        **memory.titles.arrays(),
        **{f"text_{view}": unit.astype(np.float16) for view, unit in memory.text.items()},
        **{f"mean_{view}": mean for view, mean in memory.text_mean.items()},
    }
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}


def memory_of(tensors: Mapping[str, Tensor], vocabulary: Vocabulary) -> Memory:
    """Return the memory that ``memory_tensors`` wrote.

    Raises:
        KeyError: a tensor is missing.
    """
    array = {name: tensors[name].numpy() for name in tensors}
    return Memory(
        offsets=array["offsets"],
        item=array["item"].astype(np.int64),
        time_s=array["time_s"],
        titles=Titles.from_arrays(array),
        text={view: array[f"text_{view}"].astype(np.float32) for view in View},
        text_mean={view: array[f"mean_{view}"] for view in View},
        bounds=vocabulary.bounds,
        mixed=bool(array["mixed"][0]),
    )
