"""Removing what nothing needs any more, and what crashed runs have left."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from semacdr.errors import examples
from semacdr.manifest import Manifest
from semacdr.store.backends import Leftover
from semacdr.store.catalog import rebuild_catalog
from semacdr.store.retention import Plan, Rule, plan_removal
from semacdr.store.store import Store


@dataclass(frozen=True)
class Prune:
    """What a prune does, or would do."""

    plans: dict[str, Plan]
    """Data set -> what stays and what goes."""
    leftovers: tuple[Leftover, ...]
    """What goes of the files of dead runs, and of versions that were taken out before."""
    held: dict[str, str]
    """Data set of which nothing goes -> its manifest that cannot be read: what that was made from is not known."""

    @property
    def manifests(self) -> list[Manifest]:
        """The versions that go, of all data sets."""
        return [manifest for plan in self.plans.values() for manifest in plan.remove]


def plan_prune(store: Store, rule: Rule, *, grace_s: float, now: datetime) -> Prune:
    """Decide what goes; nothing is touched.

    Args:
        store: the store.
        rule: which versions stay although nothing points at them.
        grace_s: how long files stay that nobody can find any more: a dead run's, and a removed version's.
        now: with its time zone.
    """
    plans, held = {}, {}
    for dataset in store.datasets():
        survey = store.survey(dataset)
        if survey.broken:
            held[dataset] = examples(place.key for place in survey.broken)
            continue
        known = survey.manifests
        histories = {name: store.alias_histories(dataset, name) for name in {manifest.name for manifest in known}}
        plans[dataset] = plan_removal(known, histories, rule, now)
    old = tuple(leftover for leftover in store.staging_leftovers() if leftover.age_s >= grace_s)
    return Prune(plans, old, held)


def carry_out(store: Store, prune: Prune) -> None:
    """Take the versions out of the store and remove the leftovers.

    A version's files stay for the readers that have found it: they are a leftover from now on, and a later prune
    removes them once they are old enough.

    Raises:
        StoreError: an alias has been pointed at one of the versions meanwhile; those after it are still there.
    """
    for manifest in prune.manifests:
        store.retire_version(manifest.dataset, manifest.name, manifest.version)
    if prune.manifests or prune.leftovers:
        # Before files go: a catalog from before a crash may still list what was taken out then.
        rebuild_catalog(store)
    for leftover in prune.leftovers:
        store.remove_leftover(leftover)
