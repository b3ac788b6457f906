"""From ranks to the metrics of groups of targets."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semacdr.evaluation.task import NUM_SAMPLED
from semacdr.model.histories import Events, IntArray, Queries
from semacdr.model.ranking import hit, is_repeat, ndcg, reciprocal
from semacdr.tables import Candidates

HIT_AT = (5, 10, 20, 50)
NDCG_AT = 10
MRR_AT = {Candidates.FULL: 100, Candidates.SAMPLED_999: NUM_SAMPLED + 1}
"""Under full ranking a reciprocal rank beyond the hundredth place says nothing; among drawn candidates none is cut."""
COVERAGE_AT = 10
MACRO = "macro"
OWN_HISTORY = (("own-0", 0, 0), ("own-1-2", 1, 2), ("own-3-5", 3, 5), ("own-6+", 6, None))

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Value:
    """One metric of one domain and group."""

    domain: str
    group: str
    metric: str
    value: float
    num_targets: int


def groups_of(events: Events, queries: Queries, support_Q: IntArray) -> dict[str, BoolArray]:
    """Return the groups of targets, each as a mask over the queries.

    ``all``; ``warm`` and ``cold``: the model knows an event of the target's item, or none; ``own-0``, ``own-1-2``,
    ``own-3-5``, ``own-6+``: how many events the user had in the target's domain before it; ``source-only``: none
    there, but some in other domains; ``overlapping`` and ``single-domain``: the history lies in several domains, or
    in one. A user without any history is in neither. ``new`` and ``repeat``, where there are any of these: the user
    never had the target before it, or had.

    Args:
        events: of all users.
        queries: the targets.
        support_Q: events of each target's item that the model knows.
    """
    warm = support_Q > 0
    groups = {"all": np.ones(len(queries), bool), "warm": warm, "cold": ~warm}
    own = own_history(events, queries)
    for name, least, most in OWN_HISTORY:
        groups[name] = (own >= least) & (own <= (most if most is not None else own.max(initial=0)))
    num_domains = (history_counts(events, queries) > 0).sum(axis=1)
    groups["source-only"] = (own == 0) & (num_domains > 0)
    groups |= {"overlapping": num_domains > 1, "single-domain": num_domains == 1}
    repeat = is_repeat(events, queries)
    return groups | ({"new": ~repeat, "repeat": repeat} if repeat.any() else {})


def history_counts(events: Events, queries: Queries) -> IntArray:
    """Return how many events each query's user had in each domain before it: [Q, domains]."""
    num_domains = int(max(events.domain.max(initial=0), queries.domain.max(initial=0))) + 1
    counts = np.zeros((len(queries), num_domains), np.int64)
    for domain in range(num_domains):
        before = np.concatenate([[0], np.cumsum(events.domain == domain)])
        counts[:, domain] = before[queries.stop] - before[events.offsets[queries.user]]
    return counts


def own_history(events: Events, queries: Queries) -> IntArray:
    """Return how many events each query's user had in its domain before it."""
    own: IntArray = history_counts(events, queries)[np.arange(len(queries)), queries.domain]
    return own


def metric_values(
    rank: IntArray,
    domain: IntArray,
    groups: Mapping[str, BoolArray],
    domain_names: tuple[str, ...],
    candidates: Candidates = Candidates.FULL,
) -> Iterator[Value]:
    """Yield every rank metric of every domain and group with targets, and the mean over those domains as ``macro``."""
    per_target = {f"hr_{at}": hit(rank, at) for at in HIT_AT}
    per_target |= {f"ndcg_{NDCG_AT}": ndcg(rank, NDCG_AT), "mrr": reciprocal(rank, MRR_AT[candidates])}
    for group, mask in groups.items():
        for metric, value in per_target.items():
            means = []
            for index, name in enumerate(domain_names):
                chosen = mask & (domain == index)
                if chosen.any():
                    means.append(Value(name, group, metric, float(value[chosen].mean()), int(chosen.sum())))
            yield from means
            if means:
                mean = float(np.mean([one.value for one in means]))
                yield Value(MACRO, group, metric, mean, sum(one.num_targets for one in means))


def coverage_values(
    top: IntArray, domain: IntArray, bounds: tuple[tuple[int, int], ...], domain_names: tuple[str, ...]
) -> Iterator[Value]:
    """Yield the share of each domain's items that stand in anyone's first ``COVERAGE_AT``, and their macro mean."""
    values = []
    for index, (name, (start, stop)) in enumerate(zip(domain_names, bounds, strict=True)):
        chosen = domain == index
        if chosen.any():
            shown = np.unique(top[chosen, :COVERAGE_AT])
            share = np.count_nonzero(shown) / (stop - start)
            values.append(Value(name, "all", f"coverage_{COVERAGE_AT}", share, int(chosen.sum())))
    yield from values
    mean = float(np.mean([one.value for one in values]))
    yield Value(MACRO, "all", f"coverage_{COVERAGE_AT}", mean, sum(one.num_targets for one in values))
