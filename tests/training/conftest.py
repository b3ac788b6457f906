from pathlib import Path

import pytest
import torch

from semacdr.testing.toy import Toy, write_toy


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def toy_artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_toy(tmp_path_factory.mktemp("toy"), Toy(num_users=30, items_per_domain=20, events_per_user=8))


@pytest.fixture(scope="session")
def wide_artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """With items enough for some to be near and some to be far."""
    return write_toy(tmp_path_factory.mktemp("wide"), Toy(num_users=30, items_per_domain=60, events_per_user=8))
