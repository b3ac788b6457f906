import gzip
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
USERS = re.findall(r"user_id = '(\w+)'", (ROOT / "README.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("dataset", ["amazon-food-kitchen-mini", "amazon-food-kitchen"])
def test_users_of_the_readme_are_in_the_data_of_the_demo(dataset: str):
    assert USERS
    logs = [gzip.decompress(file.read_bytes()) for file in (ROOT / "examples" / dataset).glob("reviews_*.jsonl.gz")]
    assert logs
    for user in USERS:
        assert any(f'"{user}"'.encode() in log for log in logs), user
