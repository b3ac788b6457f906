from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from semacdr.dataset import FILE_NAME, DatasetConfig, InteractionSource, load_dataset
from semacdr.errors import ConfigError

LOG = 'files = ["log.jsonl"]\ncolumns = { user_id = "u", item_id = "i", timestamp = "t" }\n'
COLUMNS = {"user_id": "u", "item_id": "i", "timestamp": "t"}
SMALL = f'name = "toy"\n[domains.a.interactions]\n{LOG}'


def write(folder: Path, text: str = SMALL) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE_NAME
    path.write_text(text, encoding="utf-8")
    return path


def fails(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_dataset(write(folder, text))
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_load_dataset_by_file_folder_and_name_is_the_same(tmp_path: Path):
    path = write(tmp_path / "toy")
    other = tmp_path / "toy" / "other.toml"
    other.write_text(SMALL, encoding="utf-8")
    found = [load_dataset(path), load_dataset(path.parent), load_dataset("toy", (tmp_path,)), load_dataset(other)]
    assert all(one.model_dump() == found[0].model_dump() and one.folder == path.parent.resolve() for one in found)
    assert found[0].domains["a"].interactions.format == "jsonl"


def test_load_dataset_missing_names_near_ones(tmp_path: Path):
    write(tmp_path / "amazon-food")
    with pytest.raises(ConfigError, match="did you mean 'amazon-food'"):
        load_dataset("amazon-fod", (tmp_path,))
    with pytest.raises(ConfigError, match="no data set"):
        load_dataset(tmp_path / "nowhere", ())


@pytest.mark.parametrize("data", [b"name = \n", b"name = '\xff'\n"])
def test_load_dataset_no_toml_is_named(tmp_path: Path, data: bytes):
    path = tmp_path / FILE_NAME
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="is not TOML") as caught:
        load_dataset(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "place", "near"),
    [
        (f"nmae = 1\n{SMALL}", "nmae", "'name'"),
        (f"{SMALL}[splitt]\n", "splitt", "'split'"),
        (f"{SMALL}[split]\ntest_quantil = 0.9\n", "split.test_quantil", "'test_quantile'"),
        (f"{SMALL}time_fromat = 'seconds'\n", "domains.a.interactions.time_fromat", "'time_format'"),
        (f"{SMALL}[domains.a.item]\n", "domains.a.item", "'items'"),
        (f"{SMALL}[semantics.budget]\ntoken = 3\n", "semantics.budget.token", "'tokens'"),
    ],
)
def test_load_dataset_unknown_key_is_named_with_near_names(tmp_path: Path, text: str, place: str, near: str):
    message = fails(tmp_path, text)
    assert f"{place}: unknown key" in message
    assert near in message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('name = "toy"\n', "domains: missing"),
        ('name = "toy"\n[domains.a]\nlabel = "x"\n', "interactions or, where nobody"),
        (
            'name = "toy"\n[domains.a.items]\nfiles = ["x"]\ncolumns = { item_id = "i" }\n',
            "at least one needs interactions",
        ),
        (f'name = "Toy box"\n[domains.a.interactions]\n{LOG}', "name"),
        ('name = "toy"\n[domains]\n', "domains"),
        ('name = "toy"\n[domains.a.interactions]\nfiles = []\ncolumns = {}\n', "files"),
        (
            'name = "toy"\n[domains.a.interactions]\nfiles = ["x"]\ncolumns = { user_id = "u" }\n',
            "columns must name the fields of item_id, timestamp",
        ),
        (f'{SMALL}[domains.a.items]\nfiles = ["x"]\ncolumns = {{ title = "t" }}\n', "the field of item_id"),
        (f"{SMALL}[split]\nvalidation_quantile = 0.95\n", "validation_quantile must be below test_quantile"),
        (f"{SMALL}[filters]\nmax_reject_share = 2\n", "filters.max_reject_share"),
    ],
)
def test_load_dataset_impossible_values_are_named(tmp_path: Path, text: str, part: str):
    assert part in fails(tmp_path, text)


def test_load_dataset_all_faults_are_listed_at_once(tmp_path: Path):
    message = fails(tmp_path, f"{SMALL}[split]\nmax_length = 0\n[training]\nseeds = 1\n")
    assert "2 wrong values" in message
    assert "split.max_length" in message
    assert "training.seeds" in message


@pytest.mark.parametrize("name", ["all", "macro"])
def test_load_dataset_domain_called_like_a_figure_over_all_is_refused(tmp_path: Path, name: str):
    (tmp_path / "dataset.toml").write_text(SMALL.replace("domains.a", f"domains.{name}"), encoding="utf-8")
    with pytest.raises(ConfigError, match=f"'{name}' is what figures over all domains are called"):
        load_dataset(tmp_path)


def test_load_dataset_import_into_unknown_domain_is_named(tmp_path: Path):
    text = f'{SMALL}[[semantics.imports]]\nfile = "x.parquet"\nmodel = "m"\ndomains = {{ Food = "b" }}\n'
    message = fails(tmp_path, text)
    assert "unknown domain 'b'" in message
    assert "a" in message


@pytest.mark.parametrize(
    ("more", "message"),
    [('delimiter = ";"', "delimiter is for csv"), ('format = "csv"\ndelimiter = "\\n"', "the end of a line")],
)
def test_load_dataset_delimiter_that_separates_nothing_is_refused(tmp_path: Path, more: str, message: str):
    assert message in fails(tmp_path, f"{SMALL}{more}\n")


def test_load_dataset_says_list_and_table(tmp_path: Path):
    message = fails(tmp_path, 'name = "toy"\n[domains.a.interactions]\nfiles = "log.jsonl"\ncolumns = ["u"]\n')
    assert "domains.a.interactions.files: should be a list" in message
    assert "domains.a.interactions.columns: should be a table" in message


def test_load_dataset_written_with_a_byte_order_mark(tmp_path: Path):
    (tmp_path / "dataset.toml").write_text(SMALL, encoding="utf-8-sig")
    assert load_dataset(tmp_path).domains.keys() == {"a"}


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ("min_timestamp_s = 5\nmax_timestamp_s = 5", "min_timestamp_s is not before max_timestamp_s"),
        ("until = 9999-12-31", "filters.until"),
    ],
)
def test_load_dataset_filters_that_leave_no_time_are_refused(tmp_path: Path, filters: str, message: str):
    assert message in fails(tmp_path, f"{SMALL}[filters]\n{filters}\n")


DOCS = Path(__file__).parent.parent / "docs" / "datasets.md"


@pytest.mark.parametrize(
    ("files", "form"),
    [
        (["a.csv"], "csv"),
        (["a.tsv.gz", "b.csv"], "csv"),
        (["day-*.parquet"], "parquet"),
        (["a.jsonl.gz"], "jsonl"),
        (["dump.json", "part-0"], "jsonl"),
    ],
)
def test_format_goes_by_the_names_of_the_files(files: list[str], form: str):
    assert InteractionSource(files=tuple(files), columns=COLUMNS).format == form
    assert InteractionSource(files=tuple(files), columns=COLUMNS, format="parquet").format == "parquet"


def test_files_of_two_formats_in_one_table_are_refused():
    with pytest.raises(ValueError, match="files of csv and parquet in one table: say format"):
        InteractionSource(files=("a.csv", "b.parquet"), columns=COLUMNS)


def test_docs_example_loads(tmp_path: Path):
    example = DOCS.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    assert list(load_dataset(write(tmp_path, example)).domains) == ["books", "films", "games"]


def keys(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        branches = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        for branch in branches:
            yield from keys(branch)
        if not branches:
            yield name


def test_docs_explain_every_key():
    documented = DOCS.read_text(encoding="utf-8")
    assert [key for key in keys(DatasetConfig) if f"| `{key}` |" not in documented] == []
