from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch

import semacdr
from semacdr import tables
from semacdr.dataset import Index, Split, Training
from semacdr.errors import ConfigError, StoreError
from semacdr.index import build
from semacdr.manifest import FILE_NAME, Facts, FileRecord, Manifest, file_sha256, fingerprint, manifest_bytes
from semacdr.model.checkpoint import load_checkpoint
from semacdr.progress import Progress
from semacdr.reader import StoreReader
from semacdr.store import Draft, Store
from semacdr.tables import View
from semacdr.testing.toy import Toy, write_toy
from semacdr.training import Run, train

TINY = {"dim": 8, "num_blocks": 1, "batch_users": 16, "max_epochs": 1, "learning_rate": 5e-3}
METRICS = pl.DataFrame(
    {
        "model": ["m"], "protocol": ["gts"], "candidates": ["full"], "fit": ["refit"], "part": ["test"], "seed": [1],
        "domain": ["macro"], "group": ["all"], "metric": ["mrr"], "value": [0.5], "num_targets": [3],
    }
)  # fmt: skip
RANKS = pl.DataFrame(
    {
        "model": ["m"],
        "seed": [1],
        "user_id": ["u"],
        "domain": ["a"],
        "item_id": ["i"],
        "rank": [2],
        "num_candidates": [9],
        "groups": [["warm"]],
    }
)


def publish(store: Store, folders: Mapping[str, Path], *, dataset: str = "toy", key: object = 1) -> None:
    draft = Draft(dataset=dataset, stage="s", fingerprint=fingerprint(key), config={}, sources={}, inputs={})
    with store.open_draft(draft, folders):
        for name, folder in folders.items():
            shutil.copytree(folder, draft.folders[name], dirs_exist_ok=True)
        store.publish(draft, Facts())


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("artifacts")
    torch.set_num_threads(1)
    folders = write_toy(folder, Toy(num_users=20, items_per_domain=12, events_per_user=6))
    (folder / "index").mkdir()
    build(folders["embeddings"], folder / "index", Index(), Progress())
    train(Training(overrides=TINY), Split(max_length=12), folders, folder / "checkpoint", Run(1), Progress())
    (folder / "evaluation").mkdir()
    METRICS.write_parquet(folder / "evaluation" / "evaluation.parquet")
    RANKS.write_parquet(folder / "evaluation" / "evaluation_ranks.parquet")
    return folders | {name: folder / name for name in ("index", "checkpoint", "evaluation")}


@pytest.fixture(scope="session")
def published(toy: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    publish(Store(root), toy)
    return root


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    """A store of the test's own, to break."""
    return Path(shutil.copytree(published, tmp_path / "store"))


@pytest.fixture
def reader(published: Path) -> StoreReader:
    return semacdr.open_store(published)


def folder_of(root: Path, name: str) -> Path:
    return Path(semacdr.open_store(root)._store.get("toy", name).path)


def rewrite_manifest(folder: Path, **changes: object) -> None:
    """As another version of SemaCDR would have written it."""
    manifest = Manifest.model_validate_json((folder / FILE_NAME).read_bytes())
    (folder / FILE_NAME).write_bytes(manifest_bytes(manifest.model_copy(update=changes)))


def replace_table(root: Path, frame: pl.DataFrame) -> None:
    """Put another table into the published items, manifest and all."""
    folder = folder_of(root, "items")
    path = folder / "items.parquet"
    frame.write_parquet(path)
    record = FileRecord(path=path.name, bytes=path.stat().st_size, sha256=file_sha256(path))
    rewrite_manifest(folder, files=(record,))


def test_read_gives_one_table_in_three_forms(reader: StoreReader, toy: dict[str, Path]):
    whole = pl.read_parquet(toy["embeddings"] / "embeddings.parquet")
    rows = whole.filter((pl.col("view") == "agnostic") & (pl.col("domain") == "books"))
    chosen = reader.read("embeddings", view="agnostic", domain="books")
    assert isinstance(chosen.lazy(), pl.LazyFrame)
    assert chosen.lazy().collect().equals(rows)
    assert chosen.polars().equals(rows)
    arrow = chosen.arrow()
    assert isinstance(arrow, pa.Table)
    assert arrow["item_id"].to_pylist() == rows["item_id"].to_list()
    vectors = chosen.numpy("vector")
    assert vectors.dtype == np.float32
    assert vectors.shape == (rows.height, 16)
    assert arrow.schema.field("vector").type == pa.list_(pa.float32(), 16)
    np.testing.assert_array_equal(vectors, rows["vector"].to_numpy())
    assert chosen.numpy("item_id").tolist() == rows["item_id"].to_list()
    assert reader.read("embeddings").polars().equals(whole)


def test_read_of_no_rows_keeps_the_width_of_vectors(reader: StoreReader):
    assert reader.read("embeddings", domain="nowhere").numpy("vector").shape == (0, 16)


def test_read_chooses_columns_in_order_and_filters_on_others(reader: StoreReader, toy: dict[str, Path]):
    items = pl.read_parquet(toy["items"] / "items.parquet")
    frame = reader.read("items", columns=["item_id", "domain"], has_text=False).polars()
    assert frame.equals(items.filter(~pl.col("has_text")).select("item_id", "domain"))
    assert reader.read("items", title=None).polars().equals(items.filter(pl.col("title").is_null()))


def test_read_finds_the_one_table_of_an_artifact_or_the_named_one(reader: StoreReader):
    assert reader.read("index").table == "index_ids"
    assert reader.read("checkpoint").polars().columns == list(tables.History.columns())
    assert reader.read("evaluation").polars().equals(METRICS)
    assert reader.read("evaluation", table="evaluation_ranks").polars().equals(RANKS)
    with pytest.raises(ConfigError, match="did you mean 'evaluation_ranks'"):
        reader.read("evaluation", table="evaluation_rank")


def test_read_takes_versions_and_aliases(root: Path, toy: dict[str, Path]):
    store = Store(root)
    first = store.get("toy", "items").manifest.version
    publish(store, {"items": toy["items"]}, key=2)
    store.move_alias("toy", "items", "production", first)
    reader = semacdr.open_store(root)
    assert reader.versions("items") == [first, f"{first}.1"]
    assert reader.read("items").manifest.version == f"{first}.1"
    assert reader.read("items", version=first).manifest.version == first
    assert reader.read("items", version="production").manifest.version == first
    assert reader.manifest("items").version == f"{first}.1"
    with pytest.raises(StoreError, match="did you mean 'production'"):
        reader.read("items", version="productoin")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": ["item"]}, "no column 'item'(.|\n)*did you mean 'item_id'"),
        ({"veiw": "agnostic"}, "no column 'veiw'(.|\n)*did you mean 'view'"),
        ({"view": "agnostc"}, "view is never 'agnostc'(.|\n)*did you mean 'agnostic'"),
        ({"domain": 3}, "domain cannot be compared with 3"),
        ({"vector": 0.5}, "vector cannot be compared with 0.5"),
        ({"domain": ["books"]}, r"domain cannot be compared with \['books'\]"),
    ],
)
def test_read_refuses_what_no_row_can_have(reader: StoreReader, arguments: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        reader.read("embeddings", **arguments)


def test_numpy_of_an_unknown_column_names_near_ones(reader: StoreReader):
    with pytest.raises(ConfigError, match="did you mean 'vector'"):
        reader.read("embeddings").numpy("vectors")


def test_data_set_must_be_named_only_where_there_are_several(root: Path, toy: dict[str, Path]):
    assert semacdr.open_store(root).datasets() == ["toy"]
    publish(Store(root), {"items": toy["items"]}, dataset="other")
    reader = semacdr.open_store(str(root))
    with pytest.raises(ConfigError, match="found:    other, toy"):
        reader.read("items")
    assert reader.read("items", dataset="other").manifest.dataset == "other"


def test_empty_store_says_so(tmp_path: Path):
    with pytest.raises(StoreError, match="is empty"):
        semacdr.open_store(tmp_path / "nowhere").read("items")
    assert not (tmp_path / "nowhere").exists()


def test_unknown_artifact_names_near_ones(reader: StoreReader):
    with pytest.raises(StoreError, match="did you mean 'items'"):
        reader.read("item")
    with pytest.raises(StoreError, match="did you mean 'items'"):
        reader.versions("item")


def test_column_that_an_older_artifact_lacks_is_null(root: Path, toy: dict[str, Path]):
    replace_table(root, pl.read_parquet(toy["items"] / "items.parquet").drop("price", "brand"))
    frame = semacdr.open_store(root).read("items", brand=None).polars()
    assert frame.columns == list(tables.Items.columns())
    assert frame.height == 24
    assert frame["price"].null_count() == 24
    assert frame.schema["price"] == pl.Float64


def test_column_that_a_newer_artifact_has_comes_last(root: Path, toy: dict[str, Path]):
    replace_table(root, pl.read_parquet(toy["items"] / "items.parquet").select(pl.lit(1).alias("stock"), pl.all()))
    assert semacdr.open_store(root).read("items").polars().columns == [*tables.Items.columns(), "stock"]


def test_column_that_every_artifact_has_must_be_there(root: Path, toy: dict[str, Path]):
    replace_table(root, pl.read_parquet(toy["items"] / "items.parquet").drop("has_text"))
    with pytest.raises(StoreError, match="lacks has_text"):
        semacdr.open_store(root).read("items")


@pytest.mark.parametrize(("version", "message"), [(99, "a newer contract"), (0, "an older contract")])
def test_artifact_of_another_contract_is_refused(root: Path, version: int, message: str):
    for name in ("items", "checkpoint", "index"):
        rewrite_manifest(folder_of(root, name), contract_version=version)
    reader = semacdr.open_store(root)
    for read in (lambda: reader.read("items"), reader.checkpoint, lambda: reader.index("books", "agnostic")):
        with pytest.raises(StoreError, match=message):
            read()
    assert reader.manifest("items").contract_version == version
    assert reader.read("embeddings").polars().height > 0


def test_table_without_a_file_is_refused(root: Path):
    rewrite_manifest(folder_of(root, "items"), files=())
    with pytest.raises(StoreError, match="no file of table items"):
        semacdr.open_store(root).read("items")


def test_file_that_was_put_into_a_version_is_not_read(root: Path):
    folder = folder_of(root, "items")
    (folder / "items").mkdir()
    shutil.copy(folder / "items.parquet", folder / "items" / "more.parquet")
    assert semacdr.open_store(root).read("items").polars().height == 24


def test_table_with_other_bytes_is_refused_unless_sizes_suffice(root: Path):
    file = folder_of(root, "items") / "items.parquet"
    reader = semacdr.open_store(root)
    assert reader.read("items").polars().height == 24
    data = bytearray(file.read_bytes())
    data[0] ^= 1  # in the magic number, which polars does not look at
    file.write_bytes(data)
    assert reader.read("items", verify=False).polars().height == 24
    with pytest.raises(StoreError, match=r"not the file that was published(.|\n)*found: +sha256"):
        reader.read("items")


def test_table_of_another_size_is_refused(root: Path):
    file = folder_of(root, "items") / "items.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"not the file that was published(.|\n)*found: +[0-9]+ bytes"):
        semacdr.open_store(root).read("items")


def test_missing_table_is_refused(root: Path):
    (folder_of(root, "items") / "items.parquet").unlink()
    with pytest.raises(StoreError, match=r"items\.parquet cannot be read"):
        semacdr.open_store(root).read("items")


@pytest.mark.parametrize("cut", [0, 100])
def test_table_that_breaks_after_it_was_chosen_is_one_clear_error(root: Path, cut: int):
    file = folder_of(root, "items") / "items.parquet"
    reader = semacdr.open_store(root)
    chosen = reader.read("items")
    size = file.stat().st_size
    file.write_bytes(b"no Parquet".ljust(size - cut))
    for use in (chosen.polars, chosen.arrow, lambda: chosen.numpy("domain")):
        with pytest.raises(StoreError, match=r"items@.* of 'toy' cannot be read"):
            use()
    file.write_bytes(b"no Parquet".ljust(size))
    with pytest.raises(StoreError, match=r"items@.* of 'toy' cannot be read"):
        reader.read("items", verify=False)


def test_checkpoint_is_the_trained_model(reader: StoreReader, toy: dict[str, Path]):
    loaded, trained = reader.checkpoint(), load_checkpoint(toy["checkpoint"])
    assert torch.equal(loaded.items.vector_RD, trained.items.vector_RD)


@pytest.mark.parametrize("view", View)
def test_index_finds_the_vectors_that_read_gives(reader: StoreReader, view: View):
    chosen = reader.read("embeddings", domain="films", view=view)
    found = reader.index("films", str(view)).search(chosen.numpy("vector"), top_k=1)
    assert [row[0] for row in found.item_ids] == chosen.numpy("item_id").tolist()


def test_index_of_an_unknown_domain_or_view_names_near_ones(reader: StoreReader):
    with pytest.raises(StoreError, match="did you mean 'films'"):
        reader.index("film", "agnostic")
    with pytest.raises(StoreError, match="known: books, films"):
        reader.index("../../../items", "agnostic")
    with pytest.raises(ConfigError, match="did you mean 'agnostic'"):
        reader.index("films", "agnostik")


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "vocabulary.parquet"])
def test_checkpoint_with_a_changed_file_is_not_loaded(root: Path, file: str):
    path = folder_of(root, "checkpoint") / file
    reader = semacdr.open_store(root)
    reader.checkpoint()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=f"{file} is not the file that was published"):
        reader.checkpoint()


@pytest.mark.parametrize("file", ["books/agnostic.faiss", "index_ids.parquet"])
def test_index_with_a_changed_file_is_not_loaded(root: Path, file: str):
    path = folder_of(root, "index") / file
    reader = semacdr.open_store(root)
    reader.index("books", "agnostic")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="is not the file that was published"):
        reader.index("books", "agnostic")
    if file != "index_ids.parquet":
        reader.index("films", "agnostic")


def test_files_that_have_not_changed_are_hashed_once(root: Path, monkeypatch: pytest.MonkeyPatch):
    reader = semacdr.open_store(root)
    reader.read("items")
    monkeypatch.setattr("semacdr.reader.file_sha256", lambda path: f"hash of {path}")
    reader.read("items")
    with pytest.raises(StoreError, match="not the file"):
        semacdr.open_store(root).read("items")


def test_importing_the_package_loads_neither_polars_nor_torch():
    program = "import semacdr, sys; print(sorted({'polars', 'torch', 'faiss'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_opening_and_reading_loads_neither_torch_nor_faiss(published: Path):
    program = (
        "import json, semacdr, sys\n"
        f"semacdr.open_store({str(published)!r}).read('items').polars()\n"
        "print(json.dumps(sorted({'torch', 'faiss'} & set(sys.modules))))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == []
    with pytest.raises(AttributeError, match="no attribute 'open_stor'"):
        semacdr.open_stor  # noqa: B018


def test_nothing_is_ever_unpickled():
    root = Path(semacdr.__file__).parent.parent
    forbidden = re.compile(
        r"(^|\W)(import|from) (c?pickle|dill|joblib|cloudpickle|shelve|marshal)\b"
        r"|pickle\.loads?\(|torch\.load\(|allow_pickle\s*=\s*True|read_pickle|IO_FLAG_READ_ONLY_UNSAFE"
    )
    loads = re.compile(r"np\.load\((?!.*allow_pickle=False)")
    files = [path for part in ("semacdr", "flows", "benchmarks", "infra") for path in (root / part).rglob("*.py")]
    assert len(files) > 50
    found = [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if forbidden.search(line) or loads.search(line)
    ]
    assert found == []
