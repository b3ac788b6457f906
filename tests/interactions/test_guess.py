from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from semacdr.cli import main
from semacdr.dataset import load_dataset
from semacdr.errors import ConfigError, DataError
from semacdr.interactions import check_raw_files, describe, ingest
from semacdr.progress import Progress
from semacdr.settings import DuckDbSettings
from tests.raw_logs import write_raw_logs


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def source_of(folder: Path, table: str = "interactions", **given: list[str]) -> dict[str, Any]:
    """What is guessed of the files in a folder."""
    pattern = f"{folder}/*"
    files = {"interactions": ({"a": [pattern]}, {}), "items": ({}, {"a": [pattern]})}[table]
    if table == "items":
        log = folder.parent / "log.csv"
        log.write_text("user,item,time\nann,x,1400000000\n", encoding="utf-8")
        files = ({"a": [str(log)]}, files[1])
    text = describe(folder.parent / "dataset.toml", "toy", *files, given)
    (folder.parent / "dataset.toml").write_text(text, encoding="utf-8")
    source: dict[str, Any] = load_dataset(folder.parent).model_dump()["domains"]["a"][table]
    return source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "raw"
    made.mkdir()
    return made


def test_guessed_toml_ingests_to_what_the_written_one_does(tmp_path: Path):
    written = write_raw_logs(tmp_path / "raw")
    made = tmp_path / "made"
    done = call(
        "init", made, "--name", "three-domains", "--log", f"books={tmp_path}/raw/books-*.jsonl.gz",
        "--items", f"books={tmp_path}/raw/books.jsonl.gz", "--log", f"films={tmp_path}/raw/films.csv",
        "--items", f"films={tmp_path}/raw/film-items.csv", "--log", f"games={tmp_path}/raw/games.parquet",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "semacdr doctor --dataset" in done.output
    found = {}
    for name, toml in (("written", written), ("made", made)):
        outputs = {table: tmp_path / name / table for table in ("interactions", "items", "rejects")}
        ingest(load_dataset(toml), outputs, DuckDbSettings(), Progress())
        events, items = (
            pl.read_parquet(outputs[table] / table / "**/*.parquet") for table in ("interactions", "items")
        )
        # The written one leaves the films' makers out.
        found[name] = [events, items.select("domain", "item_id", "title")]
    for ours, theirs in zip(found["made"], found["written"], strict=True):
        assert ours.equals(theirs)
        assert len(ours) > 50


@pytest.mark.parametrize(
    ("time", "form"),
    [
        (1_400_000_000, "seconds"),
        ("1400000000.5", "seconds"),
        (1_400_000_000_000, "milliseconds"),
        (1_400_000_000_000_000, "microseconds"),
        (1_400_000_000_000_000_000, "nanoseconds"),
        ("2014-05-13T16:53:20+02:00", "iso8601"),
        ("2014-05-13", "iso8601"),
        ("2014-05-13 16:53:20 UTC", "iso8601"),
    ],
)
def test_form_of_times_is_told_from_their_size(folder: Path, time: object, form: str):
    # What cannot be read is for ingest to reject.
    records = [{"reviewerID": "ann", "asin": "x", "ts": one} for one in ("N/A", None, time, time)]
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    source = source_of(folder)
    assert source["time_format"] == form
    assert source["columns"] == {"user_id": "reviewerID", "item_id": "asin", "timestamp": "ts"}


def test_times_of_parquet_are_iso(folder: Path):
    times = pa.array([1_400_000_000_000_000_000], pa.timestamp("ns", "Europe/Paris"))
    pq.write_table(pa.table({"user_id": [1], "item_id": ["x"], "time": times}), folder / "log.parquet")
    assert source_of(folder)["time_format"] == "iso8601"


@pytest.mark.parametrize(
    "time", ["13 May 2014", "20140513", "2014", "20140513T165320", "2014-W20-2", "nan", "inf", "1" + "0" * 400, ""]
)
def test_times_of_no_known_form_are_refused(folder: Path, time: str):
    (folder / "log.csv").write_text(f"user,item,date\nann,x,{time}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="the times are in no form") as caught:
        source_of(folder)
    assert str(caught.value.found).startswith(time or "none")


def test_first_file_with_records_tells(folder: Path):
    (folder / "log-0.csv").write_text("user,item,time\n", encoding="utf-8")
    (folder / "log-1.csv").write_text("user,item,time\nann,x,1400000000000\n", encoding="utf-8")
    assert source_of(folder)["time_format"] == "milliseconds"


def test_format_is_that_of_the_files_not_of_the_pattern(folder: Path):
    table = {"user": ["a"], "item": ["x"], "time": [1_400_000_000], "picture": [b"\xff\xd8"]}
    pq.write_table(pa.table(table).slice(0, 0), folder / "part-0.parquet")
    pq.write_table(pa.table(table), folder / "part-1.parquet")
    source = source_of(folder)
    assert (source["format"], source["time_format"]) == ("parquet", "seconds")


def test_records_are_cut_as_ingest_cuts_them(folder: Path):
    """Neither at what Python takes for the end of a line, nor at the length that its csv module allows."""
    text = "one\u2028two\x0bthree" + "x" * 200_000
    record = {"plot": text, "user": "ann", "item": "x", "time": 1_400_000_000_000}
    (folder / "log.jsonl").write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    expected = {"user_id": "user", "item_id": "item", "timestamp": "time"}
    assert (source_of(folder)["columns"], source_of(folder)["time_format"]) == (expected, "milliseconds")
    (folder / "log.jsonl").unlink()
    (folder / "log.csv").write_text(f"plot,user,item,time\n{text},ann,x,1400000000000\n", encoding="utf-8")
    assert (source_of(folder)["columns"], source_of(folder)["time_format"]) == (expected, "milliseconds")


def test_names_are_written_as_they_are(folder: Path):
    record = {"用户": "ann", "item 🎬": "x", "time": 1_400_000_000}
    (folder / "log 🎬.jsonl").write_text(json.dumps(record), encoding="utf-8")
    source = source_of(folder, user_id=["用户"], item_id=["item 🎬"])
    assert source["columns"] == {"user_id": "用户", "item_id": "item 🎬", "timestamp": "time"}
    assert "用户" in (folder.parent / "dataset.toml").read_text(encoding="utf-8")


def test_folder_between_is_no_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    odd = tmp_path / "raw[1]"
    odd.mkdir()
    (odd / "log.csv").write_text("user,item,time\nann,x,1400000000\n", encoding="utf-8")
    monkeypatch.chdir(odd)
    for pattern in ("log.csv", "l*.csv"):
        text = describe(tmp_path / "made" / "dataset.toml", "toy", {"a.b": [pattern]}, {}, {})
        (tmp_path / "dataset.toml").write_text(text.replace("../", ""), encoding="utf-8")
        check_raw_files(load_dataset(tmp_path))
        assert "a.b" in load_dataset(tmp_path).domains


def test_likelier_name_wins_and_no_field_is_two_columns(folder: Path):
    record = {"reviewTime": "05 13, 2014", "unixReviewTime": 1_400_000_000, "parent_asin": "x", "asin": "y"}
    record |= {"user_id:token": "ann", "overall": 5.0, "name": "?"}
    (folder / "log.jsonl").write_text(json.dumps(record), encoding="utf-8")
    assert source_of(folder)["columns"] == {
        "user_id": "user_id:token", "item_id": "parent_asin", "timestamp": "unixReviewTime", "rating": "overall",
    }  # fmt: skip


def test_id_is_the_items_in_a_file_of_items(folder: Path):
    (folder / "items.csv").write_text('id,Name,genres,plot\nx,"A, B",c,d\n', encoding="utf-8")
    expected = {"item_id": "id", "title": "Name", "categories": "genres", "description": "plot"}
    assert source_of(folder, "items")["columns"] == expected


@pytest.mark.parametrize(("name", "delimiter"), [("log.csv", ";"), ("log.csv", "\t"), ("log.tsv", "|")])
def test_delimiter_is_the_one_that_the_header_is_cut_by(folder: Path, name: str, delimiter: str):
    lines = (delimiter.join(row) for row in (("user", "item", "time"), ("ann", "x,y", "1400000000")))
    (folder / name).write_text("\n".join(lines), encoding="utf-8")
    assert source_of(folder)["delimiter"] == delimiter


def test_csv_may_be_called_otherwise(folder: Path):
    (folder / "log.txt").write_text("user|item|time\nann|x|1400000000\n", encoding="utf-8")
    source = source_of(folder)
    assert (source["format"], source["delimiter"]) == ("csv", "|")


def test_given_field_counts_where_it_is(folder: Path):
    (folder / "log.csv").write_text("buyer,user,item,time\nann,1,x,1400000000\n", encoding="utf-8")
    assert source_of(folder, user_id=["buyer"])["columns"]["user_id"] == "buyer"
    for column in ("user_id", "price"):
        with pytest.raises(ConfigError, match=f"--column {column}=byer: no file has the field"):
            source_of(folder, **{column: ["byer"]})


def test_given_fields_of_several_files_count_each_in_its_own(folder: Path):
    for name, user in (("a", "buyer"), ("b", "viewer")):
        (folder / f"{name}.csv").write_text(f"{user},item,time\nann,x,1400000000\n", encoding="utf-8")
    logs = {name: [f"{folder}/{name}.csv"] for name in ("a", "b")}
    text = describe(folder / "dataset.toml", "toy", logs, {}, {"user_id": ["buyer", "viewer"]})
    assert 'user_id = "buyer"' in text
    assert 'user_id = "viewer"' in text


def test_given_field_is_not_guessed_for_another_column(folder: Path):
    (folder / "items.csv").write_text("product,sku,brand\nA,x,b\n", encoding="utf-8")
    expected = {"item_id": "sku", "title": "product", "brand": "brand"}
    assert source_of(folder, "items", title=["product"])["columns"] == expected


def test_unknown_field_is_refused_with_those_that_there_are(folder: Path):
    (folder / "log.csv").write_text("who,item,time\nann,x,1400000000\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="no field looks like user_id") as caught:
        source_of(folder)
    assert "who, item, time" in str(caught.value)
    assert "--column user_id=FIELD" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("log.csv", b"", "no record"),
        ("log.csv", b"user,item,time\n", "no record"),
        ("log.txt", b"user,item,time\n", "no record"),
        ("log.jsonl", b"\n\nno json\n[1]\n", "no record"),
        ("log.jsonl", b'{\n "user": 1\n}\n', "no record"),
        ("log.jsonl", b'{"a":' * 100_000 + b"\n", "no record"),
        ("log.jsonl", b'[{"user": 1}\n,{"user": 2}]\n', "one JSON array"),
        ("log.csv.gz", b"user,item,time\n", "no gzip file"),
    ],
    ids=[
        "empty",
        "header alone",
        "header alone, called otherwise",
        "no object",
        "over lines",
        "deep",
        "array",
        "no gzip",
    ],
)
def test_file_without_records_is_refused(folder: Path, name: str, data: bytes, told: str):
    (folder / name).write_bytes(data)
    with pytest.raises((ConfigError, DataError), match=told):
        source_of(folder)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--log", "books"], "NAME=VALUE"),
        (["--log", "books=nothing-*.csv"], "no file matches nothing-*.csv"),
        (["--log", "books={folder}"], "a folder"),
        (["--log", "books={log}", "--column", "user=user"], "no column 'user'"),
        (["--log", "a b={log}"], "a b"),
        (["--log", "all={log}"], "figures over all domains"),
        (["--log", "books={log}", "--name", "My Shop"], "name"),
        (["--log", "books={log}", "--log", "books={items}"], "in one table"),
    ],
)
def test_wrong_options_are_refused_and_nothing_is_written(tmp_path: Path, options: list[str], told: str):
    write_raw_logs(tmp_path / "raw")
    places = {"log": tmp_path / "raw" / "films.csv", "items": tmp_path / "raw" / "games.parquet", "folder": tmp_path}
    done = call("init", tmp_path / "made", *(option.format(**places) for option in options))
    assert done.exit_code == 2, done.output
    assert told in done.output
    assert not (tmp_path / "made").exists()


def test_toml_that_is_there_is_kept(tmp_path: Path):
    toml = write_raw_logs(tmp_path)
    before = toml.read_bytes()
    done = call("init", tmp_path, "--log", f"films={tmp_path}/films.csv")
    assert (done.exit_code, "is there" in done.output) == (2, True)
    assert toml.read_bytes() == before
