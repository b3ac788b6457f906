"""The checks, each on the very arrays that a fit is given and not on what a config says of them."""

# Shapes: Q targets, C candidates, I1 items and the padding, E encoder width.

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import structlog
from safetensors.numpy import load_file

from semacdr.errors import DataError, examples
from semacdr.leaks.texts import WrittenTexts, text_finding
from semacdr.model.histories import PART_CODE, Events, IntArray, Queries, Visibility, queries_of_targets
from semacdr.model.ranking import is_repeat
from semacdr.model.text_vectors import TextVectors
from semacdr.model.vocabulary import Vocabulary
from semacdr.tables import WHITENING_FILE, FitOn, Part, View

log = structlog.get_logger()

CORE_AT_LEAST = 3
"""A log in which no user, or no item, has fewer events was filtered, if many have hardly more than the least."""
CORE_EDGE = 0.01
"""Share of the users, or items, above which they are many: a few long histories have different lengths."""
REPEATS_AT_MOST = 0.05
"""Share of targets that their user had before, above which results have to say so."""
EMPTY_AT_MOST = 0.5
"""The same of targets without any history."""
FEW_ITEMS = 20
"""Chance alone has an HR@10 of one half or more in a domain of so few."""


class Verdict(StrEnum):
    """What a check says when it does not refuse."""

    OK = "ok"
    WARNING = "warning"
    """Results are flattered, and have to say so."""


@dataclass(frozen=True)
class Finding:
    """One check's outcome."""

    check: str
    verdict: Verdict
    found: str


def as_json(findings: Iterable[Finding]) -> list[dict[str, str]]:
    """Return the findings for a manifest."""
    return [{"check": one.check, "verdict": one.verdict.value, "found": one.found} for one in findings]


def lint(  # noqa: PLR0913 (all that a fit is made from)
    vocabulary: Vocabulary,
    events: Events,
    *,
    fit_events: Events,
    selection_events: Events,
    visibility: Visibility,
    embeddings: Path | None = None,
    text: Mapping[View, TextVectors] | None = None,
    written: WrittenTexts | None = None,
) -> list[Finding]:
    """Check what a fit ``train`` is made from and chosen on; log every warning.

    Args:
        vocabulary: of the items.
        events: all of them.
        fit_events: what the fit sees.
        selection_events: what early stopping, the gate and a search see.
        visibility: the protocol's.
        embeddings: folder of the ``embeddings`` artifact; None: nothing reads texts.
        text: its vectors.
        written: which items were given a text; None: nobody knows.

    Raises:
        DataError: a training, validation or text statistic knows what comes after its cut.
    """
    findings = [
        *check_split(vocabulary, events, fit_events, visibility, FitOn.TRAIN),
        _selection(selection_events),
        _core(vocabulary, events),
        _repeats(events, visibility),
        _sizes(vocabulary, events),
    ]
    support = fit_events.support(vocabulary.num_items)
    if embeddings is not None and text is not None:
        findings.append(_whitening(embeddings, text, support))
    if written is not None:
        targets = queries_of_targets(events, Part.VALIDATION, visibility).item
        flattering, found = text_finding(written, support, targets)
        findings.append(Finding("texts", Verdict.WARNING if flattering else Verdict.OK, found))
    for one in findings:
        if one.verdict is Verdict.WARNING:
            log.warning("leak", check=one.check, found=one.found)
    return findings


def check_split(
    vocabulary: Vocabulary, events: Events, fit_events: Events, visibility: Visibility, fit: FitOn
) -> list[Finding]:
    """Check that a fit sees no event of a later part, and that no history holds its target or what comes after.

    Raises:
        DataError: one does.
    """
    expected = events.up_to(fit.last_part)
    late = np.flatnonzero(fit_events.part > PART_CODE[fit.last_part])
    if len(late) or not np.array_equal(
        fit_events.support(vocabulary.num_items), expected.support(vocabulary.num_items)
    ):
        raise _leak(
            f"the fit {fit} is given other events than those up to part {fit.last_part}",
            found=f"{len(fit_events.item)} events, {len(late)} of later parts",
            expected=f"{len(expected.item)} events",
        )
    return [_cuts(events, fit_events, visibility), _histories(events, visibility)]


def _cuts(events: Events, fit_events: Events, visibility: Visibility) -> Finding:
    if visibility is Visibility.EARLIER_IN_TIME:
        lasts = {part: events.time_s[events.part == code] for part, code in PART_CODE.items()}
        for before, after in ((Part.TRAIN, Part.VALIDATION), (Part.VALIDATION, Part.TEST)):
            if len(lasts[before]) and len(lasts[after]) and lasts[before].max() >= lasts[after].min():
                late = int((lasts[before] >= lasts[after].min()).sum())
                raise _leak(
                    f"{late} events of part {before} lie at or after the cut of part {after}",
                    found=f"the last one at {lasts[before].max()} s",
                    expected=f"before {lasts[after].min()} s",
                )
        return Finding("cuts", Verdict.OK, f"{len(fit_events.item)} events, all before the next part's first")
    backwards = (np.diff(events.part) < 0) & (np.diff(events.user) == 0)
    crowded = [
        np.bincount(events.user[events.part == PART_CODE[part]]).max(initial=0) for part in Part if part != "train"
    ]
    if backwards.any() or max(crowded) > 1:
        raise _leak(
            "leave-one-out parts are out of order",
            found=examples(events.user_ids.gather(events.user[1:][backwards]).unique().sort()) or f"{crowded} events",
            expected="each user's training events, then one for validation, then one for test",
        )
    return Finding("cuts", Verdict.OK, "every user's parts stand in order; other users' later events are trained on")


def _histories(events: Events, visibility: Visibility) -> Finding:
    num_targets = num_empty = 0
    for part in (Part.VALIDATION, Part.TEST):
        queries = queries_of_targets(events, part, visibility)
        target = np.flatnonzero(events.is_target & (events.part == PART_CODE[part]))
        has = queries.stop > events.offsets[queries.user]
        late = queries.stop > target
        if visibility is Visibility.EARLIER_IN_TIME:
            late |= has & (events.time_s[(queries.stop - 1).clip(min=0)] >= queries.time_s)
        if late.any():
            users = events.user_ids.gather(queries.user[late]).unique().sort()
            raise _leak(f"histories of part {part} hold their target or later events", found=examples(users))
        num_targets += len(queries)
        num_empty += int((~has).sum())
    found = f"{num_targets} targets, each with earlier events alone"
    if num_empty <= EMPTY_AT_MOST * num_targets:
        return Finding("histories", Verdict.OK, found)
    told = f"{num_empty} of {num_targets} targets have no history: results tell what users start with"
    return Finding("histories", Verdict.WARNING, f"{told}; where they come once, for many events, see protocol loo")


def _selection(events: Events) -> Finding:
    late = int((events.part == PART_CODE[Part.TEST]).sum())
    if late:
        raise _leak(
            "early stopping and search can reach test events", found=f"{late} events of part test", expected="none"
        )
    return Finding("selection", Verdict.OK, "what models are chosen on holds no test event")


def _core(vocabulary: Vocabulary, events: Events) -> Finding:
    """A k-core is not ours to see being made, but a log that was filtered as a whole shows it."""
    support, lengths = events.support(vocabulary.num_items), np.diff(events.offsets)
    counts = {"item": support[support > 0], "user": lengths[lengths > 0]}
    least = {name: int(of.min(initial=np.iinfo(np.int64).max)) for name, of in counts.items()}
    found = f"over the whole log every item has at least {least['item']} events and every user {least['user']}"
    edges = {name: (of <= max(least[name] + 1, 1.1 * least[name])).sum() for name, of in counts.items()}
    cut = [name for name, of in counts.items() if edges[name] > max(2, CORE_EDGE * len(of))]
    if not any(least[name] >= CORE_AT_LEAST for name in cut):
        return Finding("core", Verdict.OK, found)
    return Finding("core", Verdict.WARNING, f"{found}: it was filtered with knowledge of what comes after the cut")


def _repeats(events: Events, visibility: Visibility) -> Finding:
    """Lists leave out what the user had, unless they are told otherwise; a log of songs or groceries asks for it."""
    parts = [queries_of_targets(events, part, visibility) for part in (Part.VALIDATION, Part.TEST)]
    repeat_Q = np.concatenate([is_repeat(events, queries) for queries in parts])
    found = f"{repeat_Q.sum()} of {len(repeat_Q)} targets are items that their user had before"
    if repeat_Q.sum() <= REPEATS_AT_MOST * len(repeat_Q):
        return Finding("repeats", Verdict.OK, found)
    told = "lists leave them out but for recommendations.repeat_after_days, and sampled-999 gives them away"
    return Finding("repeats", Verdict.WARNING, f"{found}: {told}; see the groups new and repeat")


def _sizes(vocabulary: Vocabulary, events: Events) -> Finding:
    asked = np.unique(events.domain[events.is_target])
    sizes = {vocabulary.domains[at]: vocabulary.bounds[at][1] - vocabulary.bounds[at][0] for at in asked}
    few = [f"{domain} {size}" for domain, size in sizes.items() if size <= FEW_ITEMS]
    if not few:
        return Finding("sizes", Verdict.OK, f"every domain has more than {FEW_ITEMS} items")
    told = f"domains with few items ({', '.join(few)}): half of their targets or more are in the first ten by chance"
    return Finding("sizes", Verdict.WARNING, f"{told}, and macro counts them like the others")


def _whitening(folder: Path, text: Mapping[View, TextVectors], support_I1: IntArray) -> Finding:
    stored = load_file(folder / WHITENING_FILE)
    for view, vectors in text.items():
        visible_I1 = vectors.present_I1.numpy() & (support_I1 > 0)
        if visible_I1.sum() < 2:  # noqa: PLR2004 (nothing was fitted)
            continue
        mean_E = vectors.raw_I1E.numpy()[visible_I1].mean(axis=0, dtype=np.float64)
        # A mean of n unit vectors moves by about 1/n with one item more; float32 rounds at 1e-8 here.
        if np.abs(mean_E - stored[f"{view}.mean"]).max() > 1e-7 * max(1.0, float(np.abs(mean_E).max())):
            raise _leak(
                f"the whitening of view {view} was not fitted on the items of training events",
                found=f"another mean than that of the {visible_I1.sum()} items that training sees",
                expected="embeddings made from the same sequences",
            )
    return Finding("whitening", Verdict.OK, "fitted on the items of training events alone")


def check_candidates(
    events: Events, queries: Queries, vocabulary: Vocabulary, candidate_QC: IntArray | None
) -> Finding:
    """Check drawn candidates: as many for each target, all of its domain, distinct, never touched by the user.

    Raises:
        DataError: some are not.
    """
    if candidate_QC is None:
        return Finding("candidates", Verdict.OK, "every item of the domain less the history")
    start, stop = (np.array(edge)[queries.domain][:, None] for edge in zip(*vocabulary.bounds, strict=True))
    wrong = ((candidate_QC < start) | (candidate_QC >= stop) | (candidate_QC == queries.item[:, None])).any(axis=1)
    ordered = np.sort(candidate_QC, axis=1)
    wrong |= (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    touched = np.unique(events.user * (vocabulary.num_items + 1) + events.item)
    wrong |= np.isin(queries.user[:, None] * (vocabulary.num_items + 1) + candidate_QC, touched).any(axis=1)
    if wrong.any():
        raise _leak(
            f"{wrong.sum()} targets have candidates that they must not have",
            found=examples(events.user_ids.gather(queries.user[wrong]).unique().sort()),
            expected="distinct items of the target's domain that the user never touches",
        )
    return Finding("candidates", Verdict.OK, f"{candidate_QC.shape[1]} untouched items beside each target")


def _leak(what: str, *, found: object, expected: object = None) -> DataError:
    return DataError(
        f"leak: {what}", found=found, expected=expected, do="run the stages that made it again; nothing was trained"
    )
