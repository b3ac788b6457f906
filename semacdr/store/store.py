"""Immutable, versioned artifacts in plain files, in a folder or a bucket.

    <store>/<dataset>/<name>/<version>/   the files and, written last, manifest.json
    <store>/<dataset>/<name>/<alias>      JSON: the version it points at, and those before it; `current` for readers
    <store>/responses/                    the LLM's answers, shared by all data sets
    <store>/vectors/                      vectors of texts, shared by all data sets; can always be made again
    <store>/.staging/                     what is being written or deleted; a crash leaves its traces only here
    <store>/studies/                      hyper-parameter searches
    <store>/catalog.duckdb                views over everything; can always be rebuilt
    <store>/store.json                    the version of this layout

A version is whole or absent: in a folder it appears by one rename of a finished folder, in a bucket when its manifest
is put. It is never overwritten, and its number is not given again after it is removed.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import structlog

from semacdr import manifest as manifests
from semacdr import tables
from semacdr.errors import AbsentError, SemacdrError, StoreError, close_names
from semacdr.manifest import Facts, Manifest
from semacdr.store import names
from semacdr.store.aliases import Aliases, Move
from semacdr.store.artifact import Artifact, Draft
from semacdr.store.backends import RETIRED, STAGING, Leftover, open_backend
from semacdr.store.backends.base import MAX_RACES, endless_race
from semacdr.store.backends.workplace import Workplace
from semacdr.store.disk import disk_errors
from semacdr.store.filling import file_records, same_or_refused, unplaced_manifest
from semacdr.store.names import MARKER, Place

log = structlog.get_logger()

CURRENT = "current"
PUSH_EVERY_S = 60.0
"""Between two times that a bucket is given the answers of a run that goes on."""
_NOT_RECORDED = {manifests.FILE_NAME, RETIRED}


@dataclass(frozen=True)
class Survey:
    """What lies in a store: the manifests that can be read, oldest first, and what is wrong with the others."""

    manifests: list[Manifest]
    broken: dict[Place, StoreError]


class Store:
    """A store in a folder or in a bucket.

    Args:
        uri: a path, ``file:///path``, or ``s3://bucket/prefix``; a bucket's endpoint, region and keys come from the
            standard ``AWS_*`` variables. Made when something is published.
        cache: where files of a bucket are kept on this machine.
    """

    def __init__(self, uri: str | Path, cache: Path = Path(".cache")) -> None:
        self._backend = open_backend(uri, cache)
        self._aliases = Aliases(self._backend)
        self._known: dict[Place, tuple[str, Manifest | StoreError]] = {}
        """What was read of each place, and the tag it had then: a manifest is read once per process."""
        self._layout_is_known = False
        self._responses_are_here = False

    @property
    def uri(self) -> str:
        """Where it lies, as people write it; holds no secret."""
        return self._backend.uri

    @property
    def root(self) -> Path:
        """Its folder; of a bucket, the folder of this machine where drafts, answers and the catalog are kept."""
        return self._backend.work

    @property
    def catalog(self) -> Path:
        """The DuckDB file with a view for each artifact, brought up to date from a bucket; may not exist yet."""
        self._check_layout()
        return self._backend.catalog()

    def replace_catalog(self, write: Callable[[Path], None]) -> Path:
        """Let ``write`` make the catalog in a new file, and put that into the old one's place.

        One rebuild at a time; ``write`` is called again when another machine has replaced the catalog meanwhile.
        """
        with self.disk_errors():
            self._prepare()
            self._backend.replace_catalog(write)
            return self._backend.catalog()

    @property
    def responses(self) -> Path:
        """The folder of the LLM's answers; a bucket's are brought to this machine at the first use."""
        if not self._responses_are_here:
            self._backend.pull_responses()
            self._responses_are_here = True
        return self._backend.work / names.RESPONSES

    @property
    def vectors(self) -> Path:
        """The folder of vectors that can be made again; a bucket's are those that this machine made."""
        return self._backend.work / names.VECTORS

    @contextmanager
    def gathering_responses(self) -> Iterator[None]:
        """Bring all answers here, and keep those that the block gathers, also when it fails.

        A bucket gets them every ``PUSH_EVERY_S`` seconds: a machine that is lost takes no more than that with it.
        """
        with self.disk_errors():
            self._prepare()
            self._backend.pull_responses()
            self._responses_are_here = True
            over = threading.Event()
            pushing = threading.Thread(target=self._push_responses_until, args=(over,), daemon=True)
            pushing.start()
            try:
                yield
            finally:
                over.set()
                pushing.join()
                self._backend.push_responses()

    def _push_responses_until(self, over: threading.Event) -> None:
        while not over.wait(PUSH_EVERY_S):
            try:
                self._backend.push_responses()
            except (SemacdrError, OSError) as error:
                log.warning("answers could not be put into the store; they are tried again", error=str(error))

    def exists(self) -> bool:
        """Whether something has been published into it."""
        return self._backend.read(MARKER) is not None or bool(self._backend.versions())

    def datasets(self) -> list[str]:
        """Return the names of the data sets that have artifacts."""
        self._check_layout()
        return sorted({place.dataset for place in self._backend.versions()})

    def manifests(self, dataset: str = "*", name: str = "*") -> list[Manifest]:
        """Return the manifests of all versions, oldest first; what cannot be read is left out with a warning."""
        return self.survey(dataset, name).manifests

    def survey(self, dataset: str = "*", name: str = "*") -> Survey:
        """Return the manifests of all versions, oldest first, and the places whose manifest is broken."""
        self._check_layout()
        if "*" not in (dataset, name):
            names.check_artifact(dataset, name)
        places = self._backend.versions(dataset=None if dataset == "*" else dataset, name=None if name == "*" else name)
        self._read(places)
        found: list[Manifest] = []
        broken: dict[Place, StoreError] = {}
        for place in places:
            _, known = self._known.get(place, ("", None))
            if isinstance(known, Manifest):
                found.append(known)
            elif known is not None:
                broken[place] = known
        found.sort(key=lambda m: (m.created_at, m.dataset, m.name, names.version_key(m.version)))
        return Survey(found, broken)

    def get(self, dataset: str, name: str, version: str = CURRENT) -> Artifact:
        """Return an artifact by its version or alias.

        Raises:
            ConfigError: a name that no artifact can have.
            AbsentError: there is none.
            StoreError: its manifest is broken.
        """
        names.check_artifact(dataset, name)
        if not names.is_alias(version):
            names.check_version(version)
        known = self._resolve(dataset, name, version)
        if known is None:
            versions = sorted((m.version for m in self.manifests(dataset, name)), key=names.version_key)
            raise AbsentError(
                f"no {name}@{version} of data set {dataset!r} in {self.uri}",
                found=self._what_there_is(dataset, name, version, versions),
                do=f"run the pipeline on {dataset}, or name a version that exists (`semacdr artifacts`)",
            )
        return known

    def find(self, dataset: str, name: str, fingerprint: str) -> Artifact | None:
        """Return the artifact with this fingerprint, the current one first; None if there is none."""
        names.check_artifact(dataset, name)
        current = self._readable_current(dataset, name)
        if current and current.manifest.fingerprint == fingerprint:
            return current
        places = self._backend.versions(dataset, name)
        # Looking for the bytes first spares parsing thousands of manifests to find one.
        found = {p: data for p, data in self._backend.read_manifests(places).items() if fingerprint.encode() in data}
        self._read({place: places[place] for place in found})
        same = [m for p in found if isinstance(m := self._known.get(p, ("", None))[1], Manifest)]
        same = [manifest for manifest in same if manifest.fingerprint == fingerprint]
        return self._artifact(max(same, key=lambda m: (m.created_at, names.version_key(m.version)))) if same else None

    @contextmanager
    def open_draft(self, draft: Draft, outputs: Iterable[str]) -> Iterator[Draft]:
        """Give the draft a folder for each of the artifacts, and remove them when the block ends.

        Raises:
            StoreError: the disk is full or read-only, or there is no permission to write.
        """
        outputs = list(outputs)
        for name in outputs:
            names.check_artifact(draft.dataset, name)
        with self.disk_errors():
            self._prepare()
            with Workplace(self.root).draft(draft.stage) as folder:
                for name in outputs:
                    draft.folders[name] = folder / name
                    draft.folders[name].mkdir()
                yield draft

    def publish(
        self, draft: Draft, facts: Facts, *, version: str | None = None, alias: str = CURRENT
    ) -> dict[str, Artifact]:
        """Check the draft's tables, publish its artifacts and point ``current``, or another alias, at them.

        Artifacts of the stage that are already published with the draft's fingerprint stay as they are; so they do
        when another publisher is faster.

        Args:
            draft: what to publish.
            facts: what the stage says of its run.
            version: publish as this version and no other; None: the next one.
            alias: what points at them then.

        Raises:
            ConfigError: a name that no alias or version can have; nothing is published then.
            DataError: a table breaks its contract.
            StoreError: the store cannot be written, or the version exists with another fingerprint.
        """
        names.check_alias(alias)
        if version is not None:
            names.check_version(version)
        seconds = round(time.monotonic() - draft.started, 3)
        rows = {name: tables.check(name, folder) for name, folder in draft.folders.items()}
        published = {}
        for name, folder in draft.folders.items():
            blank = unplaced_manifest(draft, name, facts, rows[name], file_records(folder), seconds)
            published[name] = self._publish_one(folder, blank, version)
        for name, artifact in published.items():
            self.move_alias(draft.dataset, name, alias, artifact.manifest.version)
        return published

    def move_alias(
        self, dataset: str, name: str, alias: str, version: str, *, expected: str | None = None, reason: str = ""
    ) -> bool:
        """Point an alias at a version, atomically, keeping the versions it pointed at before.

        Args:
            dataset: the data set of the artifact.
            name: the artifact.
            alias: any name but a version.
            version: where it is to point; must exist.
            expected: move it only if it points here now; None: wherever it points.
            reason: kept in the alias's history.

        Returns:
            Whether it has moved; it has not if it points there already.

        Raises:
            ConfigError: a name that no alias or version can have.
            StoreError: the version does not exist, or the alias does not point where it is expected to.
        """
        names.check_artifact(dataset, name)
        names.check_alias(alias)
        names.check_version(version)
        with self.disk_errors():
            self._prepare()
            with self._backend.exclusive("aliases"):
                self.get(dataset, name, version)
                return self._aliases.move(dataset, name, alias, version, expected=expected, reason=reason)

    def aliases(self, dataset: str, name: str) -> dict[str, str]:
        """Return alias -> version; a file that is no alias is left out with a warning."""
        return {alias: moves[-1].version for alias, moves in self.alias_histories(dataset, name).items()}

    def alias_histories(self, dataset: str, name: str) -> dict[str, list[Move]]:
        """Return alias -> its moves, the last one now; a file that is no alias is left out with a warning."""
        names.check_artifact(dataset, name)
        self._check_layout()
        return self._aliases.histories(dataset, name)

    def alias_history(self, dataset: str, name: str, alias: str) -> list[Move]:
        """Return the moves of an alias, the last one now.

        Empty if there is no such alias.
        """
        names.check_artifact(dataset, name)
        names.check_alias(alias)
        self._check_layout()
        return self._aliases.history(dataset, name, alias)

    def retire_version(self, dataset: str, name: str, version: str) -> None:
        """Take a version out of the store and leave its files, for readers that are inside.

        Nobody finds it any more; the next catalog does without it. ``staging_leftovers`` lists it as ``retired``, and
        ``remove_leftover`` removes the files.

        Raises:
            StoreError: there is no such version, or an alias points at it.
        """
        self._give_up(dataset, name, version, self._backend.retire)

    def remove_version(self, dataset: str, name: str, version: str) -> None:
        """Remove a version: it is gone at once and whole. A reader that has its files open goes on.

        Raises:
            StoreError: there is no such version, or an alias points at it.
        """
        self._give_up(dataset, name, version, self._backend.remove)

    def staging_leftovers(self) -> list[Leftover]:
        """Return what dead runs have left behind, what live ones are writing (it is young), and what is retired."""
        self._check_layout()
        return sorted(self._backend.leftovers(), key=lambda leftover: leftover.key)

    def remove_leftover(self, leftover: Leftover) -> None:
        """Remove one of ``staging_leftovers`` for good; a run that is still writing it would fail."""
        with self.disk_errors(), self._backend.exclusive("aliases"):
            self._backend.remove_leftover(leftover)

    def location(self, manifest: Manifest) -> str:
        """Return where other programs find a version's files: the path of a folder, or an ``s3://`` URI."""
        return self._backend.location(_place(manifest))

    def faults(self, manifest: Manifest, *, whole: bool = True) -> list[str]:
        """Compare what lies in the store with a version's manifest, and return what differs.

        Names files that are missing, of another size, of other content, links, and files that the manifest does not
        know. Empty: the version is whole.

        Args:
            manifest: the version's.
            whole: read every byte; False: look at names and sizes only.
        """
        place = _place(manifest)
        there = self._backend.files(place)
        recorded = {record.path: record for record in manifest.files}
        found = [f"{path}: not in the manifest" for path in sorted(set(there) - set(recorded) - _NOT_RECORDED)]
        for path, record in sorted(recorded.items()):
            if path not in there:
                found.append(f"{path}: missing")
            elif there[path] < 0:
                found.append(f"{path}: a link")
            elif there[path] != record.bytes:
                found.append(f"{path}: {there[path]} bytes, not {record.bytes}")
            elif whole and self._backend.sha256(place, path) != record.sha256:
                found.append(f"{path}: other content (sha256)")
        return found

    def walk(self) -> dict[str, int]:
        """Return the path below the root and size of every file but the store's own; links are files of size -1."""
        return self._backend.walk()

    def disk_errors(self) -> AbstractContextManager[None]:
        """Turn errors of the disk into a ``StoreError`` that says what to do."""
        return disk_errors(self.root)

    def _publish_one(self, folder: Path, blank: Manifest, version: str | None) -> Artifact:
        dataset, name = blank.dataset, blank.name
        tried: set[str] = set()
        for _ in range(MAX_RACES):
            # Versions are listed before the fingerprint is looked for: whoever publishes in between takes our number.
            known = {place.version for place in self._backend.versions(dataset, name)}
            # A version that was removed stays taken: others may name it as their input, or an alias point at it.
            pointed_at = {move.version for moves in self.alias_histories(dataset, name).values() for move in moves}
            taken = known | pointed_at | tried
            if version is None:
                if same := self.find(dataset, name, blank.fingerprint):
                    return same
            elif version in known:
                return self._artifact(same_or_refused(self.get(dataset, name, version).manifest, blank))
            chosen = version or names.next_version(datetime.now(UTC).date(), taken)
            if version in tried:
                raise StoreError(
                    f"{name}@{version} of {dataset!r} cannot be published: its place is not free",
                    found="files without a manifest, or another publisher that is not ready",
                    do="publish without a version, or remove what is left over (`semacdr prune`)",
                )
            newest = self._created_at(dataset, name, max(known, key=names.version_key, default=None))
            filled = blank.model_copy(update={"version": chosen, "created_at": _after(newest)})
            manifests.write_manifest(folder, filled)
            if self._backend.put_version(folder, _place(filled)):
                return self._artifact(filled)
            tried.add(chosen)
        raise endless_race(f"{self.uri}/{dataset}/{name}")

    def _give_up(self, dataset: str, name: str, version: str, how: Callable[[Place], None]) -> None:
        names.check_artifact(dataset, name)
        names.check_version(version)
        place = Place(dataset, name, version)
        with self.disk_errors():
            self._check_layout()
            with self._backend.exclusive("aliases"):
                if place not in self._backend.versions(dataset, name):
                    self.get(dataset, name, version)
                held = self._aliases.at(dataset, name, version)
                if held:
                    raise StoreError(
                        f"{place.reference} of {dataset!r} is in use and stays",
                        found=f"alias {', '.join(held)} points at it",
                        do="point the alias at another version first (`semacdr promote`)",
                    )
                how(place)
        self._known.pop(place, None)

    def _artifact(self, manifest: Manifest) -> Artifact:
        return Artifact(manifest, partial(self._backend.fetch, _place(manifest), manifest))

    def _resolve(self, dataset: str, name: str, version: str) -> Artifact | None:
        """Return the artifact of a version or alias; None if there is none."""
        self._check_layout()
        if not names.is_version(version):
            history = self.alias_history(dataset, name, version)
            if not history:
                return None
            version = history[-1].version
        place = Place(dataset, name, version)
        stored = self._backend.read(f"{place.key}/{manifests.FILE_NAME}")
        return self._artifact(_parse(place, stored.data, self.uri)) if stored else None

    def _created_at(self, dataset: str, name: str, version: str | None) -> str:
        """Return when a version was made; empty if there is none, or its manifest is broken."""
        try:
            known = self._resolve(dataset, name, version) if version else None
        except StoreError:  # said when manifests are listed
            return ""
        return known.manifest.created_at if known else ""

    def _readable_current(self, dataset: str, name: str) -> Artifact | None:
        """Return the current version; a broken one does not keep its successors from being made."""
        try:
            return self._resolve(dataset, name, CURRENT)
        except StoreError as error:
            log.warning("the current version cannot be read", dataset=dataset, artifact=name, error=str(error))
            return None

    def _read(self, places: Mapping[Place, str]) -> None:
        """Read the manifests at these places, as far as they are not known at these tags."""
        new = {place: tag for place, tag in places.items() if self._known.get(place, ("", None))[0] != tag}
        for place in new:
            self._known.pop(place, None)
        for place, data in self._backend.read_manifests(new).items():
            try:
                self._known[place] = (new[place], _parse(place, data, self.uri))
            except StoreError as error:
                log.warning("a broken artifact is left out", artifact=place.key, error=str(error))
                self._known[place] = (new[place], error)

    def _check_layout(self) -> None:
        if self._layout_is_known:
            return
        stored = self._backend.read(MARKER)
        if stored is None:
            return
        try:
            layout = int(json.loads(stored.data)["layout_version"])
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{MARKER} of the store {self.uri} cannot be read", found=error, do=f"restore {MARKER}"
            ) from error
        if layout > manifests.LAYOUT_VERSION:
            raise StoreError(
                f"the store {self.uri} was written by a newer SemaCDR",
                found=f"layout {layout}",
                expected=f"at most {manifests.LAYOUT_VERSION}",
                do="upgrade this installation",
            )
        self._layout_is_known = True

    def _prepare(self) -> None:
        """Make what a writer needs."""
        (self.root / STAGING).mkdir(parents=True, exist_ok=True)
        self._check_layout()
        if not self._layout_is_known:
            marker = (json.dumps({"layout_version": manifests.LAYOUT_VERSION}) + "\n").encode()
            self._backend.write(MARKER, marker, None)
            if self._backend.write(MARKER, marker + b"\n", None):
                raise StoreError(
                    f"the store {self.uri} overwrites what it must not: publishing would not be safe",
                    found="a conditional put (If-None-Match) that was ignored",
                    expected="an S3 service with conditional writes",
                    do="upgrade the service, or choose another store",
                )
            self._check_layout()

    def _what_there_is(self, dataset: str, name: str, version: str, versions: list[str]) -> str:
        if versions:
            known = self.aliases(dataset, name)
            pool = list(known) if names.is_alias(version) else versions
            listed = ", ".join(versions[-5:]) + (f" and {len(versions) - 5} older" if len(versions) > 5 else "")  # noqa: PLR2004
            return f"versions {listed}; aliases {', '.join(known) or 'none'}; {close_names(version, pool[-20:])}"
        datasets = self.datasets()
        if dataset not in datasets:
            return f"no such data set in the store; {close_names(dataset, datasets)}"
        known_names = {manifest.name for manifest in self.manifests(dataset)}
        return f"no artifact of that name; {close_names(name, known_names)}"


def _place(manifest: Manifest) -> Place:
    return Place(manifest.dataset, manifest.name, manifest.version)


def _parse(place: Place, data: bytes, uri: str) -> Manifest:
    where = f"{uri}/{place.key}/{manifests.FILE_NAME}"
    manifest = manifests.parse_manifest(data, where)
    if _place(manifest) != place:
        raise StoreError(
            f"{where} belongs to another version",
            found=_place(manifest).key,
            expected=place.key,
            do="restore the file, or remove the version's folder and run again",
        )
    return manifest


def _after(newest: str) -> str:
    """Return the time now; a moment after the newest if the clock has gone back."""
    now = datetime.now(UTC)
    if newest:
        now = max(now, datetime.fromisoformat(newest) + timedelta(milliseconds=1))
    return now.isoformat(timespec="milliseconds")
