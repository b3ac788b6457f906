"""The artifact store: publish, find, read, point at, and the DuckDB catalog over it."""

from semacdr.store.catalog import rebuild_catalog
from semacdr.store.store import CURRENT, Artifact, Draft, Store

__all__ = ["CURRENT", "Artifact", "Draft", "Store", "rebuild_catalog"]
