"""Interactions to one time-ordered history per user, marked by the global temporal split."""

from semacdr.sequences.histories import build

__all__ = ["build"]
