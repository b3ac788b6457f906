"""A store in a bucket of an S3-compatible service.

A version exists if its manifest does. A publisher claims the version's place with a conditional put, looks whether it
is free, uploads the files, and puts the manifest last; a claim whose publisher died is left in ``.staging``. Aliases
and the catalog are replaced only in the state in which they were read (ETag).

Endpoint, region and keys come from the standard ``AWS_*`` variables, which the client reads by itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.store import S3Store

from semacdr.errors import ConfigError, StoreError
from semacdr.manifest import FILE_NAME, Manifest, file_sha256
from semacdr.store import names
from semacdr.store.backends.base import RETIRED, STAGING, Leftover, Stored
from semacdr.store.backends.s3_errors import client_errors
from semacdr.store.backends.workplace import Workplace
from semacdr.store.disk import sync_file
from semacdr.store.names import Place

if TYPE_CHECKING:
    from obstore import ObjectMeta  # in its stubs only

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9_.=-]*(/[A-Za-z0-9_=-][A-Za-z0-9_.=-]*)*")
_JOURNAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\.jsonl")
_CLAIMS = f"{STAGING}/claims"
_MAX_RACES = 20
_THREADS = 16
_CHUNK_BYTES = 8 << 20
_WAIT_S = 30.0
_POLL_S = 0.2


class S3Backend:
    """A store below a prefix of a bucket.

    Args:
        address: ``bucket/prefix``.
        cache: where what is brought from it is kept.
    """

    def __init__(self, address: str, cache: Path) -> None:
        bucket, _, prefix = address.strip("/").partition("/")
        if not _BUCKET.fullmatch(bucket) or (prefix and not _PREFIX.fullmatch(prefix)):
            # The address is not shown: people write keys into it.
            raise ConfigError(
                "a store's bucket or prefix has characters that it cannot have",
                expected="s3://bucket/prefix of letters, digits, '_', '-', '=' and '.'; keys in AWS_* variables",
                do="mend --store or SEMACDR_STORE",
            )
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
        identity = hashlib.sha256(f"{endpoint} {self.uri}".encode()).hexdigest()[:12]
        self.work = cache.expanduser().absolute() / "stores" / f"{bucket}-{identity}"
        self._workplace = Workplace(self.work)
        self._errors = client_errors(self.uri)
        with self._errors():
            self._store = S3Store(
                bucket,
                prefix=prefix or None,
                client_options={"allow_http": endpoint.startswith("http://"), "connect_timeout": "10s"},
                retry_config={"max_retries": 4},
            )

    def read(self, key: str) -> Stored | None:
        """Get an object; its ETag is the tag."""
        try:
            with self._errors():
                result = obstore.get(self._store, key)
                return Stored(bytes(result.bytes()), result.meta["e_tag"] or "")
        except FileNotFoundError:
            return None

    def write(self, key: str, data: bytes, tag: str | None) -> bool:
        """Put an object on the condition that its ETag is this one, or that there is none."""
        return self._put(key, data, tag) is not None

    def versions(self, dataset: str | None = None, name: str | None = None) -> dict[Place, str]:
        """List the manifests; their ETags are the tags."""
        return {place: meta["e_tag"] or "" for place, meta in self._marked(FILE_NAME, dataset, name)}

    def read_manifests(self, places: dict[Place, str]) -> dict[Place, bytes]:
        """Get them, several at a time, as far as they are not kept on this machine."""
        with ThreadPoolExecutor(_THREADS) as threads:
            found = zip(places, threads.map(self._read_manifest, places, places.values()), strict=True)
            return {place: data for place, data in found if data is not None}

    def aliases(self, dataset: str, name: str) -> list[str]:
        """List the objects beside the versions."""
        with self._errors():
            listing = obstore.list_with_delimiter(self._store, f"{dataset}/{name}")
        found = (meta["path"].rpartition("/")[2] for meta in listing["objects"])
        return sorted(alias for alias in found if names.is_alias(alias))

    def put_version(self, folder: Path, place: Place) -> bool:
        """Claim the place, upload the files, put the manifest."""
        claim = f"{_CLAIMS}/{place.key}"
        mark = json.loads((folder / FILE_NAME).read_bytes())["fingerprint"]
        if not self.write(claim, _claim(mark), None):
            self._wait_for_winner(claim, mark)
            return False
        # Whoever had claimed it before has put a manifest or left files: both show.
        if self._list(place.key):
            self._delete([claim])
            return False
        for path in sorted(folder.rglob("*")):
            relative = path.relative_to(folder).as_posix()
            if path.is_file() and relative != FILE_NAME:
                with self._errors():
                    obstore.put(self._store, f"{place.key}/{relative}", path)
        written = self.write(f"{place.key}/{FILE_NAME}", (folder / FILE_NAME).read_bytes(), None)
        self._delete([claim])
        return written

    def fetch(self, place: Place, manifest: Manifest) -> Path:
        """Bring the files here once, their hashes checked, and rename them into place as one folder."""
        target = self.work / "artifacts" / place.key
        if _holds(target, manifest):
            return target
        draft = self._workplace.new("fetch")
        try:
            for record in manifest.files:
                path = draft / record.path
                path.parent.mkdir(parents=True, exist_ok=True)
                self._download(f"{place.key}/{record.path}", path)
                if file_sha256(path) != record.sha256:
                    raise StoreError(
                        f"{self.uri}/{place.key}/{record.path} is broken",
                        found="other bytes than were published (sha256)",
                        expected=f"{record.bytes} bytes as in the manifest",
                        do="restore the object, or publish again; `semacdr verify` lists all that is broken",
                    )
                sync_file(path)
            draft.mkdir(exist_ok=True)
            (draft / FILE_NAME).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
            sync_file(draft / FILE_NAME)
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._workplace.exclusive("aliases"):
                if not _holds(target, manifest):
                    if target.exists():
                        self._workplace.discard(target)
                    draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return target

    def location(self, place: Place) -> str:
        """Return the ``s3://`` URI of the version."""
        return f"{self.uri}/{place.key}"

    def walk(self) -> dict[str, int]:
        """List every object but the store's own."""
        found = {meta["path"]: meta["size"] for meta in self._list("")}
        return {key: size for key, size in found.items() if not _is_own(key.partition("/")[0])}

    def files(self, place: Place) -> dict[str, int]:
        """List the objects below the version."""
        return {meta["path"].removeprefix(f"{place.key}/"): meta["size"] for meta in self._list(place.key)}

    def sha256(self, place: Place, path: str) -> str:
        """Hash the object as it comes."""
        digest = hashlib.sha256()
        for chunk in self._stream(f"{place.key}/{path}"):
            digest.update(chunk)
        return digest.hexdigest()

    def retire(self, place: Place) -> None:
        """Put the manifest's copy under another name, and delete it."""
        stored = self.read(f"{place.key}/{FILE_NAME}")
        if stored:
            self._overwrite(f"{place.key}/{RETIRED}", stored.data)
            self._delete([f"{place.key}/{FILE_NAME}"])

    def remove(self, place: Place) -> None:
        """Delete the manifest first; a claim tells of the rest if we do not get to its end."""
        claim = f"{_CLAIMS}/{place.key}"
        self.write(claim, _claim(""), None)
        self._delete([f"{place.key}/{FILE_NAME}"])
        self._delete([meta["path"] for meta in self._list(place.key)])
        self._delete([claim])
        if (self.work / "artifacts" / place.key).exists():
            self._workplace.discard(self.work / "artifacts" / place.key)

    def leftovers(self) -> list[Leftover]:
        """Return what lies in this machine's staging folder, claims, and retired versions."""
        found = self._workplace.leftovers()
        found += [Leftover(kind="claim", key=meta["path"], age_s=_age_s(meta)) for meta in self._list(_CLAIMS)]
        retired = self._marked(RETIRED, None, None)
        return found + [Leftover(kind="retired", key=place.key, age_s=_age_s(meta)) for place, meta in retired]

    def remove_leftover(self, leftover: Leftover) -> None:
        """Remove it; where a manifest is, the version exists, and only the mark goes that a dead process left on it."""
        if leftover.kind == "staging":
            self._workplace.remove_leftover(leftover)
            return
        place = Place(*leftover.key.removeprefix(f"{_CLAIMS}/").split("/"))
        if self._tag(f"{place.key}/{FILE_NAME}") is None:
            self.remove(place)
        else:
            self._delete([leftover.key if leftover.kind == "claim" else f"{place.key}/{RETIRED}"])

    def exclusive(self, what: str) -> AbstractContextManager[None]:
        """Hold a lock of this machine, which spares it races with itself; with others, ETags decide."""
        return self._workplace.exclusive(what)

    def catalog(self) -> Path:
        """Bring the catalog here if it is another than the one that is here."""
        path, tag_path = self.work / names.CATALOG, self.work / f"{names.CATALOG}.tag"
        tag = self._tag(names.CATALOG)
        if tag is None:
            return path
        with self._workplace.exclusive("catalog"):
            if not (path.exists() and tag_path.exists() and tag_path.read_text() == tag):
                partial = self._workplace.new("catalog")
                self._download(names.CATALOG, partial)
                self._keep_catalog(partial, tag)
        return path

    def replace_catalog(self, write: Callable[[Path], None]) -> None:
        """Have it written here and put it, unless another machine did meanwhile: then once more."""
        with self._workplace.exclusive("catalog"):
            for _ in range(_MAX_RACES):
                before = self._tag(names.CATALOG)
                partial = self._workplace.new("catalog")
                partial.mkdir()
                try:
                    write(partial / names.CATALOG)
                    tag = self._put(names.CATALOG, (partial / names.CATALOG).read_bytes(), before)
                    if tag is not None:
                        self._keep_catalog(partial / names.CATALOG, tag)
                        return
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
        raise StoreError(
            f"the catalog of {self.uri} cannot be written",
            found=f"{_MAX_RACES} times another writer was faster",
            do="run `semacdr catalog rebuild` when fewer pipelines publish",
        )

    def pull_responses(self) -> None:
        """Bring journals that are not here, or longer there: they only ever grow."""
        folder = self.work / names.RESPONSES
        folder.mkdir(parents=True, exist_ok=True)
        for name, size in self._journals().items():
            path = folder / name
            if not path.exists() or path.stat().st_size < size:
                partial = self._workplace.new("journal")
                self._download(f"{names.RESPONSES}/{name}", partial)
                partial.replace(path)

    def push_responses(self) -> None:
        """Put journals that are not there, or longer here."""
        there = self._journals()
        for path in sorted((self.work / names.RESPONSES).glob("*.jsonl")):
            if path.stat().st_size > there.get(path.name, -1):
                with self._errors():
                    obstore.put(self._store, f"{names.RESPONSES}/{path.name}", path)

    def _wait_for_winner(self, claim: str, fingerprint: str) -> None:
        """Wait while another publisher uploads the same as we would, so that its artifact is found and ours not made.

        Not for long: it may be dead, or its upload large; then the same is published twice, which harms nobody.
        """
        deadline = time.monotonic() + _WAIT_S
        while time.monotonic() < deadline:
            stored = self.read(claim)
            if stored is None or fingerprint.encode() not in stored.data:
                return
            time.sleep(_POLL_S)

    def _journals(self) -> dict[str, int]:
        found = {meta["path"].removeprefix(f"{names.RESPONSES}/"): meta["size"] for meta in self._list(names.RESPONSES)}
        return {name: size for name, size in found.items() if _JOURNAL.fullmatch(name)}

    def _read_manifest(self, place: Place, tag: str) -> bytes | None:
        kept = self.work / "manifests" / place.key / f"{hashlib.sha256(tag.encode()).hexdigest()[:32]}.json"
        if kept.exists():
            return kept.read_bytes()
        stored = self.read(f"{place.key}/{FILE_NAME}")
        if stored and stored.tag == tag:
            partial = self._workplace.new("manifest")
            partial.write_bytes(stored.data)
            kept.parent.mkdir(parents=True, exist_ok=True)
            partial.replace(kept)
        return stored.data if stored else None

    def _marked(self, file: str, dataset: str | None, name: str | None) -> Iterator[tuple[Place, ObjectMeta]]:
        """Yield the versions with this object, by data set, name and version."""
        found = {}
        for d in [dataset] if dataset else self._datasets():
            for meta in self._list(f"{d}/{name}" if name else d):
                parts = meta["path"].split("/")
                if len(parts) == len(Place._fields) + 1 and parts[-1] == file and _are_names(*parts[:-1]):
                    found[Place(*parts[:-1])] = meta
        yield from ((place, found[place]) for place in sorted(found) if name in (None, place.name))

    def _datasets(self) -> list[str]:
        with self._errors():
            listing = obstore.list_with_delimiter(self._store)
        return [prefix.rstrip("/") for prefix in listing["common_prefixes"] if names.is_dataset(prefix.rstrip("/"))]

    def _list(self, prefix: str) -> list[ObjectMeta]:
        with self._errors():
            return [meta for page in obstore.list(self._store, prefix) for meta in page]

    def _tag(self, key: str) -> str | None:
        try:
            with self._errors():
                return obstore.head(self._store, key)["e_tag"]
        except FileNotFoundError:
            return None

    def _put(self, key: str, data: bytes, tag: str | None) -> str | None:
        """Put on a condition; return the new ETag, or None if the condition did not hold."""
        try:
            with self._errors():
                return obstore.put(self._store, key, data, mode={"e_tag": tag} if tag else "create")["e_tag"] or ""
        except (AlreadyExistsError, PreconditionError):
            # The client tries again when an answer is lost, and then meets its own object.
            stored = self.read(key)
            return stored.tag if stored and stored.data == data else None

    def _overwrite(self, key: str, data: bytes) -> None:
        with self._errors():
            obstore.put(self._store, key, data)

    def _delete(self, keys: list[str]) -> None:
        with self._errors():
            obstore.delete(self._store, keys)

    def _download(self, key: str, path: Path) -> None:
        with path.open("wb") as file:
            for chunk in self._stream(key):
                file.write(chunk)

    def _stream(self, key: str) -> Iterator[bytes]:
        try:
            with self._errors():
                for chunk in obstore.get(self._store, key).stream(min_chunk_size=_CHUNK_BYTES):
                    yield bytes(chunk)
        except FileNotFoundError as error:
            raise StoreError(
                f"{self.uri}/{key} is missing", expected="an object of that name", do="restore it, or publish again"
            ) from error

    def _keep_catalog(self, partial: Path, tag: str) -> None:
        tag_path = self.work / f"{names.CATALOG}.tag"
        tag_path.unlink(missing_ok=True)
        partial.replace(self.work / names.CATALOG)
        tag_path.write_text(tag)


def _claim(fingerprint: str) -> bytes:
    return json.dumps({"fingerprint": fingerprint, "token": secrets.token_hex(16)}).encode()


def _are_names(dataset: str, name: str, version: str) -> bool:
    return names.is_dataset(dataset) and names.is_artifact(name) and names.is_version(version)


def _is_own(name: str) -> bool:
    return name.startswith(".") or name in names.RESERVED


def _holds(folder: Path, manifest: Manifest) -> bool:
    """Tell whether a copy is there, and no file of it is missing or cut off."""
    try:
        known = (folder / FILE_NAME).read_text(encoding="utf-8")
        sizes = [(folder / record.path).stat().st_size for record in manifest.files]
    except FileNotFoundError:
        return False
    return known == manifest.model_dump_json(indent=2) + "\n" and sizes == [record.bytes for record in manifest.files]


def _age_s(meta: ObjectMeta) -> float:
    return max(0.0, time.time() - meta["last_modified"].timestamp())
