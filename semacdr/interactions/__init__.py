"""Raw logs of any number of domains to three tables: interactions, items, and the records that were not accepted."""

from semacdr.interactions.guess import describe
from semacdr.interactions.ingest import DESCRIBED_BY, ingest, no_items
from semacdr.interactions.sources import check_raw_files, raw_files, same_raw_files

__all__ = ["DESCRIBED_BY", "check_raw_files", "describe", "ingest", "no_items", "raw_files", "same_raw_files"]
