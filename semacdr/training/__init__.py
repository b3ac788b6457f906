"""Training: from sequences, items and text vectors to a checkpoint."""

from semacdr.training.stage import train

__all__ = ["train"]
