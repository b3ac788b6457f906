from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from semacdr.cli import main
from semacdr.dataset import load_dataset
from semacdr.doctor import examine
from semacdr.pipeline import Context, find_stage, run_stage
from semacdr.settings import Settings
from semacdr.store import Store
from tests.processes import free_port
from tests.raw_logs import write_raw_logs
from tests.receiver import receiving


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_raw_logs(tmp_path / "raw")


@pytest.fixture
def store(toml: Path, tmp_path: Path) -> Path:
    context = Context(dataset=load_dataset(toml), settings=Settings(), store=Store(tmp_path / "store"))
    run_stage(find_stage("ingest"), context)
    return tmp_path / "store"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


COMMANDS = [
    (),
    *((name,) for name in main.commands),
    *(("catalog", name) for name in main.commands["catalog"].commands),  # type: ignore[attr-defined]
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_page_of_help(command: tuple[str, ...]):
    result = call(*command, "--help")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 6


def test_artifacts_show_and_sql_read_the_store(store: Path):
    listed = call("artifacts", "--store", store)
    assert listed.exit_code == 0
    assert "three-domains" in listed.output
    assert "interactions@" in listed.output
    shown = call("show", "items", "--store", store)
    assert '"stage": "ingest"' in shown.output
    rows = call("sql", "select domain, count(*) as n from items group by all order by all", "--csv", "--store", store)
    assert rows.output == "domain,n\nbooks,24\nfilms,24\ngames,24\n"


def test_sql_takes_a_file(store: Path, tmp_path: Path):
    (tmp_path / "query.sql").write_text("select count(*) as n from rejects")
    assert call("sql", tmp_path / "query.sql", "--csv", "--store", store).output == "n\n0\n"


def test_missing_things_end_with_one_message(store: Path, tmp_path: Path):
    cases = {
        ("show", "itms", "--store", store): (2, "did you mean 'items'"),
        ("show", "items@1999.01.01", "--store", store): (2, "no items@1999.01.01 of data set"),
        ("sql", "selct", "--store", store): (2, "DuckDB refuses the query"),
        ("sql", "select 1", "--store", tmp_path / "none"): (1, "no catalog"),
        ("artifacts", "--store", tmp_path / "none"): (1, "nothing is published"),
        ("show", "items", "--store", tmp_path / "none"): (2, "nothing is published"),
        ("run", "nowhere"): (2, "no data set 'nowhere'"),
    }
    for arguments, (code, message) in cases.items():
        result = call(*arguments)
        assert (result.exit_code, message in result.output) == (code, True), result.output
        assert "Traceback" not in result.output
        assert "do:" in result.output


def test_data_set_of_the_store_is_found_by_its_toml(store: Path, toml: Path):
    by_name, by_toml = (call("artifacts", which, "--store", store) for which in ("three-domains", toml))
    assert by_toml.exit_code == 0
    assert by_toml.output == by_name.output
    none = call("recommend", toml.parent, "--history", "books:b1", "--domain", "books", "--store", store)
    assert (none.exit_code, "no artifact 'recommendations'" in none.output) == (2, True), none.output


def test_run_with_an_unknown_stage_fails_before_any_work(toml: Path, tmp_path: Path):
    result = call("run", toml, "--only", "semantic", "--store", tmp_path / "store")
    assert result.exit_code == 2
    assert "did you mean 'semantics'" in result.output
    assert not (tmp_path / "store").exists()


def test_doctor_names_what_is_missing_and_how_to_get_it(toml: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SEMACDR_LLM__PYTHON", "/nowhere/python")
    result = call("doctor", "--dataset", toml)
    assert result.exit_code == 1
    assert "no /nowhere/python" in result.output
    assert "make vllm-cpu" in result.output
    assert "data set three-domains" in result.output


def test_doctor_tells_of_a_store_that_cannot_be_read(store: Path):
    (store / "store.json").write_text('{"layout_version": 2}')
    result = call("doctor", "--store", store)
    assert result.exit_code == 1
    (store.parent / "file").write_text("")
    assert "is no folder" in " ".join(call("doctor", "--store", store.parent / "file").output.split())
    assert "newer SemaCDR" in " ".join(result.output.split())
    assert "Traceback" not in result.output


def semacdr(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The program as a user starts it."""
    program = Path(sys.executable).with_name("semacdr")
    command = [str(program), *(str(argument) for argument in arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)


def test_run_reports_the_users_mistakes_and_exits_with_2(toml: Path, tmp_path: Path):
    """Through the real flow, in a process of its own: what breaks inside a stage."""
    log = toml.parent / "books-0.jsonl.gz"
    log.write_bytes(log.read_bytes()[:-9])
    result = semacdr("run", toml, "--only", "ingest", "--store", tmp_path / "store", cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    *_, what, found, expected, do = result.stderr.splitlines()
    assert what == "books-0.jsonl.gz is broken, or no gzip file"
    assert (found[:8], expected[:11], do[:5]) == ("  found:", "  expected:", "  do:")
    assert "Traceback" not in result.stderr + result.stdout
    assert Store(tmp_path / "store").manifests() == []


def test_interrupted_run_says_so_and_no_more(toml: Path, tmp_path: Path):
    """As a terminal does it: Prefect's own server is interrupted, too."""
    command = [Path(sys.executable).with_name("semacdr"), "run", toml, "--store", tmp_path / "store"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        lines = iter(process.stdout)
        assert any("published" in line for line in lines)
        os.killpg(process.pid, signal.SIGINT)
        after = list(lines)
    assert process.returncode == 1
    assert after[-1] == "Aborted!\n"
    assert len(after) < 5, after
    assert Store(tmp_path / "store").manifests(name="items")


def test_run_on_a_store_that_cannot_be_written_exits_with_1(toml: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    result = semacdr("run", toml, "--only", "ingest", "--store", tmp_path / "file", cwd=tmp_path)
    assert result.returncode == 1, result.stderr
    assert "cannot be written" in result.stderr
    assert "Traceback" not in result.stderr + result.stdout


def test_wrong_preset_is_found_before_anything_runs(toml: Path, tmp_path: Path):
    toml.write_text(toml.read_text().replace("max_epochs = 3", "max_epoch = 3"))
    result = call("run", toml, "--store", tmp_path / "store")
    assert result.exit_code == 2
    assert "did you mean 'max_epochs'" in result.output
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ('recommendations.availability = "price >> 3 and"', "availability is no condition"),
        ('recommendations.availability = "prize < 3"', "availability is no condition"),
        ('embeddings.encoder = "/nonexistent/model"', "no encoder at"),
        ('semantics.prompt = "dual-view@9"', "dual-view@9"),
        ('[[semantics.imports]]\nfile = "none.parquet"\nmodel = "m"', "no file 'none.parquet'"),
    ],
)
def test_what_late_stages_need_is_looked_at_before_the_first(toml: Path, tmp_path: Path, section: str, message: str):
    text = toml.read_text()
    toml.write_text(f"{section}\n{text}" if "[[" not in section else f"{text}\n{section}\n")
    result = call("run", toml, "--dry-run", "--store", tmp_path / "store")
    assert (result.exit_code, message in result.output) == (2, True), result.output


def test_run_says_where_prefect_cannot_keep_its_files(toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "file" / "prefect"))
    result = call("run", toml, "--store", tmp_path / "store")
    assert (result.exit_code, "name one by PREFECT_HOME" in result.output) == (2, True), result.output


def test_run_says_that_the_prefect_server_is_down(toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")
    result = semacdr("run", toml, "--only", "ingest", "--store", tmp_path / "store", cwd=tmp_path)
    assert result.returncode == 1
    assert "unset PREFECT_API_URL" in result.stderr
    assert "Traceback" not in result.stderr + result.stdout


@pytest.mark.parametrize(("status", "state"), [(200, "ok"), (401, "ok"), (404, "missing"), (500, "missing")])
def test_doctor_tells_a_prefect_server_from_another(monkeypatch: pytest.MonkeyPatch, status: int, state: str):
    with receiving(status=status) as other:
        monkeypatch.setenv("PREFECT_API_URL", f"{other.url}/api")
        (found,) = (one for one in examine(Settings()) if one.what == "Prefect server")
    assert found.state == state


def test_doctor_names_what_it_found_of_a_data_set(toml: Path, tmp_path: Path):
    log = toml.parent / "books-0.jsonl.gz"
    log.unlink()
    (toml.parent / "books-1.jsonl.gz").unlink()
    (found,) = (one for one in examine(Settings(store=str(tmp_path)), str(toml)) if one.what.startswith("data set"))
    assert (found.state, "did you mean 'books.jsonl.gz'" in found.found) == ("missing", True), found


def test_search_of_an_unknown_preset_starts_no_study(toml: Path, tmp_path: Path):
    result = call("tune", toml, "--model", "semcdr", "--store", tmp_path / "store")
    assert result.exit_code == 2
    assert "did you mean 'semacdr'" in result.output
    assert not (tmp_path / "store").exists()


def test_csv_of_lists_and_of_a_missing_file(store: Path, tmp_path: Path):
    rows = call("sql", "select name, inputs from artifacts order by name", "--csv", "--store", store)
    assert rows.output.splitlines()[:2] == ["name,inputs", "interactions,[]"]
    missing = call("sql", tmp_path / "nope.sql", "--store", store)
    assert missing.exit_code == 2
    assert "no query in" in missing.output
