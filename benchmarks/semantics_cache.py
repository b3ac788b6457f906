"""What a run costs that has nothing to ask: a million items, all of them answered before.

    python -m benchmarks.semantics_cache [--items 1000000] [--quick]

Keeps an answer for every item, then measures in a process of its own what a refreshed semantics stage does when nothing
has changed: find what is to be asked, and digest the answers that the table is made of. The first such run also copies
the journals into segments; it is shown beside the second, which is the claim's. ``--quick`` changes nothing.
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
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from semacdr.dataset import DatasetConfig
from semacdr.progress import Progress
from semacdr.semantics import Inputs, Record, Responses, answers_digest, gather, identify, load_prompt
from semacdr.semantics.items import read_item_ids, with_keys
from semacdr.settings import LlmSettings

ITEMS = 1_000_000
CPU_BAR_S = 30.0
MEMORY_BAR_MIB = 1024.0
LLM = LlmSettings(urls=("http://127.0.0.1:9/v1",), served_name="nobody-is-asked")
TEXT = "{number}: Cast Iron Skillet, 12 Inch, Pre-Seasoned, with Handle Cover. Kitchen, Cookware, Skillets. " * 3


def config() -> DatasetConfig:
    """Return a data set of one domain."""
    source = {"files": ["none"], "columns": {"user_id": "u", "item_id": "i", "timestamp": "t"}}
    return DatasetConfig.model_validate({"name": "many", "domains": {"kitchen": {"interactions": source}}})


def fill(folder: Path, count: int) -> None:
    """Write the items, some interactions, and an answer for each item."""
    for name in ("items", "interactions"):
        (folder / name).mkdir()
    texts = [TEXT.format(number=number) for number in range(count)]
    items = pl.DataFrame(
        {
            "domain": "kitchen",
            "item_id": [f"i{number:08}" for number in range(count)],
            "title": [text[:60] for text in texts],
            "brand": None,
            "categories": None,
            "text": texts,
            "text_hash": [hashlib.sha256(text.encode()).hexdigest() for text in texts],
            "has_text": True,
        },
        schema_overrides={"brand": pl.String, "categories": pl.List(pl.String)},
    )
    items.write_parquet(folder / "items" / "items.parquet")
    events = items.select("domain", "item_id", timestamp_s=pl.int_range(pl.len())).sample(count // 10, seed=0)
    events.write_parquet(folder / "interactions" / "interactions.parquet")
    responses, prompt = Responses(folder / "responses"), load_prompt(config().semantics.prompt)
    ids = with_keys(read_item_ids(folder / "items"), config(), identify(LLM), prompt)
    for key, text_hash in ids.select("key", "text_hash").iter_rows():
        responses.put(answer(key, text_hash, prompt.reference))
    responses.close()


def answer(key: str, text_hash: str, prompt: str) -> Record:
    """Return an answer of usual length."""
    texts = {"specific": f"a pan of cast iron {text_hash}" * 2, "agnostic": f"for patient people {key}" * 2}
    return Record(
        key=key,
        status="ok",
        model=identify(LLM).name,
        revision="",
        prompt=prompt,
        text_hash=text_hash,
        raw=json.dumps(texts),
        prompt_tokens=300,
        completion_tokens=60,
        spent_tokens=360,
        seconds=1.0,
        created_at="2026-01-01T00:00:00+00:00",
        fields='{"need": "comfort", "occasions": ["leisure"], "audience": "experts", "price_attitude": "saves"}',
        **texts,
    )


def rerun(folder: Path) -> dict[str, float]:
    """Do what a run does that has nothing to ask; return what it took."""
    items, interactions = folder / "items", folder / "interactions"
    responses = Responses(folder / "responses")
    report = gather(config(), LLM, Inputs(items, interactions), responses, folder, Progress())
    answers = answers_digest(config(), LLM, items, Responses(folder / "responses"))["answers"]
    assert report.asked == report.wanted == 0
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = usage.ru_utime + usage.ru_stime
    return {"answers": answers, "cpu_s": round(cpu_s, 1), "memory_mib": peak_mib()}


def peak_mib() -> int:
    """Return the most memory that this process has held; unlike ru_maxrss, nothing of the one that started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def measured(folder: Path) -> dict[str, float]:
    """Return what ``rerun`` takes in a new process."""
    started = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.semantics_cache", "--rerun", str(folder)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {**json.loads(output.splitlines()[-1]), "wall_s": round(time.monotonic() - started, 1)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rerun", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rerun:
        print(json.dumps(rerun(arguments.rerun)))
        return
    count = arguments.items
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="semacdr-cache-") as name:
        folder, started = Path(name), time.process_time()
        fill(folder, count)
        filled_s = time.process_time() - started
        size = sum(path.stat().st_size for path in (folder / "responses").glob("*.jsonl"))
        first, second = measured(folder), measured(folder)
        copied = sum(path.stat().st_size for path in (folder / "responses" / "segments").glob("*.parquet"))
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, load {load:.1f} before, {count:,} items")
    print(f"journals {size / 2**20:,.0f} MiB, segments {copied / 2**20:,.0f} MiB, written in {filled_s:.0f} s of CPU")
    print("| re-run | CPU s | wall s | peak MiB |\n| --- | --- | --- | --- |")
    for label, row in (("first, copies the journals", first), ("second", second)):
        print(f"| {label} | {row['cpu_s']} | {row['wall_s']} | {row['memory_mib']} |")
    assert second["answers"] == count
    # A smaller cache proves nothing of a million.
    holds = count >= ITEMS and second["cpu_s"] < CPU_BAR_S and second["memory_mib"] < MEMORY_BAR_MIB
    value = [second["cpu_s"], second["memory_mib"]]
    bar = [CPU_BAR_S, MEMORY_BAR_MIB]
    print(json.dumps({"benchmark": "semantics_cache", "items": count, "value": value, "bar": bar, "holds": holds}))


if __name__ == "__main__":
    main()
