from pathlib import Path

import pytest
import torch

from semacdr.dataset import Split, Training
from semacdr.progress import Progress
from semacdr.testing.toy import Toy, write_toy
from semacdr.training import Run, train

TINY = {"dim": 8, "num_blocks": 1, "batch_users": 16, "max_epochs": 2, "learning_rate": 5e-3}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def toy_artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_toy(tmp_path_factory.mktemp("toy"), Toy(num_users=30, items_per_domain=20, events_per_user=8))


@pytest.fixture(scope="session")
def toy_checkpoint(toy_artifacts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("checkpoint")
    train(Training(overrides=TINY), Split(max_length=12), toy_artifacts, output, Run(1), Progress())
    return output
