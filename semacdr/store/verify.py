"""Compares a store with what its manifests say, byte by byte, and looks for what does not belong into it.

Not covered, because no manifest speaks of it: the LLM's answers, the catalog (it can be rebuilt), what dead runs left
in the staging folder, the times and reasons in an alias, and a version that was removed whole and that nothing points
at. A seal tells an accident from what was published; it is no signature: who can write to the store can forge it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

from semacdr.errors import StoreError, close_names
from semacdr.manifest import Manifest
from semacdr.store import names
from semacdr.store.names import MARKER, Place
from semacdr.store.store import CURRENT, Store, Survey


@dataclass(frozen=True, order=True)
class Finding:
    """One thing in a store that is not as it should be."""

    path: str
    """Of the version, alias, file or folder, below the store's root."""
    problem: str


def verify(store: Store, dataset: str = "*", name: str = "*", version: str | None = None) -> list[Finding]:
    """Check every file of the chosen versions, their aliases, and that nothing else lies there.

    Publishing and pruning may go on meanwhile.

    Args:
        store: which.
        dataset: one data set; ``*``: all.
        name: one artifact; ``*``: all.
        version: one version or alias, and then only its files are checked; None: all, with aliases and strange files.

    Returns:
        What is wrong, by path; empty when everything is as it was published.

    Raises:
        ConfigError: a name that nothing in a store can have.
        StoreError: there is nothing of that name.
        TransientError: a bucket cannot be reached.
    """
    chosen = _Chosen(dataset, name, _resolve(store, dataset, name, version))
    listed = store.walk()
    try:
        survey = store.survey()
    except StoreError as error:
        return [Finding(MARKER, _said(error))]
    places = {_place(manifest): manifest for manifest in survey.manifests}
    strange = _strange(store, listed, survey)
    if strange:
        # What was published or removed between the two looks is not strange at the second.
        strange &= _strange(store, store.walk(), store.survey())
    found = {finding for finding in strange if chosen.has_key(finding.path)}
    found |= {Finding(place.key, _said(error)) for place, error in survey.broken.items() if chosen.has(place)}
    for place, manifest in places.items():
        if chosen.has(place):
            found.update(_file_findings(store, place, manifest))
            found.update(_input_findings(place, manifest, places, survey.broken))
    if chosen.version is None:
        found.update(finding for finding in _alias_findings(store, listed) if chosen.has_key(finding.path))
    everything = _Chosen("*", "*", None)
    if chosen != everything and not found and not any(chosen.has(place) for place in places):
        _refuse_nothing(store, chosen, places)
    return sorted(found)


@dataclass(frozen=True)
class _Chosen:
    dataset: str
    name: str
    version: str | None

    def has(self, place: Place) -> bool:
        return (
            self.dataset in ("*", place.dataset)
            and self.name in ("*", place.name)
            and self.version in (None, place.version)
        )

    def has_key(self, key: str) -> bool:
        parts = key.split("/")
        wanted = (self.dataset, self.name, self.version or "*")
        return all(one == "*" or parts[at : at + 1] == [one] for at, one in enumerate(wanted))


def _resolve(store: Store, dataset: str, name: str, version: str | None) -> str | None:
    if version is None or not names.is_alias(version):
        return version
    if "*" in (dataset, name):
        raise StoreError(
            f"alias {version!r} alone says no version",
            found=f"data set {dataset}, artifact {name}",
            expected="one data set and one artifact",
            do="name both, or a version",
        )
    history = store.alias_history(dataset, name, version)
    return history[-1].version if history else store.get(dataset, name, version).manifest.version


def _strange(store: Store, listed: Iterable[str], survey: Survey) -> set[Finding]:
    """Return what lies in the store and is neither a version, nor of one, nor called like an alias."""
    known = {_place(manifest) for manifest in survey.manifests} | set(survey.broken)
    # Being uploaded or already given up: prune's business, and no reader sees them.
    known |= {
        Place(*leftover.key.split("/")[-len(Place._fields) :])
        for leftover in store.staging_leftovers()
        if leftover.kind in ("claim", "retired")
    }
    found = set()
    for key in listed:
        dataset, name, version, below = (*key.split("/", 3), "", "", "")[:4]
        if not names.is_dataset(dataset) or not name:
            found.add(Finding(dataset, "does not belong into a store"))
        elif not names.is_artifact(name) or not version:
            found.add(Finding(f"{dataset}/{name}", "does not belong into a store"))
        elif below and names.is_version(version):
            place = Place(dataset, name, version)
            if place not in known:
                found.add(Finding(place.key, "a version without a manifest"))
        elif below or not names.is_alias(version):
            found.add(Finding(f"{dataset}/{name}/{version}", "does not belong into a store"))
    return found


def _file_findings(store: Store, place: Place, manifest: Manifest) -> list[Finding]:
    try:
        faults = store.faults(manifest)
    except (OSError, StoreError) as error:
        faults = [f"cannot be read: {error}"]
    survey = store.survey(place.dataset, place.name) if faults else None
    if survey is not None and place not in {*map(_place, survey.manifests), *survey.broken}:
        return []  # removed while it was read
    return [Finding(place.key, fault) for fault in faults]


def _input_findings(
    place: Place, manifest: Manifest, places: Mapping[Place, Manifest], broken: Container[Place]
) -> Iterator[Finding]:
    made = {(source.dataset, source.name, found.fingerprint) for source, found in places.items()}
    for reference, fingerprint in manifest.inputs.items():
        name, _, version = reference.partition("@")
        source = Place(place.dataset, name, version)
        if source in broken:  # a finding of its own
            continue
        if source not in places:
            if (place.dataset, name, fingerprint) in made:  # removed, and made anew
                continue
            yield Finding(place.key, f"was made from {reference}, which is gone")
        elif places[source].fingerprint != fingerprint:
            yield Finding(place.key, f"was made from another {reference} than the one that lies there")


def _alias_findings(store: Store, listed: Iterable[str]) -> Iterator[Finding]:
    for key in listed:
        parts = key.split("/")
        if len(parts) != len(Place._fields) or not names.is_alias(parts[2]):
            continue
        dataset, name, alias = parts
        if not (names.is_dataset(dataset) and names.is_artifact(name)):
            continue
        try:
            history = store.alias_history(dataset, name, alias)
        except (OSError, StoreError) as error:
            yield Finding(key, f"no alias: {_said(error)}")
            continue
        if not history:
            continue
        try:
            store.get(dataset, name, history[-1].version)
        except StoreError as error:
            yield Finding(key, f"points at {history[-1].version}, which cannot be read: {_said(error)}")


def _refuse_nothing(store: Store, chosen: _Chosen, places: Iterable[Place]) -> None:
    """Refuse to call sound what is not there."""
    if "*" not in (chosen.dataset, chosen.name):
        store.get(chosen.dataset, chosen.name, chosen.version or CURRENT)
    wanted = f"{chosen.dataset}/{chosen.name}/{chosen.version or '*'}"
    known = {place.key for place in places}
    raise StoreError(f"nothing in {store.uri} matches {wanted}", expected=close_names(wanted, known))


def _said(error: Exception) -> str:
    """Return an error's message on one line, without its advice."""
    if not isinstance(error, StoreError):
        return str(error)
    found = f": {error.found}" if error.found is not None else ""
    return " ".join(f"{error.what}{found}".split())


def _place(manifest: Manifest) -> Place:
    return Place(manifest.dataset, manifest.name, manifest.version)
