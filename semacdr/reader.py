"""Reading a store from Python: its tables as polars, Arrow or numpy, its checkpoints and indexes ready to use.

    import semacdr

    store = semacdr.open_store("store")
    vectors = store.read("embeddings", view="agnostic", domain="kitchen")
    vectors.lazy()                  # polars, lazy: what is not asked for is not read
    vectors.numpy("vector")         # an array of rows x width
    store.checkpoint().scores(...)

Nothing is written, and nothing is unpickled. A version stays as it is, so what was read once can be read again under
the same ``version``; ``current`` may move between two calls.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import dataframely as dy
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from semacdr.errors import ConfigError, StoreError, close_names
from semacdr.manifest import FileRecord, Manifest, file_sha256
from semacdr.store import CURRENT, Artifact, Store
from semacdr.tables import TABLES, Table, View, check_contract, scan_files

if TYPE_CHECKING:
    from semacdr.index.reader import ItemIndex
    from semacdr.model.checkpoint import LoadedModel

T = TypeVar("T")
Scalar = str | int | float | bool | None
_VERIFY = "run `semacdr verify`, restore the file or remove the version, and run the pipeline again"


@dataclass(frozen=True)
class Selection:
    """The rows of a table that a ``read`` chose; nothing is read before one of its forms is asked for."""

    table: str
    manifest: Manifest
    """Of the artifact that the rows lie in."""
    _frame: pl.LazyFrame

    def lazy(self) -> pl.LazyFrame:
        """Return a lazy polars frame."""
        return self._frame

    def polars(self) -> pl.DataFrame:
        """Return a polars frame.

        Raises:
            StoreError: a file cannot be read.
        """
        return _read(self._frame.collect, self.manifest)

    def arrow(self) -> pa.Table:
        """Return an Arrow table; vectors are fixed-size lists.

        Raises:
            StoreError: a file cannot be read.
        """
        return self.polars().to_arrow()

    def numpy(self, column: str) -> NDArray[Any]:
        """Return one column: vectors as rows x width, text as objects, a number that may be null as floats with NaN.

        Raises:
            ConfigError: there is no such column.
            StoreError: a file cannot be read.
        """
        known = _read(self._frame.collect_schema, self.manifest)
        _known_columns(self.table, [column], known)
        values: NDArray[Any] = _read(self._frame.select(column).collect, self.manifest)[column].to_numpy()
        dtype = known[column]
        return values.reshape(len(values), *dtype.shape) if isinstance(dtype, pl.Array) else values


class StoreReader:
    """A store, to read from.

    Args:
        store: where it lies.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._hashes: dict[tuple[str, int, int, int], str] = {}
        """What a file held, by its path, inode, size and time."""

    def datasets(self) -> list[str]:
        """Return the names of the data sets."""
        return self._store.datasets()

    def versions(self, name: str, *, dataset: str | None = None) -> list[str]:
        """Return the versions of an artifact that can be read, oldest first.

        Raises:
            StoreError: there is none.
        """
        dataset = self._dataset(dataset)
        found = [manifest.version for manifest in self._store.manifests(dataset, name)]
        return found or [self._store.get(dataset, name).manifest.version]

    def manifest(self, name: str, *, dataset: str | None = None, version: str = CURRENT) -> Manifest:
        """Return the record of an artifact: its configuration, inputs, counts, metrics and files.

        Raises:
            StoreError: there is no such artifact, or its manifest is broken.
        """
        return self._store.get(self._dataset(dataset), name, version).manifest

    def read(
        self,
        name: str,
        *,
        dataset: str | None = None,
        version: str = CURRENT,
        table: str | None = None,
        columns: Sequence[str] | None = None,
        verify: bool = True,
        **equal: Scalar,
    ) -> Selection:
        """Choose rows and columns of a table.

        Args:
            name: of the artifact.
            dataset: may be left out when the store has one.
            version: a version, or an alias.
            table: of the artifact's tables; may be left out where one has its name or it has only one.
            columns: which, in this order; None: all.
            verify: compare the bytes of the table's files with the manifest first, once as long as they do not change;
                False: their sizes only, for tables so large that hashing them takes too long.
            equal: column=value: only rows with this value; None: only rows without one.

        Raises:
            ConfigError: an unknown table, column or value, or a data set that has to be named.
            StoreError: there is no such artifact, its tables have another contract, or a file is missing or broken.
        """
        artifact = self._artifact(name, dataset, version)
        chosen = _choose_table(name, table)
        records = _table_records(artifact.manifest, chosen)
        self._check(artifact, records, whole=verify)
        contract = TABLES[name][chosen]
        frame = _with_contract(artifact, chosen, contract, [artifact.path / record.path for record in records])
        schema = _read(frame.collect_schema, artifact.manifest)
        _known_columns(chosen, [*equal, *(columns or ())], schema)
        for column, value in equal.items():
            _check_value(chosen, column, value, schema[column], contract.columns().get(column))
            frame = frame.filter(pl.col(column).eq_missing(pl.lit(value)))
        return Selection(chosen, artifact.manifest, frame if columns is None else frame.select(columns))

    def checkpoint(self, *, dataset: str | None = None, version: str = CURRENT, device: str = "cpu") -> LoadedModel:
        """Load a trained model, its files compared with the manifest first.

        Raises:
            StoreError: there is none, or it is broken or of another contract.
        """
        from semacdr.model.checkpoint import load_checkpoint  # noqa: PLC0415 (torch takes seconds to import)

        artifact = self._artifact("checkpoint", dataset, version)
        self._check(artifact, artifact.manifest.files)
        return load_checkpoint(artifact.path, device)

    def index(self, domain: str, view: str, *, dataset: str | None = None, version: str = CURRENT) -> ItemIndex:
        """Open the index of a domain and view, its files compared with the manifest first.

        Raises:
            ConfigError: there is no such view.
            StoreError: there is no index of that domain, or it is broken or of another contract.
        """
        from semacdr.index.reader import load_index  # noqa: PLC0415 (the other readers need no FAISS)

        views = [known.value for known in View]
        if view not in views:
            raise ConfigError(f"no view {view!r}", expected=close_names(view, views))
        artifact = self._artifact("index", dataset, version)
        records = {record.path: record for record in artifact.manifest.files}
        file = records.get(f"{domain}/{view}.faiss")
        if file is None:
            domains = {path.partition("/")[0] for path in records if path.endswith(".faiss")}
            raise StoreError(
                f"{artifact.reference} has no index of domain {domain!r}, view {view}",
                expected=close_names(domain, domains),
                do="name a domain that it has",
            )
        self._check(artifact, [file, *_table_records(artifact.manifest, "index_ids")])
        return load_index(artifact.path, domain, View(view))

    def _dataset(self, dataset: str | None) -> str:
        if dataset is not None:
            return dataset
        known = self.datasets()
        if not known:
            raise StoreError(f"the store {self._store.uri} is empty", do="run the pipeline, or open another store")
        if len(known) > 1:
            raise ConfigError(
                f"the store {self._store.uri} has several data sets",
                found=", ".join(known),
                expected="one of them",
                do=f"name it: dataset={known[0]!r}",
            )
        return known[0]

    def _artifact(self, name: str, dataset: str | None, version: str) -> Artifact:
        artifact = self._store.get(self._dataset(dataset), name, version)
        check_contract(name, artifact.manifest.contract_version, artifact.reference)
        return artifact

    def _check(self, artifact: Artifact, records: Iterable[FileRecord], *, whole: bool = True) -> None:
        """Compare files with their records, size first; what has not changed since is not read again."""
        for record in records:
            path = artifact.path / record.path
            try:
                status = path.lstat()
                found = f"{status.st_size} bytes" if stat.S_ISREG(status.st_mode) else "no plain file"
                expected = f"{record.bytes} bytes"
                if found == expected and whole:
                    found, expected = f"sha256 {self._sha256(path)}", f"sha256 {record.sha256}"
            except OSError as error:
                raise StoreError(f"{path} cannot be read", found=error, do=_VERIFY) from error
            if found != expected:
                raise StoreError(
                    f"{path} is not the file that was published", found=found, expected=expected, do=_VERIFY
                )

    def _sha256(self, path: Path) -> str:
        status = path.stat()
        key = (str(path), status.st_ino, status.st_size, status.st_mtime_ns)
        if key not in self._hashes:
            self._hashes[key] = file_sha256(path)
        return self._hashes[key]


def open_store(uri: str | Path, *, cache: Path = Path(".cache")) -> StoreReader:
    """Open a store for reading.

    Args:
        uri: a folder, ``file:///folder`` or ``s3://bucket/prefix``.
        cache: where files of a bucket are kept on this machine.

    Raises:
        ConfigError: no such kind of place.
    """
    return StoreReader(Store(uri, cache))


def _choose_table(artifact: str, table: str | None) -> str:
    known = TABLES[artifact]
    if not known:
        raise ConfigError(f"{artifact} has no tables", do="name an artifact that has some: docs/tables.md")
    if table is None:
        return artifact if artifact in known else next(iter(known))
    if table not in known:
        raise ConfigError(
            f"{artifact} has no table {table!r}",
            expected=close_names(table, known),
            do="leave table out, or filter the frame if you mean a column of that name",
        )
    return table


def _table_records(manifest: Manifest, table: str) -> list[FileRecord]:
    found = manifest.table_files(table)
    if not found:
        raise StoreError(f"{manifest.reference} has no file of table {table}", do=_VERIFY)
    return found


def _with_contract(artifact: Artifact, table: str, contract: type[Table], files: list[Path]) -> pl.LazyFrame:
    """Return the files' columns in the contract's order; those that came after the artifact was made are null."""
    frame = scan_files(files)
    there = _read(frame.collect_schema, artifact.manifest)
    columns = contract.columns()
    lacking = [name for name, column in columns.items() if name not in there and not column.nullable]
    if lacking:
        raise StoreError(
            f"{artifact.reference}: table {table} lacks {', '.join(lacking)}",
            found=f"columns {', '.join(there)}",
            expected=f"columns {', '.join(columns)}",
            do=_VERIFY,
        )
    later = {name: pl.lit(None, column.dtype) for name, column in columns.items() if name not in there}
    unknown = [name for name in there if name not in columns]
    return frame.with_columns(**later).select(*columns, *unknown)


def _known_columns(table: str, columns: Iterable[str], known: Mapping[str, object]) -> None:
    for column in columns:
        if column not in known:
            raise ConfigError(
                f"table {table} has no column {column!r}", expected=close_names(column, known), do="see docs/tables.md"
            )


def _check_value(table: str, column: str, value: Scalar, dtype: pl.DataType, contract: dy.Column | None) -> None:
    """Refuse a value that no row can have: it would give an empty table without a word."""
    if value is None:
        return
    if isinstance(contract, dy.Enum) and value not in contract.categories:
        raise ConfigError(f"{table}.{column} is never {value!r}", expected=close_names(str(value), contract.categories))
    try:
        pl.DataFrame(schema={column: dtype}).filter(pl.col(column).eq_missing(pl.lit(value)))
    except (pl.exceptions.PolarsError, TypeError) as error:
        raise ConfigError(
            f"{table}.{column} cannot be compared with {value!r}",
            found=type(value).__name__,
            expected=str(dtype),
            do="filter the lazy frame for anything but one value",
        ) from error


def _read(action: Callable[[], T], manifest: Manifest) -> T:
    try:
        return action()
    # Polars panics on some broken files, and a panic is no PolarsError.
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise StoreError(
            f"{manifest.reference} of {manifest.dataset!r} cannot be read", found=error, do=_VERIFY
        ) from error
