"""SemaCDR: cross-domain sequential recommendation from LLM-written item semantics, as an offline pipeline."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semacdr.reader import open_store
    from semacdr.recommendations import Recommender

# Before torch loads OpenMP: waiting threads sleep. Else two threads on cores that others use, too, wait for each other
# at full speed, and a training takes ten times as long or more (docs/log.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
__all__ = ["Recommender", "__version__", "open_store"]


def __getattr__(name: str) -> object:
    # At the first use: `import semacdr` alone, as `semacdr --version` does it, need not load polars.
    if name == "open_store":
        from semacdr.reader import open_store  # noqa: PLC0415

        return open_store
    if name == "Recommender":
        from semacdr.recommendations import Recommender  # noqa: PLC0415

        return Recommender
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
