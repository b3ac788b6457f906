"""Pointing aliases at versions on purpose: forward past the gate, and back."""

from __future__ import annotations

from semacdr.errors import ConfigError
from semacdr.store.aliases import Move
from semacdr.store.artifact import Artifact
from semacdr.store.catalog import rebuild_catalog
from semacdr.store.store import Store


def promote(store: Store, artifact: Artifact, alias: str, *, reason: str = "", force: bool = False) -> bool:
    """Point an alias at an artifact whose gate has not failed, and bring the catalog up to date.

    Args:
        store: the artifact's.
        artifact: what the alias is to point at.
        alias: any name but a version.
        reason: kept in the alias's history.
        force: point it there although the gate failed; needs a reason, which says so in the history.

    Returns:
        Whether it has moved; it has not if it points there already.

    Raises:
        ConfigError: the gate failed and nobody forces it, or forces it without a reason.
    """
    failed = gate_failed(artifact)
    if failed and not (force and reason):
        raise ConfigError(
            f"{artifact.reference} of {artifact.manifest.dataset!r} has failed its gate; {alias} stays where it is",
            found=artifact.manifest.details["gate"],
            expected="a reason beside --force" if force else "a gate that passed",
            do="mend what the gate found and publish again, or override it with --force --reason TEXT",
        )
    kept = f"gate failed, forced: {reason}" if failed else reason
    manifest = artifact.manifest
    moved = store.move_alias(manifest.dataset, manifest.name, alias, manifest.version, reason=kept)
    if moved:
        rebuild_catalog(store)
    return moved


def rollback(store: Store, dataset: str, name: str, alias: str, *, reason: str = "") -> tuple[Move, Move]:
    """Point an alias at the version that it pointed at before, and bring the catalog up to date.

    The history keeps both moves, so a second rollback undoes the first.

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
    rebuild_catalog(store)
    return now, store.alias_history(dataset, name, alias)[-1]


def gate_failed(artifact: Artifact) -> bool:
    """Whether the artifact's manifest says that its gate failed; it may have had none."""
    gate = artifact.manifest.details.get("gate")
    return isinstance(gate, dict) and gate.get("passed") is False
