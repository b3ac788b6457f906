"""Training: from sequences, items and text vectors to a checkpoint."""

from semacdr.training.stage import Run, train

__all__ = ["Run", "train"]
