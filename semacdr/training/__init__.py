"""Training: from sequences, items and text vectors to a checkpoint."""

from semacdr.training.compute import Compute
from semacdr.training.stage import Run, train

__all__ = ["Compute", "Run", "train"]
