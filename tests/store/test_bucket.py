"""What only a bucket can go wrong with: permissions, other machines, files that are kept here."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from semacdr.errors import SemacdrError, StoreError, TransientError
from semacdr.semantics.responses import Record, Responses
from semacdr.store import Store
from semacdr.store import store as store_module
from tests.processes import free_port
from tests.s3 import S3Server
from tests.store.actions import EVENTS, publish
from tests.store.conftest import Bucket

AsUser = Callable[[dict[str, str]], None]


def elsewhere(bucket: Bucket, tmp_path: Path) -> Store:
    """Return the store as another machine opens it."""
    return Store(bucket.uri, tmp_path / "other cache")


def test_reader_without_write_permission_reads_and_cannot_publish(
    bucket: Bucket, s3_server: S3Server, as_user: AsUser, tmp_path: Path
):
    publish(bucket.open())
    as_user(s3_server.reader)
    store = elsewhere(bucket, tmp_path)
    assert store.get("toy", "interactions").scan().collect().equals(EVENTS)
    with pytest.raises(StoreError, match="no permission for the store"):
        publish(store, key=2)
    with pytest.raises(StoreError, match="no permission for the store"):
        store.remove_version("toy", "interactions", publish_second(bucket, s3_server, as_user))


def publish_second(bucket: Bucket, s3_server: S3Server, as_user: AsUser) -> str:
    """Publish two versions as the owner, and return the one that no alias holds."""
    as_user(s3_server.owner)
    version = publish(bucket.open(), key=3)
    publish(bucket.open(), key=4)
    as_user(s3_server.reader)
    return version


def refusal(action: Callable[[], object], kind: type[SemacdrError], match: str, secrets: dict[str, str]) -> None:
    with pytest.raises(kind, match=match) as error:
        action()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert secrets[name] not in str(error.value)
    assert error.value.__cause__ is None


def test_unknown_keys_are_one_clear_error(bucket: Bucket, s3_server: S3Server, as_user: AsUser):
    publish(bucket.open())
    as_user(s3_server.stranger)
    for action in (lambda: bucket.open().manifests(), lambda: bucket.open().get("toy", "interactions")):
        refusal(action, StoreError, "InvalidAccessKeyId", s3_server.stranger)


def test_bucket_that_does_not_exist_is_one_clear_error(s3_server: S3Server, as_user: AsUser, tmp_path: Path):
    as_user(s3_server.reader)
    store = Store("s3://no-such-bucket/store", tmp_path)
    refusal(store.manifests, StoreError, "there is no bucket 'no-such-bucket'", s3_server.reader)


def test_endpoint_that_does_not_answer_may_pass_by_itself(
    s3_server: S3Server, as_user: AsUser, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    as_user(s3_server.owner)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    store = Store("s3://bucket/store", tmp_path)
    refusal(store.manifests, TransientError, "does not answer as it should", s3_server.owner)
    refusal(lambda: publish(store), TransientError, "does not answer as it should", s3_server.owner)


def test_no_key_is_written_into_the_store(bucket: Bucket, s3_server: S3Server):
    store = bucket.open()
    publish(store)
    held = b"".join(bucket.get(key) for key in bucket.list())
    held += b"".join(path.read_bytes() for path in store.root.rglob("*") if path.is_file())
    assert s3_server.owner["AWS_SECRET_ACCESS_KEY"].encode() not in held
    assert s3_server.endpoint.encode() not in held


def test_files_are_brought_once_and_only_when_they_are_used(bucket: Bucket, tmp_path: Path):
    version = publish(bucket.open())
    store = elsewhere(bucket, tmp_path)
    artifact = store.get("toy", "interactions")
    assert not list(store.root.rglob("*.parquet"))
    assert artifact.scan().collect().equals(EVENTS)
    bucket.delete(f"toy/interactions/{version}/interactions.parquet")
    assert elsewhere(bucket, tmp_path).get("toy", "interactions").scan().collect().equals(EVENTS)


def test_broken_object_is_refused_before_it_is_used(bucket: Bucket, tmp_path: Path):
    version = publish(bucket.open())
    key = f"toy/interactions/{version}/interactions.parquet"
    whole = bucket.get(key)
    bucket.put(key, whole[:-1] + b"x")
    store = elsewhere(bucket, tmp_path)
    with pytest.raises(StoreError, match="is broken"):
        _ = store.get("toy", "interactions").path
    bucket.delete(key)
    with pytest.raises(StoreError, match="is missing"):
        _ = store.get("toy", "interactions").path
    assert not list(store.root.rglob("*.parquet"))
    assert store.staging_leftovers() == []
    bucket.put(key, whole)
    assert store.get("toy", "interactions").scan().collect().equals(EVENTS)


def test_version_made_again_elsewhere_is_brought_again(bucket: Bucket, tmp_path: Path):
    other = elsewhere(bucket, tmp_path)
    first = publish(other, key=1)
    publish(other, key=2, version="2020.01.01")
    other.move_alias("toy", "interactions", "current", first)
    assert len(other.get("toy", "interactions", "2020.01.01").scan().collect()) == 2
    bucket.open().remove_version("toy", "interactions", "2020.01.01")
    publish(bucket.open(), EVENTS.head(1), key=3, version="2020.01.01")
    assert len(other.get("toy", "interactions", "2020.01.01").scan().collect()) == 1


def test_claim_of_a_dead_publisher_costs_a_number_and_is_removed(bucket: Bucket):
    version = publish(bucket.open())
    bucket.put(f".staging/claims/toy/interactions/{version}.1", b"{}")
    bucket.put(f"toy/interactions/{version}.1/interactions.parquet", b"half")
    store = bucket.open()
    assert publish(store, key=2) == f"{version}.2"
    (claim,) = store.staging_leftovers()
    assert claim.kind == "claim"
    store.remove_leftover(claim)
    assert store.staging_leftovers() == []
    assert not [key for key in bucket.list() if f"/{version}.1/" in key]


def test_catalog_replaced_by_another_machine_meanwhile_is_written_again(bucket: Bucket, tmp_path: Path):
    store, other = bucket.open(), elsewhere(bucket, tmp_path)
    written: list[int] = []

    def write(path: Path) -> None:
        written.append(len(written))
        if len(written) == 1:
            other.replace_catalog(lambda path: path.write_bytes(b"theirs"))
        path.write_bytes(f"ours {len(written)}".encode())

    store.replace_catalog(write)
    assert bucket.get("catalog.duckdb") == b"ours 2"
    assert other.catalog.read_bytes() == b"ours 2"


def record(number: int) -> Record:
    return Record(key=f"{number:064x}", status="ok", model="m", revision="", prompt="p", text_hash="t")


def test_answers_are_shared_between_machines_also_after_a_failure(bucket: Bucket, tmp_path: Path):
    store, other = bucket.open(), elsewhere(bucket, tmp_path)
    responses = Responses(store.responses)

    def gather_and_fail() -> None:
        with store.gathering_responses():
            responses.put(record(1))
            raise RuntimeError("the engine died")

    with pytest.raises(RuntimeError, match="the engine died"):
        gather_and_fail()
    assert set(Responses(other.responses).get([record(1).key])) == {record(1).key}
    with store.gathering_responses():
        responses.put(record(2))
    responses.close()
    with other.gathering_responses():
        answers = Responses(other.responses)
        assert len(answers.answered([record(1).key, record(2).key])) == 2
        answers.put(record(3))
        answers.close()
    assert (
        len(Responses(elsewhere(bucket, tmp_path / "third").responses).answered(record(n).key for n in (1, 2, 3))) == 3
    )
    assert len([key for key in bucket.list() if key.startswith("responses/")]) == 2


def test_answers_reach_the_bucket_while_they_are_gathered(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What a machine that is lost has asked for is not lost with it."""
    monkeypatch.setattr(store_module, "PUSH_EVERY_S", 0.05)
    store = bucket.open()
    responses = Responses(store.responses)
    with store.gathering_responses():
        responses.put(record(1))
        seen_from = (elsewhere(bucket, tmp_path / str(number)) for number in range(200))
        assert any(Responses(other.responses).answered([record(1).key]) or time.sleep(0.05) for other in seen_from)
    responses.close()


def test_service_that_ignores_conditions_is_refused(bucket: Bucket, monkeypatch: pytest.MonkeyPatch):
    import obstore  # noqa: PLC0415

    put = obstore.put

    def put_always(store: object, key: str, data: object, **_: object) -> object:
        return put(store, key, data)  # type: ignore[arg-type]

    monkeypatch.setattr(obstore, "put", put_always)
    with pytest.raises(StoreError, match="overwrites what it must not"):
        publish(bucket.open())


def test_copy_that_a_power_cut_left_short_is_brought_anew(bucket: Bucket):
    publish(bucket.open())
    path = bucket.open().get("toy", "interactions").path / "interactions.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    assert bucket.open().get("toy", "interactions").scan().collect().equals(EVENTS)
