from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from semacdr.errors import StoreError
from semacdr.semantics import responses as responses_module
from semacdr.semantics.responses import MAX_RAW_CHARS, Record, Responses


def record(number: int, **changes: object) -> Record:
    values = {
        "key": f"{number:064x}",
        "status": "ok",
        "model": "m",
        "revision": "r",
        "prompt": "dual-view@1",
        "text_hash": "h",
        "specific": f"a specific text of item {number}",
        "agnostic": "an agnostic text, naïve, 日本語",
        "created_at": "2026-01-01T00:00:00+00:00",
    }
    return Record(**{**values, **changes})  # type: ignore[arg-type]


def keys(*numbers: int) -> list[str]:
    return [f"{number:064x}" for number in numbers]


def filled(folder: Path, count: int = 5) -> Path:
    responses = Responses(folder)
    for number in range(count):
        responses.put(record(number))
    responses.close()
    return next(folder.glob("*.jsonl"))


def test_responses_put_are_read_back_by_any_process(tmp_path: Path):
    writer = Responses(tmp_path / "responses")
    writer.put(record(1, prompt_tokens=7, calls=2, spent_tokens=99, raw="x"))
    writer.put(record(2, status="failed", reason="not JSON", specific=None, agnostic=None))
    for reader in (writer, Responses(tmp_path / "responses")):
        assert reader.answered(keys(1, 2, 3)) == set(keys(1, 2))
        found = reader.get(keys(1, 2, 3))
        assert found[keys(1)[0]] == record(1, prompt_tokens=7, calls=2, spent_tokens=99, raw="x")
        assert found[keys(2)[0]].reason == "not JSON"
    writer.close()


def test_responses_of_another_process_are_seen_while_it_writes(tmp_path: Path):
    reader, writer = Responses(tmp_path), Responses(tmp_path)
    for number in range(3):
        writer.put(record(number))
        assert reader.answered(keys(0, 1, 2)) == set(keys(*range(number + 1)))
    writer.close()


def test_responses_lines_are_plain_json_with_the_raw_text_bounded(tmp_path: Path):
    responses = Responses(tmp_path)
    responses.put(record(1, raw="\ud800" + "y" * 9_000))  # a lone surrogate, as a broken answer may hold
    responses.close()
    line = json.loads(next(tmp_path.glob("*.jsonl")).read_text(encoding="ascii"))
    assert len(line["raw"]) == MAX_RAW_CHARS
    assert line["agnostic"] == record(1).agnostic


@pytest.mark.parametrize("position", [0, 20, 100, 200, -3])
def test_responses_flipped_bit_costs_that_answer_only(tmp_path: Path, position: int):
    journal = filled(tmp_path)
    lines = journal.read_bytes().splitlines(keepends=True)
    damaged = bytearray(lines[2])
    damaged[position] ^= 1
    journal.write_bytes(b"".join([*lines[:2], bytes(damaged), *lines[3:]]))
    responses = Responses(tmp_path)
    with capture_logs() as logs:
        assert responses.answered(keys(*range(5))) == set(keys(0, 1, 3, 4))
        assert responses.answered(keys(0)) == set(keys(0))
    assert [(entry["log_level"], entry["lines"]) for entry in logs] == [("warning", 1)]


def test_responses_flipped_line_end_costs_the_two_joined_lines(tmp_path: Path):
    journal = filled(tmp_path)
    data = bytearray(journal.read_bytes())
    data[data.index(b"\n")] ^= 1
    journal.write_bytes(bytes(data))
    assert Responses(tmp_path).answered(keys(*range(5))) == set(keys(2, 3, 4))


def test_responses_truncated_journal_keeps_whole_lines_and_takes_new_ones(tmp_path: Path):
    journal = filled(tmp_path)
    os.truncate(journal, journal.stat().st_size - 20)
    responses = Responses(tmp_path)
    with capture_logs() as logs:
        assert responses.answered(keys(*range(5))) == set(keys(0, 1, 2, 3))
        responses.put(record(4))
        assert responses.answered(keys(4)) == set(keys(4))
    responses.close()
    assert [entry["lines"] for entry in logs] == [1]


def test_responses_accepted_answer_wins_over_failed_whichever_came_first(tmp_path: Path):
    failed = {"status": "failed", "reason": "not JSON"}
    first, second = Responses(tmp_path), Responses(tmp_path)
    first.put(record(1, **failed))
    first.put(record(2))
    second.put(record(1))
    second.put(record(2, **failed))
    assert [entry.status for entry in Responses(tmp_path).get(keys(1, 2)).values()] == ["ok", "ok"]
    first.close()
    second.close()


def test_responses_put_from_many_threads_are_all_kept(tmp_path: Path):
    responses = Responses(tmp_path)

    def put_some(start: int) -> None:
        for number in range(start, start + 50):
            responses.put(record(number))

    threads = [threading.Thread(target=put_some, args=(start,)) for start in range(0, 400, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(responses.answered(keys(*range(400)))) == 400
    responses.close()


def test_responses_digest_depends_on_texts_not_on_time():
    assert record(1, seconds=3.0, created_at="later").digest == record(1).digest
    assert record(1, agnostic="another text").digest != record(1).digest


def test_responses_survive_sigkill(tmp_path: Path):
    script = (
        "import sys, pathlib, tests.semantics.test_responses as t\n"
        "r = t.Responses(pathlib.Path(sys.argv[1]))\n"
        "for n in range(10**6):\n    r.put(t.record(n)); print(n, flush=True)\n"
    )
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=root
    ) as writer:
        assert writer.stdout
        for line in writer.stdout:
            if int(line) >= 20:
                break
        writer.send_signal(signal.SIGKILL)
    assert len(Responses(tmp_path).answered(keys(*range(21)))) == 21


def test_responses_full_disk_is_a_store_error_and_loses_nothing(tmp_path: Path):
    responses = Responses(tmp_path)
    responses.put(record(1))
    journal = next(tmp_path.glob("*.jsonl"))
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The kernel writes up to the limit and then refuses: what a disk does that fills up within a line.
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.stat().st_size + 50, limits[1]))
    try:
        with pytest.raises(StoreError, match="make room"):
            responses.put(record(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    responses.put(record(3))
    with capture_logs() as logs:
        assert Responses(tmp_path).answered(keys(1, 2, 3)) == set(keys(1, 3))
    assert logs == []
    responses.close()


def test_responses_folder_that_is_a_file_is_a_store_error(tmp_path: Path):
    (tmp_path / "responses").write_text("")
    with pytest.raises(StoreError, match="cannot be kept"):
        Responses(tmp_path / "responses").put(record(1))


def segments(folder: Path) -> list[Path]:
    return sorted((folder / "segments").glob("*.parquet"))


def test_responses_finished_journals_are_copied_once_and_read_from_the_copy(tmp_path: Path):
    journal = filled(tmp_path)
    assert segments(tmp_path) == []
    first = Responses(tmp_path).get(keys(*range(5)))
    (segment,) = segments(tmp_path)
    before = segment.stat().st_mtime_ns
    assert Responses(tmp_path).get(keys(*range(5))) == first == {key: record(int(key, 16)) for key in keys(*range(5))}
    assert segments(tmp_path)[0].stat().st_mtime_ns == before
    journal.unlink()  # who deletes a journal wants its items asked again
    assert Responses(tmp_path).answered(keys(*range(5))) == set()


def test_responses_digest_is_the_same_from_journal_and_copy(tmp_path: Path):
    writer = Responses(tmp_path)
    for number in range(5):
        writer.put(record(number))
    alive = Responses(tmp_path).digest(keys(*range(7)))
    writer.close()
    assert Responses(tmp_path).digest(keys(*range(7))) == alive
    assert alive[0] == 5
    assert len(segments(tmp_path)) == 1


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_responses_damaged_copy_is_made_again_and_loses_nothing(tmp_path: Path, damage: str):
    filled(tmp_path)
    Responses(tmp_path).answered(keys(0))
    (segment,) = segments(tmp_path)
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes({"flipped": bytes(data), "cut": bytes(data[:-40]), "empty": b""}[damage])
    with capture_logs() as logs:
        assert Responses(tmp_path).answered(keys(*range(5))) == set(keys(*range(5)))
    assert [entry["log_level"] for entry in logs] == ["warning"]
    assert len(segments(tmp_path)) == 1


def test_responses_journal_cut_after_it_was_copied_costs_its_cut_lines(tmp_path: Path):
    journal = filled(tmp_path)
    Responses(tmp_path).answered(keys(0))
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:3]) + lines[3][:50])
    with capture_logs() as logs:
        assert Responses(tmp_path).answered(keys(*range(5))) == set(keys(0, 1, 2))
    assert [entry["lines"] for entry in logs] == [1]
    assert len(segments(tmp_path)) == 1


def test_responses_without_room_for_copies_are_read_as_they_are(tmp_path: Path):
    filled(tmp_path)
    (tmp_path / "segments").write_text("a file where the folder should be")
    assert Responses(tmp_path).answered(keys(*range(6))) == set(keys(*range(5)))


def test_responses_writer_goes_on_in_a_new_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("semacdr.semantics.responses.JOURNAL_BYTES", 1_000)
    filled(tmp_path, 10)
    assert len(list(tmp_path.glob("*.jsonl"))) > 2
    assert len(Responses(tmp_path).answered(keys(*range(10)))) == 10


def test_responses_many_processes_that_copy_at_once_agree(tmp_path: Path):
    for number in range(4):
        writer = Responses(tmp_path)
        writer.put(record(number), record(number + 100))
        writer.close()
    script = (
        "import sys, pathlib, tests.semantics.test_responses as t\n"
        "print(len(t.Responses(pathlib.Path(sys.argv[1])).answered(t.keys(*range(200)))))\n"
    )
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", script, str(tmp_path)]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(3)]
    assert [reader.communicate()[0] for reader in readers] == ["8\n"] * 3
    assert len(segments(tmp_path)) == 4
    assert not list((tmp_path / "segments").glob(".*"))


def test_a_reader_that_looks_at_a_new_journal_does_not_stop_its_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[int] = []
    monkeypatch.setattr(responses_module.fcntl, "flock", lambda _, operation: asked.append(operation))
    responses = Responses(tmp_path / "responses")
    responses.put(record(1))
    responses.close()
    # Waits for those who look, who never wait for a writer.
    assert asked[0] == responses_module.fcntl.LOCK_EX
