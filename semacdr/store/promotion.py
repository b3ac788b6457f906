"""Pointing aliases at versions: forward by the gate or on purpose past it, and back."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from semacdr.errors import AbsentError, ConfigError, StoreError
from semacdr.store.aliases import Move
from semacdr.store.artifact import Artifact
from semacdr.store.catalog import rebuild_catalog
from semacdr.store.store import Store

PRODUCTION = "production"
GROUPS: Mapping[str, tuple[str, ...]] = {
    "checkpoint": ("checkpoint",),
    "index": ("index",),
    "recommendations": ("recommendations", "user_vectors", "item_vectors"),
}
"""What is judged -> the artifacts that go into production together."""
GATE = "gate"
"""The artifact whose ``details.verdicts`` say of each ``name@version`` whether it passed, and the reasons if not."""


def promote(store: Store, artifact: Artifact, alias: str, *, reason: str = "", override: str = "") -> bool:
    """Point an alias at an artifact that the gate has not refused, and bring the catalog up to date.

    With recommendations go the vectors that were published with them.

    Args:
        store: the artifact's.
        artifact: what the alias is to point at.
        alias: any name but a version.
        reason: kept in the alias's history.
        override: why it is to point there although the gate refused; kept in the history, too.

    Returns:
        Whether it has moved; it has not if it points there already.

    Raises:
        ConfigError: the gate refused and nobody overrides it.
    """
    manifest = artifact.manifest
    refused = refusal(store, artifact)
    if refused and not override:
        raise ConfigError(
            f"{artifact.reference} of {manifest.dataset!r} was refused by the gate; {alias} stays where it is",
            found="\n            ".join(refused),
            expected="a version that passed",
            do="mend what the gate found and run again, or override it: --override REASON",
        )
    kept = f"refused by the gate, overridden: {override}" if refused else reason or override
    moved = store.move_alias(manifest.dataset, manifest.name, alias, manifest.version, reason=kept)
    for other in _made_with(store, artifact):
        store.move_alias(manifest.dataset, other.manifest.name, alias, other.manifest.version, reason=kept)
    # Moved or not: who asks again may do so because a crash kept the catalog from showing it.
    rebuild_catalog(store)
    return moved


def admit(store: Store, gate: Artifact) -> list[str]:
    """Point ``production`` at every version that a gate has let pass; the catalog does not know of it yet.

    A version at which it has pointed before is left alone: somebody took it back.

    Returns:
        ``name@version`` of those that are in production now and were not before.
    """
    dataset, moved = gate.manifest.dataset, []
    for reference, verdict in gate.manifest.details["verdicts"].items():
        name, _, version = reference.partition("@")
        before = [move.version for move in store.alias_history(dataset, name, PRODUCTION)]
        if verdict["passed"] and version not in before:
            # What somebody else promotes meanwhile is not overtaken.
            expected = before[-1] if before else None
            store.move_alias(dataset, name, PRODUCTION, version, expected=expected, reason=f"passed {gate.reference}")
            moved.append(reference)
    return moved


def replaced(store: Store, artifact: Artifact) -> Artifact | None:
    """Return what an artifact replaces or has replaced in production; None: nothing, or it is gone."""
    manifest = artifact.manifest
    before = [move.version for move in store.alias_history(manifest.dataset, manifest.name, PRODUCTION)]
    while before and before[-1] == manifest.version:
        before.pop()
    return known(store, manifest.dataset, manifest.name, before[-1]) if before else None


def formerly(store: Store, artifact: Artifact, count: int) -> list[Artifact]:
    """Return the last ``count`` versions that were in production before an artifact, as far as they can be read."""
    manifest = artifact.manifest
    moves = [move.version for move in store.alias_history(manifest.dataset, manifest.name, PRODUCTION)]
    versions = [version for version in dict.fromkeys(reversed(moves)) if version != manifest.version]
    found = []
    for version in versions[:count]:
        with suppress(StoreError):
            found.append(store.get(manifest.dataset, manifest.name, version))
    return found


def known(store: Store, dataset: str, name: str, version: str) -> Artifact | None:
    """Return an artifact by its version or alias; None if there is none.

    Raises:
        StoreError: there is one, and its manifest is broken.
    """
    try:
        return store.get(dataset, name, version)
    except AbsentError:
        return None


def _made_with(store: Store, artifact: Artifact) -> list[Artifact]:
    """Return the other artifacts of its group that one run published with it."""
    manifest = artifact.manifest
    others = [name for name in GROUPS.get(manifest.name, ()) if name != manifest.name]
    found = (store.find(manifest.dataset, name, manifest.fingerprint) for name in others)
    return [other for other in found if other]


def refusal(store: Store, artifact: Artifact) -> list[str]:
    """Return why the gate refused an artifact when it last judged it; empty if it passed or was never judged."""
    for gate in reversed(store.manifests(artifact.manifest.dataset, GATE)):
        verdict = gate.details["verdicts"].get(artifact.reference)
        if verdict is not None:
            return list(verdict["reasons"])
    return []


def rollback(store: Store, dataset: str, name: str, alias: str, *, reason: str = "") -> tuple[Move, Move]:
    """Point an alias at the version that it pointed at before, and bring the catalog up to date.

    The history keeps both moves, so a second rollback undoes the first. With recommendations go the vectors that were
    published with them, where the alias points at some.

    Returns:
        Where it pointed, and where it points now.

    Raises:
        ConfigError: it has pointed at one version only, or the one before is gone.
        StoreError: somebody else moves it.
    """
    history = store.alias_history(dataset, name, alias)
    if len(history) < 2:  # noqa: PLR2004 (this version and the one before)
        raise ConfigError(
            f"alias {alias} of {name} has no version to go back to",
            found=f"it has only pointed at {history[0].version}" if history else "no such alias",
            do="point it at a version with `semacdr promote`",
        )
    now, before = history[-1], history[-2]
    if before.version not in {manifest.version for manifest in store.manifests(dataset, name)}:
        raise ConfigError(
            f"alias {alias} of {name} cannot go back to {name}@{before.version}",
            found="that version is no longer in the store",
            do="point it at another version with `semacdr promote`",
        )
    kept = f"rollback from {now.version}" + (f": {reason}" if reason else "")
    store.move_alias(dataset, name, alias, before.version, expected=now.version, reason=kept)
    for other in _made_with(store, store.get(dataset, name, before.version)):
        if store.alias_history(dataset, other.manifest.name, alias):
            store.move_alias(dataset, other.manifest.name, alias, other.manifest.version, reason=kept)
    rebuild_catalog(store)
    return now, store.alias_history(dataset, name, alias)[-1]
