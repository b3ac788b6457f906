"""Raw logs of any number of domains to three tables: interactions, items, and the records that were not accepted."""

from semacdr.interactions.ingest import ingest, no_items
from semacdr.interactions.sources import check_raw_files, raw_files

__all__ = ["check_raw_files", "ingest", "no_items", "raw_files"]
