"""Training: from sequences, items and text vectors to a checkpoint."""

from semacdr.training.train import train

__all__ = ["train"]
