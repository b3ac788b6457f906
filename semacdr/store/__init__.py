"""The artifact store: publish, find, read, point at, and the DuckDB catalog over it."""

from semacdr.store.aliases import Move
from semacdr.store.artifact import Artifact, Draft
from semacdr.store.backends import Leftover
from semacdr.store.catalog import catalog_shows, rebuild_catalog
from semacdr.store.store import CURRENT, Store, Survey

__all__ = ["CURRENT", "Artifact", "Draft", "Leftover", "Move", "Store", "Survey", "catalog_shows", "rebuild_catalog"]
