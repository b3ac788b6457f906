from pathlib import Path

import pytest
import torch

from semacdr.dataset import Split, Training
from semacdr.progress import Progress
from semacdr.testing.toy import Toy, write_toy
from semacdr.training import Run, train

OVERRIDES = {
    "dim": 16,
    "num_blocks": 1,
    "batch_users": 16,
    "max_epochs": 6,
    "learning_rate": 1e-2,
    "or_mixed_alone": False,
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Toy artifacts of two domains, with a checkpoint trained on them."""
    folder = tmp_path_factory.mktemp("toy")
    made = write_toy(folder, Toy(num_users=48, items_per_domain=40, events_per_user=10))
    train(Training(overrides=OVERRIDES), Split(max_length=20), made, folder / "checkpoint", Run(1), Progress())
    return made | {"checkpoint": folder / "checkpoint"}
