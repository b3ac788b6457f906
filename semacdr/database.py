"""DuckDB as a worker: the SQL files, a database that spills to disk, and Parquet whose bytes do not depend on threads.

The SQL stands in ``sql/`` of a checkout, and beside the package in an installed wheel.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ByteSize, TypeAdapter

from semacdr.errors import ConfigError, StoreError
from semacdr.settings import DuckDbSettings

_PACKAGE = Path(__file__).resolve().parent
SQL_FOLDER = _PACKAGE / "sql" if (_PACKAGE / "sql").is_dir() else _PACKAGE.parent / "sql"

_DUCKDBS_SHARE = 0.8
"""Of the memory limit: the interpreter and what it holds of DuckDB's rows take the rest."""
_DICTIONARY_BYTES = 2**18
"""Of a column in a row group: what needs a larger one hardly repeats, and is smaller and faster to write without."""
_SORTS_SHARE = 0.6
"""Of DuckDB's share: while events are sorted DuckDB only streams."""


def read_sql(name: str) -> str:
    """Return the text of ``sql/<name>.sql``."""
    return (SQL_FOLDER / f"{name}.sql").read_text(encoding="utf-8")


@contextmanager
def work_database(limits: DuckDbSettings, parent: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an empty database in a folder of its own below ``parent``; both are gone at the end.

    Raises:
        ConfigError: the memory limit is no size, or too small for the work.
        StoreError: no room, or no right to write.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=parent, prefix=".work-") as folder:
        settings: dict[str, Any] = {
            "memory_limit": _duckdbs_share(limits.memory_limit),
            "temp_directory": f"{folder}/spill",
        }
        if limits.threads is not None:
            settings["threads"] = limits.threads
        try:
            connection = duckdb.connect(f"{folder}/work.duckdb", config=settings)
        except duckdb.IOException as error:
            raise _no_room(parent, error) from error
        except duckdb.Error as error:
            raise ConfigError(
                f"DuckDB does not start with memory_limit {limits.memory_limit!r}",
                found=error,
                expected="a size such as '2GB'",
                do="mend duckdb.memory_limit in the settings",
            ) from error
        try:
            connection.execute("set timezone = 'UTC'")
            yield connection
        except duckdb.OutOfMemoryException as error:
            raise ConfigError(
                "DuckDB ran out of memory", found=error, do="raise duckdb.memory_limit, or lower duckdb.threads"
            ) from error
        except duckdb.IOException as error:
            raise _no_room(parent, error) from error
        finally:
            connection.close()


def sorting_room(connection: duckdb.DuckDBPyConnection) -> tuple[int, Path]:
    """Return how many bytes a sort beside a work database may hold, and the folder for what is more."""
    names = ("memory_limit", "temp_directory")
    limit, spill = (connection.sql(f"select current_setting('{name}')").fetchall()[0][0] for name in names)
    return int(TypeAdapter(ByteSize).validate_python(limit) * _SORTS_SHARE), Path(spill).with_name("sorted")


def _duckdbs_share(limit: str) -> str:
    """Return the part of a memory limit that DuckDB may take; what is no size is left to DuckDB to refuse."""
    size = re.fullmatch(r"\s*(\d+(?:\.\d+)?)(.*)", limit)
    return f"{float(size[1]) * _DUCKDBS_SHARE:.6f}{size[2]}" if size else limit


def _no_room(parent: Path, error: duckdb.IOException) -> StoreError:
    return StoreError(
        f"DuckDB cannot work below {parent}", found=error, do="make room or mend the permissions and run again"
    )


def ahead(batches: Iterable[pa.RecordBatch]) -> Generator[pa.RecordBatch, None, None]:
    """Yield the batches; the next one is made while the last is used."""
    with ThreadPoolExecutor(1) as pool:
        made = iter(batches)
        coming = pool.submit(next, made, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, made, None)
            yield batch


@contextmanager
def kept_pages() -> Iterator[None]:
    """Let Arrow have memory from the C library, which keeps what is freed: new pages cost short-lived batches much."""
    usual = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(usual)


def write_parquet(
    path: Path,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch | pa.Table],
    group_rows: int,
    delta: Sequence[str] = (),
) -> None:
    """Write row groups of one size: DuckDB's own batches depend on its threads, the file must not.

    Args:
        path: the file.
        schema: its columns.
        batches: its rows.
        group_rows: rows of a group.
        delta: columns of integers that hardly repeat: written as differences, in half the time of a dictionary.
    """
    encoding = dict.fromkeys(delta, "DELTA_BINARY_PACKED")
    repeating = [name for name in schema.names if name not in delta] if delta else True
    with pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=repeating,
        dictionary_pagesize_limit=_DICTIONARY_BYTES,
        column_encoding=encoding or None,
    ) as writer:
        waiting = schema.empty_table()
        for batch in batches:
            table = batch if isinstance(batch, pa.Table) else pa.table(batch)
            waiting = pa.concat_tables([waiting, table.cast(schema)])
            while len(waiting) >= group_rows:
                writer.write_table(waiting.slice(0, group_rows).combine_chunks())
                waiting = waiting.slice(group_rows)
        writer.write_table(waiting.combine_chunks())
