from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import json
import random
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semacdr.dataset import DatasetConfig, as_of, load_dataset
from semacdr.errors import ConfigError, DataError
from semacdr.interactions import check_raw_files, ingest, raw_files, records, sources
from semacdr.manifest import Facts
from semacdr.progress import Progress
from semacdr.settings import DuckDbSettings
from semacdr.tables import check

LIMITS = DuckDbSettings(memory_limit="500MB", threads=2)
COLUMNS = 'columns = { user_id = "u", item_id = "i", timestamp = "t" }'
GOOD = {"u": "ann", "i": "x", "t": 1_400_000_000}


def dataset(folder: Path, body: str) -> DatasetConfig:
    (folder / "dataset.toml").write_text(f'name = "toy"\n{body}', encoding="utf-8")
    return load_dataset(folder)


def one_domain(folder: Path, file: str = "log.jsonl", *, more: str = "", share: float = 1.0) -> DatasetConfig:
    kind = "csv" if "sv" in file else "parquet" if file.endswith("parquet") else "jsonl"
    return dataset(
        folder,
        f"filters.max_reject_share = {share}\n"
        f'[domains.a.interactions]\nfiles = ["{file}"]\nformat = "{kind}"\n{more or COLUMNS}\n',
    )


def with_items(folder: Path, items: Iterable[dict[str, Any]], mapping: str, *, share: float = 1.0) -> DatasetConfig:
    write_jsonl(folder / "log.jsonl", [GOOD])
    write_jsonl(folder / "items.jsonl", items)
    return dataset(
        folder,
        f"filters.max_reject_share = {share}\n"
        f'[domains.a.interactions]\nfiles = ["log.jsonl"]\n{COLUMNS}\n'
        f'[domains.a.items]\nfiles = ["items.jsonl"]\ncolumns = {{ item_id = "id", {mapping} }}\n',
    )


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run(config: DatasetConfig, folder: Path, limits: DuckDbSettings = LIMITS) -> tuple[Facts, dict[str, Path]]:
    outputs = {name: folder / name for name in ("interactions", "items", "rejects")}
    facts = ingest(config, outputs, limits, Progress())
    for name, output in outputs.items():
        check(name, output)
        assert not list(output.glob(".work-*"))
    return facts, outputs


def table(outputs: dict[str, Path], name: str, domain: str = "a") -> pl.DataFrame:
    return pl.read_parquet(outputs[name] / name / f"domain={domain}" / "part-0.parquet", hive_partitioning=False)


def rejects(outputs: dict[str, Path]) -> list[tuple[Any, ...]]:
    return pl.read_parquet(outputs["rejects"] / "rejects.parquet").select("file", "line", "reason").rows()


def contents(outputs: dict[str, Path]) -> dict[str, bytes]:
    return {
        f"{name}/{path.relative_to(folder)}": path.read_bytes()
        for name, folder in outputs.items()
        for path in folder.rglob("*.parquet")
    }


def test_ingest_bad_lines_are_rejected_with_their_line_numbers(tmp_path: Path):
    lines = [
        b"\xef\xbb\xbf" + json.dumps(GOOD).encode(),
        b"",
        b"   \t ",
        b'{"u": "ann", "i": ',
        b'{"u": "\xff\xfe", "i": "x", "t": 1400000000}',
        b'{"u": null, "i": "x", "t": 1400000000}\r',
        b'{"u": "ann", "i": "  ", "t": 1400000000}',
        b'{"u": "ann", "i": "x"}',
        b'{"u": "ann", "i": "x", "t": "soon"}',
        b'{"u": "ann", "i": "x", "t": 1400000000000}',
        b'{"u": "ann", "i": "x", "t": 12}',
        b'{"u": " ann ", "i": "x", "t": 1400000000.9}',
        b"[1, 2]",
        b'{"u": {"a": 1}, "i": "x", "t": 1400000000}',
        b'{"u": 17, "i": 99, "t": "1400000001"}',
    ]
    (tmp_path / "log.jsonl").write_bytes(b"\n".join(lines))
    facts, outputs = run(one_domain(tmp_path), tmp_path / "out")
    assert rejects(outputs) == [
        ("log.jsonl", 4, "malformed json"),
        ("log.jsonl", 5, "not utf-8"),
        ("log.jsonl", 6, "no user_id"),
        ("log.jsonl", 7, "no item_id"),
        ("log.jsonl", 8, "no timestamp"),
        ("log.jsonl", 9, "timestamp is not a time"),
        ("log.jsonl", 10, "timestamp out of range"),
        ("log.jsonl", 11, "timestamp out of range"),
        ("log.jsonl", 12, "duplicate event"),
        ("log.jsonl", 13, "not a json object"),
        ("log.jsonl", 14, "no user_id"),
    ]
    assert table(outputs, "interactions").rows() == [
        ("17", "a", "99", 1_400_000_001, None),
        ("ann", "a", "x", 1_400_000_000, None),
    ]
    assert facts.rows_in == 13
    assert facts.dropped["interactions: no user_id"] == 2
    assert sum(facts.dropped.values()) == 11


def test_ingest_rejected_record_is_kept_cut(tmp_path: Path):
    (tmp_path / "log.jsonl").write_text(json.dumps(GOOD) + "\n{" + "é" * 2_000, encoding="utf-8")
    _, outputs = run(one_domain(tmp_path), tmp_path / "out")
    assert pl.read_parquet(outputs["rejects"] / "rejects.parquet")["record"].to_list() == ["{" + "é" * 499]


def test_ingest_without_rejects_writes_an_empty_table(tmp_path: Path):
    write_jsonl(tmp_path / "log.jsonl", [GOOD])
    facts, outputs = run(one_domain(tmp_path), tmp_path / "out")
    assert rejects(outputs) == []
    assert facts.dropped == {}


@pytest.mark.parametrize(("value", "kept"), [(5, 5.0), ("4.5", 4.5), (None, None), ("", None)])
def test_ingest_rating_number_or_nothing_is_accepted(tmp_path: Path, value: object, kept: float | None):
    write_jsonl(tmp_path / "log.jsonl", [{**GOOD, "r": 1, "u": "aa"}, {**GOOD, "r": value}])
    _, outputs = run(one_domain(tmp_path, more=COLUMNS.replace(" }", ', rating = "r" }')), tmp_path / "out")
    assert table(outputs, "interactions")["rating"].to_list() == [1.0, kept]


@pytest.mark.parametrize("value", ["good", "nan", [5], "1e999"])
def test_ingest_rating_that_is_no_number_is_rejected(tmp_path: Path, value: object):
    write_jsonl(tmp_path / "log.jsonl", [{**GOOD, "r": 1}, {**GOOD, "u": "bob", "r": value}])
    _, outputs = run(one_domain(tmp_path, more=COLUMNS.replace(" }", ', rating = "r" }')), tmp_path / "out")
    assert rejects(outputs) == [("log.jsonl", 2, "rating is not a number")]


def test_ingest_as_of_a_day_knows_nothing_of_later_records_the_bad_ones_neither(tmp_path: Path):
    early = [{**GOOD, "u": user, "t": 1_300_000_000} for user in ("ann", "bob")]
    faulty = [{**GOOD, "u": "cid", "t": "no time"}, {**GOOD, "u": "", "t": 1_300_000_000}]
    later = [{**GOOD, "u": user, "t": 1_400_000_000} for user in ("", "dan")]
    write_jsonl(tmp_path / "log.jsonl", [*early, *faulty, *later])
    config = one_domain(tmp_path)
    facts, outputs = run(as_of(config, date(2012, 1, 1)), tmp_path / "out")
    assert rejects(outputs) == [("log.jsonl", 3, "timestamp is not a time"), ("log.jsonl", 4, "no user_id")]
    assert facts.rows_in == 4
    assert table(outputs, "interactions")["user_id"].to_list() == ["ann", "bob"]
    _, whole = run(config, tmp_path / "whole")
    assert len(rejects(whole)) == 3


@pytest.mark.parametrize(
    ("time_format", "value", "seconds"),
    [
        ("seconds", 1_400_000_000.999, 1_400_000_000),
        ("seconds", "1400000000", 1_400_000_000),
        ("milliseconds", 1_400_000_000_999, 1_400_000_000),
        ("milliseconds", "1400000000999.9", 1_400_000_000),
        ("microseconds", 1_400_000_000_999_999, 1_400_000_000),
        ("microseconds", "1400000000999999.9", 1_400_000_000),
        ("nanoseconds", 1_400_000_000_999_999_999, 1_400_000_000),
        ("nanoseconds", "1400000000999999999.9", 1_400_000_000),
        ("iso8601", "2014-05-13T16:53:20Z", 1_400_000_000),
        ("iso8601", "2014-05-13T18:53:20.999+02:00", 1_400_000_000),
        ("iso8601", "2014-05-13 16:53:20", 1_400_000_000),
        ("iso8601", "2014-05-13", 1_399_939_200),
    ],
)
def test_ingest_time_formats_give_seconds(tmp_path: Path, time_format: str, value: object, seconds: int):
    write_jsonl(tmp_path / "log.jsonl", [{**GOOD, "t": value}])
    config = one_domain(tmp_path, more=f'{COLUMNS}\ntime_format = "{time_format}"')
    _, outputs = run(config, tmp_path / "out")
    assert table(outputs, "interactions")["timestamp_s"].to_list() == [seconds]


def test_ingest_field_names_with_odd_characters_are_found(tmp_path: Path):
    write_jsonl(tmp_path / "log.jsonl", [{"a/b": "ann", "c~d.e": "x", "$t": 1_400_000_000}])
    more = 'columns = { user_id = "a/b", item_id = "c~d.e", timestamp = "$t" }'
    _, outputs = run(one_domain(tmp_path, more=more), tmp_path / "out")
    assert table(outputs, "interactions").rows() == [("ann", "a", "x", 1_400_000_000, None)]


def test_ingest_three_domains_with_partly_shared_users(tmp_path: Path):
    body = ""
    users = {"a": ["ann", "bob"], "b": ["bob", "cy"], "c": ["cy"]}
    for domain, names in users.items():
        write_jsonl(tmp_path / f"{domain}.jsonl", [{**GOOD, "u": name} for name in names])
        body += f'[domains.{domain}.interactions]\nfiles = ["{domain}.jsonl"]\n{COLUMNS}\n'
    facts, outputs = run(dataset(tmp_path, body), tmp_path / "out")
    for domain, names in users.items():
        frame = table(outputs, "interactions", domain)
        assert frame["user_id"].to_list() == names
        assert frame["domain"].unique().to_list() == [domain]
        assert facts.details["domains"][domain]["users"] == len(names)
    assert table(outputs, "items", "c")["has_metadata"].to_list() == [False]


def zstd(data: bytes) -> bytes:
    compressed: bytes = pa.compress(data, "zstd", asbytes=True)
    return compressed


def formats(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Path]:
    write_jsonl(folder / "log.jsonl", rows)
    (folder / "log.jsonl.gz").write_bytes(gzip.compress((folder / "log.jsonl").read_bytes()))
    for name, delimiter in (("log.csv", ","), ("log.tsv", "\t")):
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    (folder / "log.csv.gz").write_bytes(gzip.compress((folder / "log.csv").read_bytes()))
    # Two streams in one file, as tools write that compress in parallel.
    for name, end, compress in (("log.jsonl", ".bz2", bz2.compress), ("log.csv", ".zst", zstd)):
        lines = (folder / name).read_bytes().splitlines(keepends=True)
        halves = (b"".join(lines[:2]), b"".join(lines[2:]))
        (folder / f"{name}{end}").write_bytes(b"".join(map(compress, halves)))
    pq.write_table(pa.Table.from_pylist(rows), folder / "log.parquet")
    return {path.name: path for path in folder.glob("log.*")}


def test_ingest_all_formats_give_the_same_table(tmp_path: Path):
    rng = random.Random(3)
    rows = [
        {"t": 1_400_000_000 + rng.randrange(50), "u": f'user, "{n % 7}"\nñ', "i": rng.randrange(9), "r": n / 2}
        for n in range(300)
    ]
    found = {}
    for name in formats(tmp_path, rows):
        config = one_domain(tmp_path, name, more=COLUMNS.replace(" }", ', rating = "r" }'))
        facts, outputs = run(config, tmp_path / "out" / name)
        places = [(line, reason) for _, line, reason in rejects(outputs)]
        found[name] = (facts.dropped, places, table(outputs, "interactions").rows(), table(outputs, "items").rows())
    assert len(found) == 8
    assert all(one == found["log.jsonl"] for one in found.values())
    assert found["log.jsonl"][0]["interactions: duplicate event"] > 0


def test_ingest_parquet_times_and_lists_are_read_as_text(tmp_path: Path):
    times = pa.array([1_400_000_000_500], pa.timestamp("ms", "Europe/Paris"))
    pq.write_table(pa.table({"u": [1.0], "i": ["x"], "t": times}), tmp_path / "log.parquet")
    pq.write_table(pa.table({"id": ["x"], "c": [["Home", "Kitchen &amp; Bath"]]}), tmp_path / "items.parquet")
    config = dataset(
        tmp_path,
        f'[domains.a.interactions]\nfiles = ["log.parquet"]\nformat = "parquet"\n{COLUMNS}\ntime_format = "iso8601"\n'
        '[domains.a.items]\nfiles = ["items.parquet"]\nformat = "parquet"\n'
        'columns = { item_id = "id", categories = "c" }\n',
    )
    _, outputs = run(config, tmp_path / "out")
    assert table(outputs, "interactions")["timestamp_s"].to_list() == [1_400_000_000]
    assert table(outputs, "items")["categories"].to_list() == ["Home > Kitchen & Bath"]


def test_ingest_csv_bad_records_are_rejected_with_their_numbers(tmp_path: Path):
    (tmp_path / "log.csv").write_bytes(
        b'u,i,t\nann,x,1400000000\n\n"bob\nby",x,1400000000\nshort,x\n"a"b,x,1\n\xff,x,1400000000\ncy,x,1400000000\n,x,1\n'
    )
    _, outputs = run(one_domain(tmp_path, "log.csv"), tmp_path / "out")
    assert rejects(outputs) == [
        ("log.csv", 3, "wrong number of fields"),
        ("log.csv", 4, "malformed csv"),
        ("log.csv", 5, "not utf-8"),
        ("log.csv", 7, "no user_id"),
    ]
    assert table(outputs, "interactions")["user_id"].to_list() == ["ann", "bob\nby", "cy"]
    assert pl.read_parquet(outputs["rejects"] / "rejects.parquet")["record"].to_list() == [
        "short,x",
        '"a"b,x,1',
        "\ufffd,x,1400000000",
        '{"user_id":null,"item_id":"x","timestamp":"1","rating":null}',
    ]


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
@pytest.mark.parametrize("block", [7, 64])
def test_ingest_csv_lines_may_end_with_any_of_three(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, block: int
):
    monkeypatch.setattr(records, "BLOCK_BYTES", block)
    monkeypatch.setattr(records, "MAX_LINE_BYTES", 100)
    lines = ["u,i,t", *(f'ann,"{n}, x",14{n:08}' for n in range(50))]
    (tmp_path / "log.csv").write_bytes(end.join(lines).encode())
    facts, outputs = run(one_domain(tmp_path, "log.csv"), tmp_path / "out")
    assert (facts.rows_in, rejects(outputs)) == (50, [])
    assert table(outputs, "interactions")["item_id"].to_list() == [f"{n}, x" for n in range(50)]


def test_ingest_csv_lines_that_a_stray_quote_swallows_are_rejects(tmp_path: Path):
    lines = [f"ann,x{n},14{n:08}" for n in range(100)]
    lines[20], lines[80] = f'"{lines[20]}', f'"{lines[80]}'
    (tmp_path / "log.csv").write_text("u,i,t\n" + "\n".join(lines) + "\n", encoding="utf-8")
    facts, outputs = run(one_domain(tmp_path, "log.csv"), tmp_path / "out")
    assert facts.rows_in == 100
    assert [line for _, line, _ in rejects(outputs)] == list(range(21, 82))
    records_ = pl.read_parquet(outputs["rejects"] / "rejects.parquet")["record"].to_list()
    assert records_ == lines[20:81]
    with pytest.raises(DataError, match=r"61 of 100 interactions records are rejected"):
        run(one_domain(tmp_path, "log.csv", share=0.05), tmp_path / "refused")


@pytest.mark.parametrize("block", [5, 11, 4096])
def test_ingest_csv_line_ends_within_a_field_are_no_rejects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
):
    monkeypatch.setattr(records, "BLOCK_BYTES", block)
    rows = [f'ann,"x\r{n}\r\ny\n",14{n:08}' for n in range(9)]
    (tmp_path / "log.csv").write_bytes("\r\n".join(["u,i,t", *rows, 'bob,"x"y,1400000000', rows[0]]).encode())
    facts, outputs = run(one_domain(tmp_path, "log.csv"), tmp_path / "out")
    assert [(line, reason) for _, line, reason in rejects(outputs)] == [(10, "malformed csv"), (11, "duplicate event")]
    assert facts.rows_in == 11


def test_ingest_csv_delimiter_is_what_the_toml_says(tmp_path: Path):
    (tmp_path / "log.csv").write_text("u;i;t\nann;x,y;1400000000\n", encoding="utf-8")
    _, outputs = run(one_domain(tmp_path, "log.csv", more=f'{COLUMNS}\ndelimiter = ";"'), tmp_path / "out")
    assert table(outputs, "interactions")["item_id"].to_list() == ["x,y"]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"PK\x03\x04 ...", "zip archive"),
        (gzip.compress(b"{}\n"), "gzip, compressed twice or without .gz"),
        ('{"u": "ann"}'.encode("utf-16"), "UTF-16"),
        (b"PAR1....", "Parquet"),
    ],
    ids=["zip", "gzip", "utf-16", "parquet"],
)
def test_ingest_file_of_another_kind_is_refused(tmp_path: Path, data: bytes, what: str):
    (tmp_path / "log.jsonl").write_bytes(data)
    with pytest.raises(DataError, match=what):
        run(one_domain(tmp_path), tmp_path / "out")


def test_ingest_parquet_without_ratings_and_with_odd_columns(tmp_path: Path):
    more = COLUMNS.replace(" }", ', rating = "r" }')
    rows = {"u": ["ann", "bob"], "i": ["x", "x"], "t": [1_400_000_000] * 2, "r": [float("nan"), 3.5]}
    pq.write_table(pa.table(rows), tmp_path / "log.parquet")
    _, outputs = run(one_domain(tmp_path, "log.parquet", more=more), tmp_path / "out")
    assert table(outputs, "interactions")["rating"].to_list() == [None, 3.5]
    pq.write_table(pa.table([*rows.values(), [1, 2]], names=["u", "i", "t", "r", "r"]), tmp_path / "log.parquet")
    with pytest.raises(DataError, match="several columns called 'r'"):
        run(one_domain(tmp_path, "log.parquet", more=more), tmp_path / "twice")
    pq.write_table(pa.table(rows | {"u": [b"\xff\x00", b"\xfe"]}), tmp_path / "log.parquet")
    with pytest.raises(DataError, match="values of 'u' are no text"):
        run(one_domain(tmp_path, "log.parquet", more=more), tmp_path / "bytes")


@pytest.mark.parametrize("header", ['u,i,t,"a"b', 'u,i,"t'])
def test_ingest_csv_broken_header_fails(tmp_path: Path, header: str):
    (tmp_path / "log.csv").write_text(f"{header}\nann,x,1400000000\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"log\.csv is broken, or no CSV file"):
        run(one_domain(tmp_path, "log.csv"), tmp_path / "out")


def test_ingest_csv_quote_that_never_closes_fails(tmp_path: Path):
    rows = "".join(f"u{n},x,1400000000\n" for n in range(3_000))
    (tmp_path / "log.csv").write_text('u,i,t\nann,x,1400000000\n"bob,x,1400000000\n' + rows, encoding="utf-8")
    with pytest.raises(DataError, match=r"quote is opened near record 2"):
        run(one_domain(tmp_path, "log.csv"), tmp_path / "out")


def test_ingest_twice_and_shuffled_gives_the_same_bytes(tmp_path: Path):
    rng = random.Random(5)
    rows = [
        {"u": f"u{rng.randrange(40)}", "i": f"i{rng.randrange(60)}", "t": 1_400_000_000 + rng.randrange(30)}
        for _ in range(2_000)
    ]
    found = []
    for order, threads in enumerate((2, 2, 1)):
        if order:
            rng.shuffle(rows)
        folder = tmp_path / str(order)
        folder.mkdir()
        write_jsonl(folder / "log.jsonl", rows)
        limits = DuckDbSettings(memory_limit="500MB", threads=threads)
        _, outputs = run(one_domain(folder), folder / "out", limits)
        found.append(contents({name: outputs[name] for name in ("interactions", "items")}))
    assert found[0] == found[1] == found[2]
    assert contents(run(one_domain(tmp_path / "0"), tmp_path / "again")[1]) == contents(
        run(one_domain(tmp_path / "0"), tmp_path / "and_again")[1]
    )


def test_ingest_duplicate_keeps_the_first_by_file_and_line(tmp_path: Path):
    more = COLUMNS.replace(" }", ', rating = "r" }')
    write_jsonl(tmp_path / "log-2.jsonl", [{**GOOD, "r": 1}])
    write_jsonl(tmp_path / "log-1.jsonl", [{**GOOD, "r": 2}, {**GOOD, "r": 3}])
    _, outputs = run(one_domain(tmp_path, "log-*.jsonl", more=more), tmp_path / "out")
    assert table(outputs, "interactions")["rating"].to_list() == [2.0]
    assert rejects(outputs) == [("log-1.jsonl", 2, "duplicate event"), ("log-2.jsonl", 1, "duplicate event")]


def test_ingest_items_of_log_and_metadata_are_kept(tmp_path: Path):
    items = [{"id": "cold", "ti": "Cold"}, {"id": "x", "ti": "First"}, {"id": " x", "ti": "Second"}, {"ti": "Nobody"}]
    facts, outputs = run(with_items(tmp_path, items, 'title = "ti"'), tmp_path / "out")
    assert table(outputs, "items").select("item_id", "title", "has_metadata", "has_text").rows() == [
        ("cold", "Cold", True, True),
        ("x", "First", True, True),
    ]
    assert rejects(outputs) == [("items.jsonl", 3, "duplicate item"), ("items.jsonl", 4, "no item_id")]
    assert facts.details["domains"]["a"] == {
        "events": 1,
        "users": 1,
        "items": 2,
        "items_with_text": 2,
        "event_share_with_text": 1.0,
        "first_timestamp_s": 1_400_000_000,
        "last_timestamp_s": 1_400_000_000,
    }


def test_ingest_items_of_other_ids_than_the_logs_fail(tmp_path: Path):
    items = [{"id": "x.0", "ti": "First"}, {"id": "y.0", "ti": "Second"}]
    with pytest.raises(DataError, match="no event is about an item of the item files") as caught:
        run(with_items(tmp_path, items, 'title = "ti"'), tmp_path / "out")
    assert caught.value.found == "in the log x; in the item files x.0, y.0"


def test_ingest_items_of_the_log_and_of_the_files_stand_together(tmp_path: Path):
    config = with_items(tmp_path, [{"id": id_, "ti": f"Thing {id_}"} for id_ in "ca"] + [{"id": "e"}], 'title = "ti"')
    write_jsonl(tmp_path / "log.jsonl", [{**GOOD, "u": f"u{n}", "i": item} for n, item in enumerate("dbbaeaa")])
    facts, outputs = run(config, tmp_path / "out")
    assert table(outputs, "items").select("item_id", "title", "has_metadata", "has_text").rows() == [
        ("a", "Thing a", True, True),
        ("b", None, False, False),
        ("c", "Thing c", True, True),
        ("d", None, False, False),
        ("e", None, True, False),
    ]
    details = facts.details["domains"]["a"]
    assert (details["items"], details["items_with_text"], details["event_share_with_text"]) == (5, 2, round(3 / 7, 6))


def test_ingest_item_text_is_clean_and_hashed(tmp_path: Path):
    items = [
        {
            "id": "x",
            "ti": "Salt &amp;amp; Pepper\u200b",
            "b": "Acme",
            "c": [["Home", "Spices"], ["Food"]],
            "d": ["Two", " parts\n"],
            "p": "$1,299.50",
        },
        {"id": "y", "ti": "\x00 \u200b", "b": None, "c": [], "d": "", "p": "from 3 to 5"},
        {"id": "z", "ti": "Long", "b": "", "c": None, "d": "w " * 5_000, "p": 3},
    ]
    mapping = 'title = "ti", brand = "b", categories = "c", description = "d", price = "p"'
    _, outputs = run(with_items(tmp_path, items, mapping), tmp_path / "out")
    x, y, z = table(outputs, "items").rows(named=True)
    assert x["text"] == "Salt & Pepper. Brand: Acme. Category: Home > Spices; Food. Two parts"
    assert x["text_hash"] == hashlib.sha256(x["text"].encode()).hexdigest()
    assert x["price"] == 1299.5
    assert (y["title"], y["text"], y["text_hash"], y["has_metadata"], y["has_text"]) == (None, None, None, True, False)
    assert y["price"] is None
    assert len(z["description"]) <= 2_000
    assert z["price"] == 3.0


def test_ingest_very_long_line_is_rejected_and_the_run_goes_on(tmp_path: Path):
    long = json.dumps({**GOOD, "junk": "x" * 20_000_000})
    (tmp_path / "log.jsonl").write_text(f"{json.dumps(GOOD)}\n{long}\n{json.dumps({**GOOD, 'u': 'bob'})}", "utf-8")
    _, outputs = run(one_domain(tmp_path), tmp_path / "out", DuckDbSettings(memory_limit="100MB", threads=1))
    assert rejects(outputs) == [("log.jsonl", 2, "line too long")]
    assert table(outputs, "interactions")["user_id"].to_list() == ["ann", "bob"]


def test_ingest_small_memory_limit_suffices(tmp_path: Path):
    rng = random.Random(1)
    write_jsonl(
        tmp_path / "log.jsonl",
        ({"u": f"u{rng.randrange(20_000)}", "i": f"i{rng.randrange(5_000)}", "t": 10**9 + n} for n in range(200_000)),
    )
    facts, _ = run(one_domain(tmp_path), tmp_path / "out", DuckDbSettings(memory_limit="100MB"))
    assert facts.details["domains"]["a"]["events"] == 200_000


def test_ingest_duplicate_keeps_the_first_of_many_blocks(tmp_path: Path):
    more = COLUMNS.replace(" }", ', rating = "r" }')
    write_jsonl(tmp_path / "log.jsonl", ({**GOOD, "u": f"u{n % 1_000}", "r": n // 1_000} for n in range(300_000)))
    limits = DuckDbSettings(memory_limit="500MB", threads=4)
    facts, outputs = run(one_domain(tmp_path, more=more), tmp_path / "out", limits)
    assert table(outputs, "interactions")["rating"].to_list() == [0.0] * 1_000
    assert facts.dropped == {"interactions: duplicate event": 299_000}


def test_ingest_fails_with_what_failed_while_the_log_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail_to_write(*_args: object, **_options: object) -> None:
        raise OSError("no such luck")

    monkeypatch.setattr("semacdr.interactions.events.write_parquet", fail_to_write)
    write_jsonl(tmp_path / "log.jsonl", [GOOD])
    with pytest.raises(OSError, match="no such luck"):
        run(one_domain(tmp_path), tmp_path / "out")


def test_ingest_on_a_full_disk_fails_with_what_the_disk_says(tmp_path: Path, small_disk: Path):
    rng = random.Random(2)
    write_jsonl(tmp_path / "log.jsonl", ({**GOOD, "u": rng.random(), "i": rng.random()} for _ in range(100_000)))
    with pytest.raises(OSError, match="No space left"):
        run(one_domain(tmp_path), small_disk / "out")


def test_ingest_too_many_rejects_fails_with_reasons_and_places(tmp_path: Path):
    write_jsonl(tmp_path / "log.jsonl", [GOOD, {"u": "ann"}, {"i": "x"}, {"u": "bob"}])
    with pytest.raises(DataError) as caught:
        run(one_domain(tmp_path, share=0.5), tmp_path / "out")
    assert "3 of 4 interactions records" in str(caught.value)
    assert """no item_id: 2, such as log.jsonl:2 {"u": "ann"}, log.jsonl:4 {"u": "bob"}""" in str(caught.value)


def test_ingest_item_files_without_a_record_fail(tmp_path: Path):
    with pytest.raises(DataError, match="no record of an item"):
        run(with_items(tmp_path, [], 'title = "ti"'), tmp_path / "out")


def test_ingest_too_many_bad_items_fails(tmp_path: Path):
    config = with_items(tmp_path, [{"id": "x", "ti": "a"}, {"ti": "b"}], 'title = "ti"', share=0.1)
    with pytest.raises(DataError, match="1 of 2 items records"):
        run(config, tmp_path / "out")


@pytest.mark.parametrize("lines", ["", "not json\n"])
def test_ingest_domain_without_events_fails(tmp_path: Path, lines: str):
    (tmp_path / "log.jsonl").write_text(lines, encoding="utf-8")
    with pytest.raises(DataError, match="domain a: no event is accepted"):
        run(one_domain(tmp_path), tmp_path / "out")


@pytest.mark.parametrize("name", ["log.jsonl.gz", "log.csv.gz", "log.jsonl.zst", "log.csv.bz2"])
@pytest.mark.parametrize("fault", ["plain", "cut", "damaged"])
def test_ingest_broken_compressed_file_is_named(tmp_path: Path, name: str, fault: str):
    text = b"u,i,t\n" + random.Random(2).randbytes(100_000)
    compress = {"gz": gzip.compress, "bz2": bz2.compress, "zst": zstd}
    whole = compress[name.rpartition(".")[2]](text)
    data = {"plain": b"u,i,t\n", "cut": whole[:-20_000], "damaged": whole[:50_000] + b"\xff" * 50 + whole[50_050:]}
    (tmp_path / name).write_bytes(data[fault])
    with pytest.raises(DataError, match=name):
        run(one_domain(tmp_path, name), tmp_path / "out")


def test_ingest_broken_parquet_is_named(tmp_path: Path):
    (tmp_path / "log.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match=r"log\.parquet is broken"):
        run(one_domain(tmp_path, "log.parquet"), tmp_path / "out")


def test_ingest_parquet_cut_inside_is_named(tmp_path: Path):
    rows = [{"u": f"u{n}", "i": "x", "t": 1_400_000_000} for n in range(10_000)]
    path = tmp_path / "log.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    data = bytearray(path.read_bytes())
    data[100:5_000] = b"\xff" * 4_900
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"log\.parquet is broken"):
        run(one_domain(tmp_path, "log.parquet"), tmp_path / "out")


@pytest.mark.parametrize("indent", [None, 1])
def test_ingest_array_of_records_is_told_from_lines(tmp_path: Path, indent: int | None):
    records = [{"u": "ann", "i": n, "t": 1_400_000_000 + n} for n in range(3)]
    (tmp_path / "log.jsonl").write_text(json.dumps(records, indent=indent), encoding="utf-8")
    with pytest.raises(DataError, match="one JSON array") as caught:
        run(one_domain(tmp_path), tmp_path / "out")
    assert "jq -c" in str(caught.value.do)


def test_ingest_array_in_the_first_line_is_one_reject(tmp_path: Path):
    lines = ["[1, 2]", *(json.dumps({"u": "ann", "i": n, "t": 1_400_000_000 + n}) for n in range(3))]
    (tmp_path / "log.jsonl").write_text("\n".join(lines), encoding="utf-8")
    facts, _ = run(one_domain(tmp_path, share=0.5), tmp_path / "out")
    assert facts.dropped == {"interactions: not a json object": 1}


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_ingest_csv_of_another_delimiter_is_told_which(tmp_path: Path, delimiter: str):
    lines = (delimiter.join(row) for row in (("u", "i", "t"), ("ann", "x", "1400000000")))
    (tmp_path / "log.csv").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        run(one_domain(tmp_path, "log.csv"), tmp_path / "out")
    assert f"delimiter = {json.dumps(delimiter)}" in str(caught.value.do)


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv", "log.parquet"])
def test_ingest_field_in_no_record_is_named_with_near_names(tmp_path: Path, name: str):
    formats(tmp_path, [{"reviewerID": "ann", "i": "x", "t": 1_400_000_000}])
    with pytest.raises(ConfigError) as caught:
        run(one_domain(tmp_path, name, more=COLUMNS.replace('"u"', '"reviewerId"')), tmp_path / "out")
    assert "did you mean 'reviewerID'?" in str(caught.value)
    assert name in str(caught.value)


def test_ingest_optional_field_may_be_in_some_files_only(tmp_path: Path):
    config = with_items(tmp_path, [{"id": "x", "ti": "a"}], 'title = "titel"')
    with pytest.raises(ConfigError, match="no record has the field of title"):
        run(config, tmp_path / "out")
    write_jsonl(tmp_path / "items-2.jsonl", [{"id": "y", "titel": "b"}])
    more = (tmp_path / "dataset.toml").read_text(encoding="utf-8").replace('"items.jsonl"', '"items*.jsonl"')
    (tmp_path / "dataset.toml").write_text(more, encoding="utf-8")
    _, outputs = run(load_dataset(tmp_path), tmp_path / "out")
    assert table(outputs, "items")["title"].to_list() == [None, "b"]


@pytest.mark.parametrize("limit", ["much", "1KB"])
def test_ingest_impossible_memory_limit_is_named(tmp_path: Path, limit: str):
    write_jsonl(tmp_path / "log.jsonl", [GOOD])
    with pytest.raises(ConfigError, match=r"memory"):
        run(one_domain(tmp_path), tmp_path / "out", DuckDbSettings(memory_limit=limit))


def test_raw_files_lists_each_file_once_with_its_hash(tmp_path: Path):
    (tmp_path / "logs").mkdir()
    write_jsonl(tmp_path / "logs" / "b.jsonl", [GOOD])
    write_jsonl(tmp_path / "logs" / "a.jsonl", [GOOD, GOOD])
    config = dataset(tmp_path, f'[domains.a.interactions]\nfiles = ["logs/*.jsonl", "logs/a.jsonl"]\n{COLUMNS}\n')
    listed = raw_files(config)
    assert [(one["domain"], one["table"], one["file"]) for one in listed] == [
        ("a", "interactions", "logs/a.jsonl"),
        ("a", "interactions", "logs/b.jsonl"),
    ]
    assert listed[0]["bytes"] == (tmp_path / "logs" / "a.jsonl").stat().st_size
    assert len(listed[0]["sha256"]) == 64


def test_raw_files_are_read_once_until_they_change_and_to_check_them_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    read: list[str] = []
    monkeypatch.setattr(sources, "file_sha256", lambda path: read.append(path.name) or str(len(read)))
    write_jsonl(tmp_path / "log.jsonl", [GOOD])
    config = one_domain(tmp_path)
    check_raw_files(config)
    assert read == []
    assert raw_files(config) == raw_files(config)
    assert read == ["log.jsonl"]
    write_jsonl(tmp_path / "log.jsonl", [GOOD, GOOD])
    assert raw_files(config)[0]["sha256"] == "2"


@pytest.mark.parametrize("use", [raw_files, check_raw_files, lambda config: run(config, config.folder / "out")])
def test_raw_files_pattern_without_files_is_named_with_near_names(
    tmp_path: Path, use: Callable[[DatasetConfig], object]
):
    write_jsonl(tmp_path / "reviews.jsonl", [GOOD])
    with pytest.raises(ConfigError) as caught:
        use(one_domain(tmp_path, "review.jsonl"))
    for part in ("domain a", "'review.jsonl'", str(tmp_path), "did you mean 'reviews.jsonl'?"):
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match="no files in"):
        use(one_domain(tmp_path, "logs/*.jsonl"))
    (tmp_path / "spark.parquet").mkdir()
    with pytest.raises(ConfigError, match=r"is a folder(.*\n)+.*spark.parquet/\*.parquet"):
        use(one_domain(tmp_path, "spark.parquet"))


def test_raw_files_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_jsonl(tmp_path / "log.jsonl", [GOOD])

    def refuse(_: Path) -> str:
        raise PermissionError("no")

    monkeypatch.setattr(sources, "file_sha256", refuse)
    with pytest.raises(ConfigError, match="cannot be read"):
        raw_files(one_domain(tmp_path))
    config = one_domain(tmp_path)
    monkeypatch.setattr(Path, "open", lambda *_: refuse(tmp_path))
    with pytest.raises(ConfigError, match="cannot be read"):
        check_raw_files(config)


def test_domain_without_interactions_has_items_and_no_events(tmp_path: Path):
    write_jsonl(tmp_path / "log.jsonl", [GOOD])
    write_jsonl(tmp_path / "new.jsonl", [{"id": "x", "title": "X"}, {"id": "y", "title": "Y"}])
    config = dataset(
        tmp_path,
        f'[domains.a.interactions]\nfiles = ["log.jsonl"]\n{COLUMNS}\n'
        '[domains.b.items]\nfiles = ["new.jsonl"]\ncolumns = { item_id = "id", title = "title" }\n',
    )
    facts, outputs = run(config, tmp_path)
    assert table(outputs, "items", "b")["item_id"].to_list() == ["x", "y"]
    assert table(outputs, "interactions", "b").is_empty()
    assert facts.details["domains"]["b"]["events"] == 0
    assert {row["table"] for row in raw_files(config) if row["domain"] == "b"} == {"items"}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ('"1400000000.99999999"', 1_400_000_000),
        ("14000000005e-1", 1_400_000_000),
        ('"14e8"', 1_400_000_000),
        ('" 1400000000\\t"', 1_400_000_000),
        ("99999999999999999999999999", None),
        ("-0", None),
    ],
)
def test_ingest_time_that_is_no_plain_number_is_read_to_the_second(tmp_path: Path, value: str, seconds: int | None):
    (tmp_path / "log.jsonl").write_text(
        f'{json.dumps(GOOD | {"u": "aa"})}\n{{"u": "bob", "i": "x", "t": {value}}}', "utf-8"
    )
    _, outputs = run(one_domain(tmp_path), tmp_path / "out")
    assert table(outputs, "interactions")["timestamp_s"].to_list() == [GOOD["t"], *([seconds] if seconds else [])]
    assert rejects(outputs) == ([] if seconds else [("log.jsonl", 2, "timestamp out of range")])


@pytest.mark.parametrize(
    ("value", "user"),
    [
        ('"true"', "true"),
        ("true", None),
        ('"{x"', "{x"),
        ('{"x": 1}', None),
        ('"[y"', "[y"),
        ("[1]", None),
        ("17", "17"),
    ],
)
def test_ingest_identity_is_a_string_or_number(tmp_path: Path, value: str, user: str | None):
    (tmp_path / "log.jsonl").write_text(f'{json.dumps(GOOD)}\n{{"u": {value}, "i": "x", "t": 1400000000}}', "utf-8")
    _, outputs = run(one_domain(tmp_path), tmp_path / "out")
    assert set(table(outputs, "interactions")["user_id"]) == {"ann", user} - {None}
    assert rejects(outputs) == ([] if user else [("log.jsonl", 2, "no user_id")])


def test_ingest_duplicates_over_many_batches_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rng = random.Random(11)
    rows = [{"u": f"u{rng.randrange(3)}", "i": "x", "t": 10**9 + rng.randrange(9), "r": n} for n in range(200)]
    first: dict[tuple[str, int], int] = {}
    for row in rows:
        first.setdefault((row["u"], row["t"]), row["r"])
    write_jsonl(tmp_path / "log.jsonl", rows)
    config = one_domain(tmp_path, more=COLUMNS.replace(" }", ', rating = "r" }'))
    for batch_rows in (1, 3, 1_000):
        monkeypatch.setattr("semacdr.interactions.events.ROWS_PER_GROUP", batch_rows)
        facts, outputs = run(config, tmp_path / str(batch_rows))
        found = table(outputs, "interactions").select("user_id", "timestamp_s", "rating").rows()
        assert found == [(*key, float(rating)) for key, rating in sorted(first.items())]
        assert {line for _, line, _ in rejects(outputs)} == {row["r"] + 1 for row in rows} - {
            r + 1 for r in first.values()
        }
        assert facts.details["domains"]["a"]["users"] == 3


def test_ingest_ids_of_a_parquet_column_of_floats_are_those_of_whole_numbers(tmp_path: Path):
    # pandas makes floats of a column of whole numbers that lacks one.
    ids = [12_345_678_901.0, 1e11, 7.0, None, 0.5, 1e300]
    pq.write_table(
        pa.table({"u": ids, "i": ["x"] * 6, "t": range(1_400_000_000, 1_400_000_006)}), tmp_path / "log.parquet"
    )
    _, outputs = run(one_domain(tmp_path, "log.parquet"), tmp_path / "out")
    found = table(outputs, "interactions")["user_id"].to_list()
    assert sorted(found) == sorted(["12345678901", "100000000000", "7", "0.5", "1e+300"])


def test_ingest_half_precision_in_parquet(tmp_path: Path):
    columns = {"u": pa.array(np.array([7, 0.5], np.float16)), "i": ["x"] * 2, "t": [1_400_000_000] * 2}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    _, outputs = run(one_domain(tmp_path, "log.parquet"), tmp_path / "out")
    assert sorted(table(outputs, "interactions")["user_id"]) == ["0.5", "7"]


def test_ingest_into_a_folder_that_reads_like_a_partition(tmp_path: Path):
    folder = tmp_path / "item_id=5"
    folder.mkdir()
    pq.write_table(pa.table({"u": ["a"], "i": ["x"], "t": [1_400_000_000]}), folder / "log.parquet")
    _, outputs = run(one_domain(folder, "log.parquet"), folder / "out")
    assert table(outputs, "items")["item_id"].to_list() == ["x"]
