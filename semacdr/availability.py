"""Which items may be recommended: a condition in SQL over the columns of ``items``."""

from __future__ import annotations

import duckdb
import polars as pl

from semacdr.errors import ConfigError


def available(items: pl.DataFrame, condition: str) -> pl.DataFrame:
    """Return the items that meet a condition, such as ``price < 100 or domain <> 'books'``.

    Raises:
        ConfigError: DuckDB refuses the condition.
    """
    with duckdb.connect(config={"enable_external_access": False, "lock_configuration": True}) as connection:
        try:
            kept: pl.DataFrame = connection.from_arrow(items.to_arrow()).filter(condition).pl()
        except duckdb.Error as error:
            raise ConfigError(
                "recommendations.availability is no condition on items",
                found=f"{condition}: {str(error).splitlines()[0]}",
                expected="SQL over the columns of items (docs/tables.md), such as: price is not null",
                do="mend it in the data set's TOML",
            ) from error
    return kept
