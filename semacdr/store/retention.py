"""Which versions of a data set may go, and why the others stay; from manifests and aliases alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from semacdr.manifest import Manifest
from semacdr.store.aliases import Move
from semacdr.store.lineage import Lineage
from semacdr.store.names import version_key

DEFAULT_KEEP_LAST = 3


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What stays even if nothing points at it."""

    keep_last: int = DEFAULT_KEEP_LAST
    """Versions of each name, the newest."""
    keep_days: float | None = None
    """Versions no older than this; None: age keeps nothing."""


@dataclass(frozen=True)
class Plan:
    """What stays and what goes."""

    keep: dict[str, str] = field(default_factory=dict)
    """``name@version`` -> the first reason found."""
    remove: tuple[Manifest, ...] = ()
    """What was made from others before those, so that no removal leaves an artifact without its inputs."""

    @property
    def bytes(self) -> int:
        """Size of what goes."""
        return sum(file.bytes for manifest in self.remove for file in manifest.files)


def plan_removal(
    manifests: Iterable[Manifest], histories: Mapping[str, Mapping[str, Sequence[Move]]], rule: Rule, now: datetime
) -> Plan:
    """Decide on every version of one data set.

    A version stays when an alias points at it or would after one rollback, when the rule keeps it, or when something
    that stays was made from it. A version from the future (a clock that went backwards) is as young as can be.

    Args:
        manifests: of all versions of the data set.
        histories: name -> alias -> its moves, the last one now.
        rule: what stays besides.
        now: with its time zone.
    """
    known = sorted(manifests, key=lambda m: version_key(m.version))
    here = {manifest.reference for manifest in known}
    keep: dict[str, str] = {}
    for reference, why in (*_pointed_at(histories), *_ruled(known, rule, now)):
        if reference in here:
            keep.setdefault(reference, why)
    lineage = Lineage(known)
    for reference in list(keep):
        for source in sorted(lineage.with_ancestors([reference]) & here):
            keep.setdefault(source, f"{reference} was made from it")
    return Plan(keep, tuple(_users_first(m for m in reversed(known) if m.reference not in keep)))


def _pointed_at(histories: Mapping[str, Mapping[str, Sequence[Move]]]) -> Iterator[tuple[str, str]]:
    for name, aliases in histories.items():
        for alias, moves in aliases.items():
            yield f"{name}@{moves[-1].version}", f"alias {alias}"
            for move in moves[-2:-1]:
                yield f"{name}@{move.version}", f"rollback of {alias}"


def _ruled(known: Sequence[Manifest], rule: Rule, now: datetime) -> Iterator[tuple[str, str]]:
    left = Counter(dict.fromkeys((m.name for m in known), rule.keep_last))
    for manifest in reversed(known):
        if left[manifest.name] > 0:
            left[manifest.name] -= 1
            yield manifest.reference, f"one of the last {rule.keep_last} of {manifest.name}"
        if rule.keep_days is not None and datetime.fromisoformat(manifest.created_at) >= now - timedelta(
            rule.keep_days
        ):
            yield manifest.reference, f"younger than {rule.keep_days:g} days"


def _users_first(manifests: Iterable[Manifest]) -> list[Manifest]:
    by_reference = {manifest.reference: manifest for manifest in manifests}
    lineage = Lineage(by_reference.values())
    ordered: dict[str, Manifest] = {}
    entered: set[str] = set()
    # Depth first without recursion: a lineage may be as long as a store has versions.
    waiting = list(reversed(by_reference))
    while waiting:
        reference = waiting[-1]
        users = [user for user in lineage.outputs(reference) if user not in entered]
        if reference in entered or not users:
            ordered.setdefault(reference, by_reference[waiting.pop()])
        else:
            waiting += users
        entered.add(reference)
    return list(ordered.values())
