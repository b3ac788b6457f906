"""The gate: whether a new checkpoint, index or set of recommendations may take the place of the one in production."""

from semacdr.gate.stage import Side, judge
from semacdr.store.promotion import GROUPS

__all__ = ["GROUPS", "Side", "judge"]
