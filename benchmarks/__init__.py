"""One script per claim: ``python -m benchmarks.NAME``; the last line of its output is one JSON object."""

import logging

from semacdr.logs import configure_logging

# Warnings go to standard error: tables stay whole.
configure_logging(level=logging.WARNING, console=True)
