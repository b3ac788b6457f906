"""Stores that are damaged in every way we can think of: ``verify`` finds each, readers refuse it and read the rest."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import semacdr
from semacdr.errors import ConfigError, SemacdrError, StoreError
from semacdr.manifest import FILE_NAME, Facts, fingerprint
from semacdr.reader import StoreReader
from semacdr.store import Draft, Store
from semacdr.store.verify import Finding, verify
from tests.store.conftest import Lab

DATASETS = ("music", "toy")
TABLES = {
    "interactions": pl.DataFrame(
        {
            "user_id": ["u", "v"], "domain": ["a", "a"], "item_id": ["i", "j"], "timestamp_s": [1, 2],
            "rating": [None, 4.5],
        }
    ),
    "rejects": pl.DataFrame(
        {"table": ["items"], "domain": ["a"], "file": ["f"], "line": [1], "reason": ["no id"], "record": [None]},
        schema_overrides={"record": pl.String},
    ),
    "sequences": pl.DataFrame(
        {
            "user_id": ["u"], "domains": [["a"]], "item_ids": [["i"]], "timestamps_s": [[1]], "parts": [["train"]],
            "is_target": [[False]],
        }
    ),
}  # fmt: skip
NUM_VERSIONS = 2


def publish(store: Store, dataset: str, names: list[str], key: int, inputs: tuple[str, ...] = ()) -> None:
    draft = Draft(
        dataset=dataset,
        stage=names[0],
        fingerprint=fingerprint([dataset, names, key]),
        config={"key": key, "note": "a text to edit"},
        sources={},
        inputs={name: store.get(dataset, name) for name in inputs},
    )
    with store.open_draft(draft, names):
        for name in names:
            # A table in one file, and one in several.
            folder = draft.folders[name] / name if key else draft.folders[name]
            folder.mkdir(exist_ok=True)
            TABLES[name].write_parquet(folder / (f"part-{key}.parquet" if key else f"{name}.parquet"))
        store.publish(draft, Facts(rows_in=3, dropped={"no user": 1}, metrics={"ndcg_10": 0.5}))


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sound")
    store = Store(root)
    for dataset in DATASETS:
        for key in range(NUM_VERSIONS):
            publish(store, dataset, ["interactions", "rejects"], key)
            publish(store, dataset, ["sequences"], key, inputs=("interactions",))
        store.move_alias(dataset, "sequences", "production", store.get(dataset, "sequences").manifest.version)
    (root / "responses").mkdir()
    (root / "responses" / "answers.jsonl").write_text("{}\n")
    (root / "catalog.duckdb").write_bytes(b"not looked at")
    return root


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "store"))


def versions(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.glob(f"*/*/*/{FILE_NAME}"))


def data_files(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*/*/2*/**/*.parquet") if path.is_file())


def test_sound_store_has_no_findings(sound: Path):
    assert len(versions(sound)) == len(DATASETS) * len(TABLES) * NUM_VERSIONS
    assert verify(Store(sound)) == []


# Each way to damage a store: it changes something below the root and returns the path that verify has to name.


def flip_a_byte(root: Path, rng: random.Random) -> Path:
    path = rng.choice([*data_files(root), *(folder / FILE_NAME for folder in versions(root))])
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return path


def truncate(root: Path, rng: random.Random) -> Path:
    path = rng.choice([*data_files(root), *(folder / FILE_NAME for folder in versions(root))])
    os.truncate(path, rng.randrange(path.stat().st_size))
    return path


def append(root: Path, rng: random.Random) -> Path:
    path = rng.choice([*data_files(root), *(folder / FILE_NAME for folder in versions(root))])
    path.write_bytes(path.read_bytes() + rng.choice([b"\n", b" ", b"\0", b"{}"]))
    return path


def delete(root: Path, rng: random.Random) -> Path:
    path = rng.choice([*data_files(root), *(folder / FILE_NAME for folder in versions(root))])
    path.unlink()
    return path


def edit_the_manifest(root: Path, rng: random.Random) -> Path:
    path = rng.choice(versions(root)) / FILE_NAME
    manifest = json.loads(path.read_text())
    field = rng.choice(sorted(set(manifest) - {"layout_version"}))
    old = manifest[field]
    edits: dict[type, Callable[[Any], Any]] = {
        str: lambda text: text + "x",
        int: lambda number: number + 1,
        float: lambda number: number + 1,
        dict: lambda table: table | {"edited": 1},
        list: lambda items: items[:-1],
    }
    manifest[field] = 7 if old is None else edits[type(old)](old)
    path.write_text(json.dumps(manifest, indent=2) + "\n")
    return path


def edit_the_manifest_without_a_trace_of_a_seal(root: Path, rng: random.Random) -> Path:
    path = rng.choice(versions(root)) / FILE_NAME
    manifest = json.loads(path.read_text())
    manifest["rows_in"] += 1
    manifest.pop("seal")
    path.write_text(json.dumps(manifest, indent=2) + "\n")
    return path


def add_a_file_to_a_version(root: Path, rng: random.Random) -> Path:
    folder = rng.choice(versions(root))
    path = folder / rng.choice(["notes.txt", ".hidden", f"{FILE_NAME}.partial", f"{folder.parent.name}/part-9.parquet"])
    path.parent.mkdir(exist_ok=True)
    shutil.copy(rng.choice(data_files(root)), path)
    return path


def swap_two_files(root: Path, rng: random.Random) -> Path:
    files = data_files(root)
    first = rng.choice(files)
    second = rng.choice([path for path in files if path.read_bytes() != first.read_bytes()])
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    return first


def swap_two_versions(root: Path, rng: random.Random) -> Path:
    first, second = rng.sample(versions(root), 2)
    first.rename(root / "kept")
    second.rename(first)
    (root / "kept").rename(second)
    return first


def copy_a_version(root: Path, rng: random.Random) -> Path:
    folder = rng.choice(versions(root))
    return Path(shutil.copytree(folder, folder.with_name("2031.01.01")))


def replace_a_file_by_a_link(root: Path, rng: random.Random) -> Path:
    path = rng.choice(data_files(root))
    path.rename(root.parent / "elsewhere")
    path.symlink_to(root.parent / "elsewhere")
    return path


def replace_a_version_by_a_link(root: Path, rng: random.Random) -> Path:
    folder = rng.choice(versions(root))
    folder.rename(root.parent / "elsewhere")
    folder.symlink_to(root.parent / "elsewhere")
    return folder


def remove_a_version_that_others_need(root: Path, rng: random.Random) -> Path:
    folder = rng.choice([folder for folder in versions(root) if folder.parent.name == "interactions"])
    shutil.rmtree(folder)
    return folder.parent.parent / "sequences" / folder.name


def put_a_strange_file(root: Path, rng: random.Random) -> Path:
    folder = rng.choice(versions(root))
    path = rng.choice(
        [
            root / "notes.txt",
            root / "Backup" / "a.parquet",
            root / "toy" / "README.md",
            root / "toy" / "Interactions" / "2026.01.01" / FILE_NAME,
            folder.parent / "notes.txt",
            folder.parent / "2026.01.01" / "items.parquet",
            folder.parent / "2026.13.01" / FILE_NAME,
            folder.parent / "latest" / "items.parquet",
            folder.parent / "2026.01.01",
        ]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("strange")
    return path


def write_a_bad_alias(root: Path, rng: random.Random) -> Path:
    path = rng.choice(versions(root)).parent / rng.choice(["current", "production", "new"])
    path.write_text(rng.choice(["", "2026.01.01", "[]", '{"history": []}', '{"history": [{"version": "../x"}]}']))
    return path


def point_an_alias_at_nothing(root: Path, rng: random.Random) -> Path:
    path = rng.choice(versions(root)).parent / "current"
    text = path.read_text()
    path.write_text(text.replace(json.loads(text)["history"][-1]["version"], "2001.01.01"))
    return path


def remove_the_version_that_an_alias_needs(root: Path, rng: random.Random) -> Path:
    path = rng.choice(sorted(root.glob("*/rejects/current")))
    shutil.rmtree(path.with_name(json.loads(path.read_text())["history"][-1]["version"]))
    return path


def break_the_marker(root: Path, rng: random.Random) -> Path:
    path = root / "store.json"
    path.write_text(rng.choice(["", "{}", '{"layout_version": 99}', '{"layout_version": []}']))
    return path


DAMAGES: tuple[Callable[[Path, random.Random], Path], ...] = (
    flip_a_byte,
    truncate,
    append,
    delete,
    edit_the_manifest,
    edit_the_manifest_without_a_trace_of_a_seal,
    add_a_file_to_a_version,
    swap_two_files,
    swap_two_versions,
    copy_a_version,
    replace_a_file_by_a_link,
    replace_a_version_by_a_link,
    remove_a_version_that_others_need,
    put_a_strange_file,
    write_a_bad_alias,
    point_an_alias_at_nothing,
    remove_the_version_that_an_alias_needs,
    break_the_marker,
)
SEEDS = 7


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_verify_finds_every_damage_and_readers_refuse_it_and_read_the_rest(
    root: Path, sound: Path, damage: Callable[[Path, random.Random], Path], seed: int
):
    place = damage(root, random.Random(f"{damage.__name__} {seed}")).relative_to(root).as_posix()
    findings = verify(Store(root))
    assert any(is_about(finding, place) for finding in findings), (place, findings)
    if damage is break_the_marker:
        with pytest.raises(StoreError):
            semacdr.open_store(root).read("sequences", dataset="toy")
        return

    reader = semacdr.open_store(root)
    outcomes = Counter(outcome(reader, root, folder, findings) for folder in versions(sound))
    assert outcomes["read a broken one"] == outcomes["refused a sound one"] == 0, (place, findings, outcomes)
    assert outcomes["read"] >= 1


def is_about(finding: Finding, place: str) -> bool:
    return place == finding.path or f"{place}/".startswith(f"{finding.path}/") or finding.path.startswith(f"{place}/")


def outcome(reader: StoreReader, root: Path, folder: Path, findings: list[Finding]) -> str:
    """Read one version of the damaged store with checks, and compare what comes with what was published."""
    dataset, name, version = folder.parts[-3:]
    problems = [finding.problem for finding in findings if finding.path == f"{dataset}/{name}/{version}"]
    harmless = ("not in the manifest", "was made from")
    is_sound = all(any(part in problem for part in harmless) for problem in problems)
    is_there = (root / dataset / name / version / FILE_NAME).exists()
    try:
        chosen = reader.read(name, dataset=dataset, version=version)
        found = chosen.polars()
    except SemacdrError:
        return "refused a sound one" if is_sound and is_there else "refused"
    same = found.equals(TABLES[name]) and chosen.manifest.model_dump(mode="json") == json.loads(
        (folder / FILE_NAME).read_text()
    )
    return "read" if same and is_sound else "read a broken one"


def test_findings_say_what_is_wrong(root: Path):
    toy = root / "toy"
    first, second = (folder.name for folder in versions(root) if folder.parent == toy / "sequences")
    (toy / "sequences" / first / "sequences.parquet").unlink()
    (toy / "sequences" / second / "notes.txt").write_text("")
    shutil.rmtree(toy / "interactions" / first)
    (toy / "rejects" / first / FILE_NAME).unlink()
    (toy / "rejects" / second / FILE_NAME).write_text("{")
    (toy / "rejects" / "old").write_text("{")
    (root / "Photos").mkdir()
    (root / "Photos" / "cat.jpg").write_text("")
    found = {(finding.path, finding.problem) for finding in verify(Store(root))}
    said = {path: [problem for at, problem in found if at == path] for path, _ in found}
    assert set(said) == {
        "Photos", f"toy/rejects/{first}", f"toy/rejects/{second}", "toy/rejects/old", "toy/rejects/current",
        f"toy/sequences/{first}", f"toy/sequences/{second}",
    }  # fmt: skip
    assert said["Photos"] == ["does not belong into a store"]
    assert said[f"toy/rejects/{first}"] == ["a version without a manifest"]
    assert sorted(said[f"toy/sequences/{first}"]) == [
        "sequences.parquet: missing",
        f"was made from interactions@{first}, which is gone",
    ]
    assert said[f"toy/sequences/{second}"] == ["notes.txt: not in the manifest"]
    assert "no alias" in said["toy/rejects/old"][0]
    assert f"points at {second}, which cannot be read" in said["toy/rejects/current"][0]


def test_input_that_was_replaced_is_found(root: Path):
    """Another store's version of the same number: whole in itself, but not what the sequences were made from."""
    store = Store(root.parent / "other")
    publish(store, "toy", ["interactions"], key=5)
    version = store.get("toy", "interactions").manifest.version
    shutil.rmtree(root / "toy/interactions" / version)
    shutil.copytree(root.parent / "other/toy/interactions" / version, root / "toy/interactions" / version)
    (finding,) = verify(Store(root))
    assert finding.path == f"toy/sequences/{version}"
    assert "another interactions@" in finding.problem


def test_verify_takes_a_part_of_the_store(root: Path):
    toy = root / "toy"
    first, second = (folder.name for folder in versions(root) if folder.parent == toy / "sequences")
    (toy / "sequences" / first / "sequences.parquet").unlink()
    (toy / "notes.txt").write_text("")
    (root / "music" / "rejects" / "current").write_text("")
    store = Store(root)
    assert {finding.path for finding in verify(store)} == {
        f"toy/sequences/{first}", "toy/notes.txt", "music/rejects/current",
    }  # fmt: skip
    assert {finding.path for finding in verify(store, "toy")} == {f"toy/sequences/{first}", "toy/notes.txt"}
    assert {finding.path for finding in verify(store, name="rejects")} == {"music/rejects/current"}
    assert {finding.path for finding in verify(store, "toy", "sequences")} == {f"toy/sequences/{first}"}
    assert {finding.path for finding in verify(store, version=first)} == {f"toy/sequences/{first}"}
    assert verify(store, "toy", "sequences", second) == []
    assert verify(store, "toy", "sequences", "production") == []
    assert verify(store, "toy", "interactions") == []


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("toys",), StoreError, "nothing in .* matches toys"),
        (("toy", "sequence"), StoreError, "did you mean 'sequences'"),
        (("toy", "sequences", "1999.01.01"), StoreError, "no sequences@1999"),
        (("toy", "sequences", "prodction"), StoreError, "did you mean 'production'"),
        (("*", "sequences", "production"), StoreError, "expected: one data set and one artifact"),
        (("toy", "../x", "1999.01.01"), ConfigError, "no artifact can be called that"),
    ],
)
def test_verify_of_what_is_not_there_is_an_error(
    sound: Path, arguments: tuple[str, ...], kind: type[SemacdrError], message: str
):
    with pytest.raises(kind, match=message):
        verify(Store(sound), *arguments)


def test_what_dead_runs_left_is_for_prune_and_no_finding(root: Path):
    (root / ".staging" / "ingest-1-abc").mkdir(parents=True)
    (root / ".staging" / "ingest-1-abc" / "half.parquet").write_bytes(b"half")
    store = Store(root)
    store.retire_version("toy", "rejects", versions(root)[-4].name)
    assert store.staging_leftovers() != []
    assert verify(store) == []


def test_file_that_cannot_be_read_is_a_finding(root: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("semacdr.store.backends.local.file_sha256", refuse)
    findings = verify(Store(root), "toy", "rejects")
    assert len(findings) == NUM_VERSIONS
    assert all("cannot be read" in finding.problem for finding in findings)


def test_version_that_is_removed_meanwhile_is_no_finding(root: Path, monkeypatch: pytest.MonkeyPatch):
    store = Store(root)
    gone = versions(root)[-1]
    faults = store.faults
    monkeypatch.setattr(store, "faults", lambda manifest: shutil.rmtree(gone, ignore_errors=True) or faults(manifest))
    assert gone.relative_to(root).as_posix() not in {finding.path for finding in verify(store)}
    assert not gone.exists()


def test_version_that_is_published_meanwhile_is_no_finding(root: Path, monkeypatch: pytest.MonkeyPatch):
    store = Store(root)
    survey = store.survey

    def survey_and_publish(*chosen: str) -> object:
        found = survey(*chosen)
        monkeypatch.setattr(store, "survey", survey)
        publish(Store(root), "toy", ["rejects"], key=8)
        return found

    walk = store.walk
    monkeypatch.setattr(store, "survey", survey_and_publish)
    assert verify(store) == []
    assert len(walk()) > 0


def test_every_kind_of_place_is_verified_and_read_alike(lab: Lab):
    names = ["interactions", "rejects"]
    for key in range(NUM_VERSIONS):
        publish(lab.open(), "toy", names, key)
    assert verify(lab.open()) == []
    first, second = (manifest.version for manifest in lab.open().manifests("toy", "rejects"))
    damaged = f"toy/rejects/{first}/rejects.parquet"
    lab.put(damaged, lab.get(damaged).replace(b"no id", b"no ID"))
    lab.delete(f"toy/interactions/{first}/{FILE_NAME}")
    lab.put(f"toy/interactions/{second}/notes.txt", b"")
    lab.put("toy/rejects/production", b"{}")
    lab.put("toy/Photos/cat.jpg", b"")
    assert {finding.path for finding in verify(lab.open())} == {
        f"toy/rejects/{first}",
        f"toy/interactions/{first}",
        f"toy/interactions/{second}",
        "toy/rejects/production",
        "toy/Photos",
    }
    reader = semacdr.open_store(lab.uri, cache=lab.cache)
    assert reader.read("interactions").polars().equals(TABLES["interactions"])
    assert reader.read("rejects").polars().equals(TABLES["rejects"])
    with pytest.raises(StoreError):
        reader.read("rejects", version=first)
    with pytest.raises(StoreError):
        reader.read("interactions", version=first)
