"""Evaluation: tasks of a protocol, the floors, ranks and metrics of models, and what separates two of them."""

from semacdr.evaluation.age import much_the_same
from semacdr.evaluation.stage import evaluate

__all__ = ["evaluate", "much_the_same"]
