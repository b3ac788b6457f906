"""Train by several processes, outside the pipeline: ``torchrun --nproc-per-node N -m semacdr.training ...``.

    torchrun --nproc-per-node 2 -m semacdr.training DATASET --inputs FOLDER --output FOLDER

The inputs' folder holds ``items``, ``sequences`` and ``embeddings``. Gloo on CPUs, NCCL on GPUs. Several nodes:
docs/operations.md.
"""

from pathlib import Path

import click
import torch.distributed as dist

from semacdr.dataset import load_dataset
from semacdr.manifest import fingerprint
from semacdr.progress import Progress
from semacdr.settings import load_settings
from semacdr.training.compute import Compute
from semacdr.training.stage import Run, train


@click.command()
@click.argument("dataset")
@click.option("--inputs", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--output", type=click.Path(path_type=Path), required=True)
@click.option("--threads", type=int, default=1, show_default=True, help="CPU threads of each process.")
def main(dataset: str, inputs: Path, output: Path, threads: int) -> None:
    """Train the DATASET's model and write a checkpoint."""
    settings = load_settings()
    compute = Compute.of(settings.device, bfloat16=settings.bfloat16, compiled=settings.compile)
    dist.init_process_group("nccl" if compute.device.type == "cuda" else "gloo")
    try:
        config = load_dataset(dataset, settings.datasets)
        folders = {name: inputs / name for name in ("items", "sequences", "embeddings")}
        # Of this configuration: what another one has trained is not gone on with.
        asked = {"training": config.training.model_dump(mode="json"), "split": config.split.model_dump(mode="json")}
        name = f"{output.name}.snapshots-{fingerprint(asked | {'inputs': str(inputs.resolve())})[:16]}"
        run = Run(threads, output.with_name(name), compute)
        train(config.training, config.split, folders, output, run, Progress())
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
