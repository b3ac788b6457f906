"""The text of the catalog's views: one ``read_parquet`` over all versions whose files have the same columns.

Thousands of versions are a list of paths, not thousands of selects. Data set and version are cut out of the file's
path: DuckDB evaluates a filter on them before it opens a file, so a version that has broken since stops only the
queries that read it. One that is gone stops them all (DuckDB looks for every path of the list): a prune makes the
catalog anew long before it removes files.
"""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from semacdr import tables
from semacdr.manifest import Manifest

if TYPE_CHECKING:
    from obstore.fsspec import FsspecStore

Columns = tuple[tuple[str, int | None], ...]
"""Each column's name and, for a vector of fixed size, its width; Parquet readers take it for a list of any length."""
_READERS = 32
"""Files of a bucket whose columns are read at once."""
_FOOTER_BYTES = 1 << 16
"""As much of a file's end is brought at first; a footer takes some 100 bytes for each column of each row group."""


class Shelf:
    """The Parquet files of the published versions, with each table's columns read once.

    Args:
        manifests: of the versions.
        root: where the store lies: a path, or an ``s3://`` URI.
        remote: reads files there; None: they are on this machine.
    """

    def __init__(self, manifests: list[Manifest], root: str, remote: FsspecStore | None = None) -> None:
        self.left_out: dict[tuple[str, str], str] = {}
        """Data set and ``name@version`` -> why it stands in no view: a file or contract that cannot be read."""
        self.root = root
        self._remote = remote
        self._columns: dict[tuple[str, str, str], Columns] = {}
        wanted = [(m, table) for m in manifests if self._is_known(m) for table in tables.TABLES.get(m.name, ())]
        if remote is None:
            found = [self._read(manifest, table) for manifest, table in wanted]
        else:
            with ThreadPoolExecutor(_READERS) as pool:
                found = list(pool.map(lambda one: self._read(*one), wanted))
        for (manifest, table), columns in zip(wanted, found, strict=True):
            if isinstance(columns, str):
                self.left_out[manifest.dataset, manifest.reference] = columns
            else:
                self._columns[manifest.dataset, manifest.reference, table] = columns

    def files(self, manifest: Manifest, table: str) -> list[str]:
        """Return the places of a table's files."""
        folder = f"{self.root}/{manifest.dataset}/{manifest.name}/{manifest.version}"
        return [f"{folder}/{file.path}" for file in manifest.table_files(table)]

    def by_columns(self, manifests: list[Manifest], table: str) -> dict[Columns, list[str]]:
        """Return columns -> the files that have them, the newest version first.

        DuckDB opens the first to learn the types, whichever is asked for: the newest is the least likely to be broken.
        """
        groups: dict[Columns, list[str]] = defaultdict(list)
        for manifest in reversed(manifests):
            if (manifest.dataset, manifest.reference) not in self.left_out:
                files = self.files(manifest, table)
                if files:
                    groups[self._columns[manifest.dataset, manifest.reference, table]] += files
        return groups

    def _is_known(self, manifest: Manifest) -> bool:
        known = tables.CONTRACT_VERSIONS.get(manifest.name, manifest.contract_version)
        if manifest.contract_version != known:
            self.left_out[manifest.dataset, manifest.reference] = (
                f"contract version {manifest.contract_version}; this catalog reads {known}"
            )
        return manifest.contract_version == known

    def _read(self, manifest: Manifest, table: str) -> Columns | str:
        files = self.files(manifest, table)
        if not files:
            return f"no file of table {table}"
        try:
            schema = pq.read_schema(files[0] if self._remote is None else self._footer(manifest, files[0]))
        except (OSError, pa.ArrowInvalid) as error:
            return f"{table}: {error}"
        return tuple((column.name, getattr(column.type, "list_size", None)) for column in schema)

    def _footer(self, manifest: Manifest, file: str) -> pa.BufferReader:
        """Bring the end of a file in one request; its size, which the manifest tells, need not be asked for."""
        from semacdr.store.backends.s3_errors import client_errors  # noqa: PLC0415 (a local store needs no client for S3)

        assert self._remote is not None
        size = next(record.bytes for record in manifest.files if file.endswith(f"/{record.path}"))
        with client_errors(self.root)():
            data: bytes = self._remote.cat_file(file, start=max(0, size - _FOOTER_BYTES), end=size)
            # A Parquet file ends with the length of its footer and four letters.
            length = int.from_bytes(data[-8:-4], "little") + 8
            if len(data) < length <= size:
                data = self._remote.cat_file(file, start=size - length, end=size)
        return pa.BufferReader(data)


def view_sql(shelf: Shelf, view: str, table: str, manifests: list[Manifest]) -> str | None:
    """Return the statement that makes a view over a table of some versions; None if no file is there.

    A view takes no parameters, so paths and names stand in its text, quoted here. Vectors are cast to their size,
    so that ``array_cosine_similarity`` takes them; they stay lists where versions differ in it.

    Args:
        shelf: knows the files.
        view: the view's name.
        table: the table's.
        manifests: the versions.
    """
    groups = shelf.by_columns(manifests, table)
    widths: dict[str, set[int | None]] = defaultdict(set)
    for columns in groups:
        for name, width in columns:
            widths[name].add(width)
    below = f"string_split(substr(stored.filename, {len(shelf.root) + 2}), '/')"
    selects = []
    for columns, files in groups.items():
        listed = ", ".join(_quote(file) for file in files)
        chosen = ", ".join(_column(name, width, widths[name]) for name, width in columns)
        selects.append(
            f"select {below}[1] as dataset, {below}[3] as version, {chosen}"
            f" from read_parquet([{listed}], filename = true, hive_partitioning = false) as stored"
        )
    return f"create view {view} as " + " union all by name ".join(selects) if selects else None


def _column(name: str, width: int | None, widths: set[int | None]) -> str:
    quoted = '"' + name.replace('"', '""') + '"'
    # Qualified: DuckDB puts a macro's parameter of the same name into a view that the macro reads.
    if width is None:
        return f"stored.{quoted}"
    return f"stored.{quoted}::float[{width if len(widths) == 1 else ''}] as {quoted}"


def _quote(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
