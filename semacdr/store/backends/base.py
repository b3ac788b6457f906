"""What the store asks of the place where it lies."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from semacdr.errors import StoreError
from semacdr.manifest import Manifest
from semacdr.store.names import Place

STAGING = ".staging"
RETIRED = "retired.json"
"""What a manifest is called once its version is given up: readers that are inside still find the files."""


MAX_RACES = 100
"""Writers that may be faster than we until we believe in a fault rather than in a race."""


class Stored(NamedTuple):
    """A small object and what tells this state of it from any other."""

    data: bytes
    tag: str


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """What a crash or a removal has left behind: no reader sees it, and it can be removed."""

    kind: str
    """``staging``: what a dead run was writing or deleting; ``claim``: a version that a dead publisher had begun to
    upload; ``retired``: a version that was given up, kept in place for readers that are inside."""
    key: str
    """Its path below the store's root."""
    age_s: float
    """Seconds since anything in it was written, or since it was retired."""


class Backend(Protocol):
    """A place for a store. Keys are paths below the store's root, with ``/``; callers have checked their parts."""

    uri: str
    """As people write it; holds no secret."""
    work: Path
    """A folder of this machine for drafts, answers and the catalog; the store's root if it is a local one."""

    def read(self, key: str) -> Stored | None:
        """Return an object; None if there is none."""

    def write(self, key: str, data: bytes, tag: str | None) -> bool:
        """Write an object whole if its tag is still this one (None: if there is none); return whether it was so."""

    def versions(self, dataset: str | None = None, name: str | None = None) -> dict[Place, str]:
        """Return the places that hold a manifest, with a tag that changes when the manifest does."""

    def read_manifests(self, places: dict[Place, str]) -> dict[Place, bytes]:
        """Return the bytes of the manifests at these places and tags; those that have gone are left out."""

    def aliases(self, dataset: str, name: str) -> list[str]:
        """Return the names of an artifact's aliases."""

    def put_version(self, folder: Path, place: Place) -> bool:
        """Publish a finished folder, with its manifest in it; False if the place is taken."""

    def fetch(self, place: Place, manifest: Manifest) -> Path:
        """Return a folder of this machine that holds the version's files."""

    def location(self, place: Place) -> str:
        """Return where other programs find the version's files: a path or an ``s3://`` URI."""

    def walk(self) -> dict[str, int]:
        """Return the path below the root and the size of every file; links are files of size -1.

        Left out: what lies in the root with a hidden name or a name of ``names.RESERVED``.
        """

    def files(self, place: Place) -> dict[str, int]:
        """Return the path and size of every file that lies at a place; links are files of size -1."""

    def sha256(self, place: Place, path: str) -> str:
        """Return the sha256 of the bytes that one of its files holds now."""

    def retire(self, place: Place) -> None:
        """Take a version's manifest away and leave its files: nobody finds it any more, readers inside go on."""

    def remove(self, place: Place) -> None:
        """Remove a version, retired or not: at once for who looks for it, then from the disk."""

    def leftovers(self) -> list[Leftover]:
        """Return what crashes have left, and what is retired."""

    def remove_leftover(self, leftover: Leftover) -> None:
        """Remove it for good."""

    def exclusive(self, what: str) -> AbstractContextManager[None]:
        """Keep this machine's other processes out of a block that is about ``what``."""

    def catalog(self) -> Path:
        """Return the path of the catalog on this machine, up to date; there is no such file before the first one."""

    def replace_catalog(self, write: Callable[[Path], None]) -> None:
        """Let the catalog be written to a new file and put it into the old one's place."""

    def pull_responses(self) -> None:
        """Bring the LLM's answers that others have gathered to this machine."""

    def push_responses(self) -> None:
        """Bring this machine's answers to the others."""


def endless_race(where: str) -> StoreError:
    """Return the error of a writer that has lost ``MAX_RACES`` times."""
    return StoreError(
        f"{where} cannot be written", found=f"{MAX_RACES} times another writer was faster", do="try again"
    )
