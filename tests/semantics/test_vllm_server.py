"""Our server's life: with a fake vLLM that starts at once, and, marked slow, with the real one and a tiny model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import polars as pl
import pytest
from structlog.testing import capture_logs

from semacdr.errors import ConfigError, EngineError
from semacdr.progress import Progress
from semacdr.semantics import Inputs, Responses, ServerSpec, VllmServer, assemble, gather, vllm_python
from semacdr.semantics.resolve import resolve_engine, server_specs
from semacdr.semantics.vllm_server import command, environment, group_lives
from semacdr.settings import LlmSettings
from semacdr.tables import check

from .conftest import make_config, write_interactions, write_items
from .test_prompt import INJECTIONS

ROOT = Path(__file__).resolve().parents[2]

real = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not vllm_python().exists(), reason="no .venv-vllm: run make vllm-cpu"),
]

# Passes for an interpreter with vLLM: starts a child, as vLLM does its engine, and answers /health when told to.
FAKE_VLLM = """#!{python}
import http.server, os, subprocess, sys, time
if sys.argv[1] == "-c":
    sys.exit(0)
print("fake vllm", os.environ["VLLM_API_KEY"][:0] + "starts", flush=True)
mode = {mode!r}
if mode == "dies":
    sys.exit("out of memory")
subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"])
if mode == "hangs":
    time.sleep(600)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def do_POST(self):
        os._exit(3)
    def log_message(self, *a):
        pass
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def fake_spec(folder: Path, mode: str = "answers", **changes: object) -> ServerSpec:
    python = folder / "python"
    python.write_text(FAKE_VLLM.format(python=sys.executable, mode=mode))
    python.chmod(0o755)
    values = {
        "model": "owner/model",
        "revision": "",
        "served_name": "model",
        "python": python,
        "gpu": False,
        "max_model_len": 2048,
        "start_timeout_s": 20.0,
        "log_folder": folder / "logs",
    }
    return ServerSpec(**{**values, **changes})  # type: ignore[arg-type]


def members(group: int) -> list[str]:
    """The living processes of a group; zombies are as good as gone."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
        except OSError:
            continue
        state, _, pgrp = rest.split()[:3]
        if int(pgrp) == group and state not in "ZX":
            found.append(name)
    return found


def wait_until_gone(group: int, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while members(group) and time.monotonic() < until:
        time.sleep(0.05)
    assert members(group) == []


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semacdr.semantics.vllm_server.STOP_GRACE_S", 2.0)


def test_server_fake_is_ended_with_its_children_after_an_exception(tmp_path: Path):
    server = VllmServer(fake_spec(tmp_path))
    with pytest.raises(RuntimeError, match="boom"), server:  # noqa: PT012
        group = server.group
        assert len(members(group)) == 3  # the guard, the server, its child
        raise RuntimeError("boom")
    wait_until_gone(group, 0)
    assert "starts" in server.log_path.read_text()


def test_server_fake_that_never_becomes_healthy_is_ended_and_told(tmp_path: Path):
    server = VllmServer(fake_spec(tmp_path, "hangs", start_timeout_s=1.0))
    with pytest.raises(EngineError, match="did not become healthy") as raised, server:
        pass
    assert "fake vllm starts" in str(raised.value)
    assert str(server.log_path) in str(raised.value)


def test_server_fake_that_dies_at_start_is_seen_at_once(tmp_path: Path):
    started = time.monotonic()
    with pytest.raises(EngineError, match="out of memory"), VllmServer(fake_spec(tmp_path, "dies")):
        pass
    assert time.monotonic() - started < 10


def test_server_fake_that_dies_at_start_is_started_once_more(tmp_path: Path):
    server = VllmServer(fake_spec(tmp_path, "dies", restarts=3))
    with pytest.raises(EngineError, match="out of memory"), capture_logs() as logs, server:
        pass
    assert [entry["event"] for entry in logs].count("starting vLLM") == 2


def end_at_work(server: VllmServer) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.post(server.url, trust_env=False)
    assert server._process
    server._process.wait(10)


def test_server_fake_that_dies_at_work_is_started_anew_a_bounded_number_of_times(tmp_path: Path):
    with VllmServer(fake_spec(tmp_path, restarts=1)) as server:
        first = server.group
        assert server.revive(hung=False) == server.url  # alive: left as it is
        assert server.group == first
        end_at_work(server)
        url = server.revive(hung=False)
        assert httpx.get(url, trust_env=False).is_success
        wait_until_gone(first, 0)
        second = server.group
        end_at_work(server)
        with pytest.raises(EngineError, match="exit code 3") as raised:
            server.revive(hung=False)
        assert str(server.log_path) in str(raised.value)
    wait_until_gone(second, 0)


def test_server_fake_that_hangs_is_started_anew_and_one_given_up_is_not(tmp_path: Path):
    with VllmServer(fake_spec(tmp_path, restarts=5)) as server:
        first = server.group
        server.revive(hung=True)
        assert server.group != first
        server.give_up()
        with pytest.raises(EngineError, match="the run has ended"):
            server.revive(hung=True)


def test_resolve_starts_replicas_side_by_side_and_ends_them_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    spec = fake_spec(tmp_path)
    llm = LlmSettings(model=spec.model, python=spec.python, replicas=2)
    with resolve_engine(llm, tmp_path) as endpoints:
        servers = [server for server in endpoints.servers if isinstance(server, VllmServer)]
        groups = [server.group for server in servers]
        assert endpoints.urls == tuple(server.url for server in servers)
        assert len(set(endpoints.urls)) == 2
        assert all(httpx.get(url, trust_env=False).is_success for url in endpoints.urls)
    for group in groups:
        wait_until_gone(group, 0)


def test_resolve_one_replica_that_fails_ends_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    spec = fake_spec(tmp_path, "dies")
    with pytest.raises(EngineError, match="ended while it started"):  # noqa: SIM117 (one is raised by the other)
        with resolve_engine(LlmSettings(model=spec.model, python=spec.python, replicas=2), tmp_path):
            pass
    assert processes_naming(tmp_path) == []


def test_server_specs_give_each_replica_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("semacdr.semantics.resolve.gpus", lambda: ("2", "5"))
    specs = server_specs(LlmSettings(model="owner/model", replicas=0), tmp_path)
    assert [environment(spec, "")["CUDA_VISIBLE_DEVICES"] for spec in specs] == ["2", "5"]
    assert [spec.device for spec in server_specs(LlmSettings(model="owner/model"), tmp_path)] == [None]
    with pytest.raises(ConfigError, match="3 replicas, 2 GPUs"):
        server_specs(LlmSettings(model="owner/model", replicas=3), tmp_path)


PARENT = """
import sys, time
from pathlib import Path
from semacdr.semantics import ServerSpec, VllmServer
spec = ServerSpec(model=sys.argv[1], revision="", served_name="model", python=Path(sys.argv[2]), gpu=False,
                  max_model_len=2048, start_timeout_s=300, log_folder=Path(sys.argv[3]))
with VllmServer(spec) as server:
    print("group", server.group, flush=True)
    time.sleep(600)
"""


def kill_parent_and_check(model: str, python: Path, logs: Path, sign: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, model, str(python), str(logs)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as parent:
        assert parent.stdout
        line = next(line for line in parent.stdout if line.startswith("group "))
        group = int(line.split()[1])
        assert members(group)
        parent.send_signal(sign)
    wait_until_gone(group)


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_server_fake_is_ended_when_its_parent_is_killed(tmp_path: Path, sign: signal.Signals):
    spec = fake_spec(tmp_path)
    kill_parent_and_check(spec.model, spec.python, spec.log_folder, sign)


@pytest.mark.parametrize("python", ["absent/python", sys.executable])
def test_server_interpreter_without_vllm_is_a_config_error(tmp_path: Path, python: str):
    with pytest.raises(ConfigError, match="make vllm-cpu"), VllmServer(fake_spec(tmp_path, python=Path(python))):
        pass
    assert not (tmp_path / "logs").exists()


def test_server_command_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("semacdr.semantics.vllm_server.cpu_has_bfloat16", lambda: False)
    monkeypatch.setenv("PYTHONPATH", "ours")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    hub, folder = fake_spec(tmp_path), fake_spec(tmp_path, model=str(tmp_path))
    words = command(hub, 1234)
    assert {"--enforce-eager", "--no-enable-chunked-prefill"} <= set(words)
    assert words[-2:] == ["--dtype", "float32"]
    assert "--enforce-eager" not in command(fake_spec(tmp_path, gpu=True), 1234)
    assert "--revision" not in words
    at_v2 = command(fake_spec(tmp_path, revision="v2"), 1234)
    assert at_v2[at_v2.index("--revision") + 1] == at_v2[at_v2.index("--tokenizer-revision") + 1] == "v2"
    assert "--revision" not in command(fake_spec(tmp_path, revision="v2", model=str(tmp_path)), 1234)
    assert not any("secret" in word for word in words)
    variables = environment(hub, "secret")
    assert variables["VLLM_API_KEY"] == "secret"
    assert "PYTHONPATH" not in variables
    assert "HF_HUB_OFFLINE" not in variables
    assert environment(folder, "secret")["HF_HUB_OFFLINE"] == "1"
    monkeypatch.setattr("semacdr.semantics.vllm_server.cpu_has_bfloat16", lambda: True)
    assert "--dtype" not in command(hub, 1234)


def test_group_lives_tells_the_end(tmp_path: Path):
    with subprocess.Popen([sys.executable, "-c", "pass"], cwd=tmp_path, start_new_session=True) as process:
        process.wait()
    assert not group_lives(process.pid)


class TestRealServer:
    pytestmark = real

    def test_gather_and_assemble_end_to_end(self, tmp_path: Path, tiny_model: Path):
        titles = ["Cast Iron Skillet", "Green Tea, 20 Count", "long " * 400, *INJECTIONS]
        rows = [{"domain": "food", "item_id": f"f{n:02}", "title": title} for n, title in enumerate(titles)]
        write_items(tmp_path / "items", [*rows, {"domain": "films", "item_id": "m", "title": None}])
        write_interactions(tmp_path / "interactions", {("food", "f01"): 3})
        (tmp_path / "out").mkdir()
        # A token of this model is often one character, so the answers need more of them.
        config = make_config(tmp_path, max_tokens=420, budget={"items": len(titles)})
        llm = LlmSettings(model=str(tiny_model), python=vllm_python())
        responses = Responses(tmp_path / "responses")
        inputs = (Inputs(tmp_path / "items", tmp_path / "interactions"), responses, tmp_path / "cache", Progress())
        report = gather(config, llm, *inputs)
        assert report.asked == len(titles)
        assert report.accepted >= len(titles) // 2
        assert report.completion_tokens > 0
        assert not processes_naming(tiny_model)

        again = gather(config, llm.model_copy(update={"python": Path("absent")}), *inputs)
        assert (again.asked, again.reused) == (0, len(titles))
        assemble(config, llm, tmp_path / "items", responses, tmp_path / "out")
        responses.close()
        assert check("semantics", tmp_path / "out")["semantics"] == 2 * len(titles)
        table = pl.read_parquet(tmp_path / "out" / "semantics.parquet")
        generated = table.filter(source="generated")
        assert generated["model"].str.starts_with("tiny-llm@").all()
        # A random model keeps few of the rules; each text of it that is not kept is in the audit.
        audit = pl.read_parquet(tmp_path / "out" / "semantics_audit.parquet").filter(action="fallback")
        replaced = audit.unique(["domain", "item_id", "view"]).height
        assert generated.height == table.height - replaced >= 2

    def test_server_is_ended_after_an_exception(self, tmp_path: Path, tiny_model: Path):
        server = VllmServer(fake_spec(tmp_path, model=str(tiny_model), python=vllm_python(), start_timeout_s=300.0))
        with pytest.raises(RuntimeError, match="boom"), server:  # noqa: PT012
            group = server.group
            models = httpx.get(f"{server.url}/models", headers={"Authorization": f"Bearer {server.api_key}"})
            assert models.json()["data"][0]["id"] == "model"
            assert httpx.get(f"{server.url}/models").status_code == 401
            raise RuntimeError("boom")
        wait_until_gone(group, 0)

    def test_server_is_ended_when_its_parent_is_killed(self, tmp_path: Path, tiny_model: Path):
        kill_parent_and_check(str(tiny_model), vllm_python(), tmp_path / "logs", signal.SIGKILL)

    def test_server_with_broken_weights_is_an_engine_error(self, tmp_path: Path, tiny_model: Path):
        broken = tmp_path / "broken"
        broken.mkdir()
        for file in tiny_model.iterdir():
            (broken / file.name).write_bytes(file.read_bytes()[: 5_000 if file.suffix == ".safetensors" else None])
        server = VllmServer(fake_spec(tmp_path, model=str(broken), python=vllm_python(), start_timeout_s=300.0))
        with pytest.raises(EngineError, match="ended while it started") as raised, server:
            pass
        assert str(server.log_path) in str(raised.value)
        assert not processes_naming(broken)

    def test_server_that_is_not_healthy_in_time_is_ended(self, tmp_path: Path, tiny_model: Path):
        server = VllmServer(fake_spec(tmp_path, model=str(tiny_model), python=vllm_python(), start_timeout_s=1.0))
        with pytest.raises(EngineError, match="did not become healthy"), server:
            pass
        assert not processes_naming(tiny_model)


def processes_naming(folder: Path) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
