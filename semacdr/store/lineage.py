"""What an artifact was made from and what was made from it, read off the manifests of one data set."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from semacdr.errors import AbsentError, StoreError
from semacdr.manifest import Manifest
from semacdr.store.artifact import Artifact
from semacdr.store.store import Store


class Direction(StrEnum):
    """Which way from an artifact."""

    UP = "made from"
    DOWN = "used by"


class State(StrEnum):
    """What the store holds of an artifact that a manifest names."""

    PUBLISHED = "published"
    GONE = "not in the store"
    OTHER = "other content than was read"


@dataclass(frozen=True)
class Step:
    """One artifact of a lineage: the neighbour of ``via``, ``depth`` steps from where the lineage starts."""

    direction: Direction
    depth: int
    reference: str
    via: str
    state: State


def made_from(store: Store, artifact: Artifact, name: str) -> Artifact:
    """Return the artifact of a name that another was made from, or the same made anew after that was removed.

    Raises:
        StoreError: it was made from none of that name, or that one is gone.
    """
    manifest = artifact.manifest
    references = [reference for reference in manifest.inputs if reference.partition("@")[0] == name]
    if not references:
        raise StoreError(
            f"{artifact.reference} of {manifest.dataset!r} was not made from any {name}",
            found=", ".join(manifest.inputs),
            do="run the pipeline again: this version makes it from that, too",
        )
    try:
        return store.get(manifest.dataset, *references[0].split("@"))
    except AbsentError:
        same = store.find(manifest.dataset, name, manifest.inputs[references[0]])
        if same is None:
            raise
        return same


def is_made_from(manifest: Manifest, source: Manifest) -> bool:
    """Tell whether one was made from the other, or from the same under the number that it had before."""
    return any(
        reference.partition("@")[0] == source.name and digest == source.fingerprint
        for reference, digest in manifest.inputs.items()
    )


class Lineage:
    """The artifacts of one data set, joined by their inputs.

    An input that was removed and made anew is the version made anew.

    Args:
        manifests: of all its versions.
    """

    def __init__(self, manifests: Iterable[Manifest]) -> None:
        self._manifests = {manifest.reference: manifest for manifest in manifests}
        self._made = {(m.name, m.fingerprint): m.reference for m in self._manifests.values()}
        self._outputs: dict[str, list[str]] = defaultdict(list)
        for reference in self._manifests:
            for source in self.inputs(reference):
                self._outputs[source].append(reference)

    def inputs(self, reference: str) -> list[str]:
        """Return what it was made from; nothing for an artifact that is gone."""
        manifest = self._manifests.get(reference)
        return sorted(self._found(*used) for used in manifest.inputs.items()) if manifest else []

    def outputs(self, reference: str) -> list[str]:
        """Return what was made from it."""
        return sorted(self._outputs.get(reference, ()))

    def steps(self, reference: str, direction: Direction) -> list[Step]:
        """Return every artifact on that side, each once, nearest first."""
        found: dict[str, Step] = {}
        waiting = deque([(reference, 0)])
        while waiting:
            via, depth = waiting.popleft()
            for near in self.neighbours(direction)(via):
                if near not in found:
                    found[near] = Step(direction, depth + 1, near, via, self.state(near, via, direction))
                    waiting.append((near, depth + 1))
        return list(found.values())

    def neighbours(self, direction: Direction) -> Callable[[str], list[str]]:
        """Return the function that goes one step that way."""
        return self.inputs if direction is Direction.UP else self.outputs

    def state(self, reference: str, via: str, direction: Direction) -> State:
        """Tell what the store holds of a neighbour of ``via``."""
        source, made = (reference, via) if direction is Direction.UP else (via, reference)
        if reference not in self._manifests:
            return State.GONE
        known = self._manifests.get(source)
        same = known is None or known.fingerprint == self._manifests[made].inputs.get(source, known.fingerprint)
        return State.PUBLISHED if same else State.OTHER

    def _found(self, reference: str, fingerprint: str) -> str:
        """The input of this name and content, as which version it lies there; as it was named if it is gone."""
        if reference in self._manifests:
            return reference
        return self._made.get((reference.partition("@")[0], fingerprint), reference)

    def with_ancestors(self, references: Iterable[str]) -> set[str]:
        """Return the artifacts and all that they were made from."""
        found: set[str] = set()
        waiting = list(references)
        while waiting:
            reference = waiting.pop()
            if reference not in found:
                found.add(reference)
                waiting += self.inputs(reference)
        return found
