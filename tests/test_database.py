from pathlib import Path

import pytest

from semacdr.database import work_database
from semacdr.settings import DuckDbSettings


@pytest.mark.parametrize(("limit", "left"), [("1000MiB", "800.0 MiB"), ("1.5 GB", "1.1 GiB")])
def test_duckdb_gets_four_fifths_of_the_memory_limit(tmp_path: Path, limit: str, left: str):
    with work_database(DuckDbSettings(memory_limit=limit), tmp_path) as connection:
        assert connection.execute("select current_setting('memory_limit')").fetchone() == (left,)
