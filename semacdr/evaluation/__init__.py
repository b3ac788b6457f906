"""Evaluation: how a checkpoint ranks what users took next, beside the baselines."""

from semacdr.evaluation.stage import evaluate

__all__ = ["evaluate"]
