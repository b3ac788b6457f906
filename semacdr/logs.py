"""Logging of a process: an event and its key-values, one line each, through the standard library's loggers."""

from __future__ import annotations

import logging
import sys

import structlog

LOGGER = "semacdr"


def configure_logging(*, level: int = logging.INFO, console: bool = False) -> None:
    """Route every event to the logger ``semacdr``; called once per entry point, harmless when called again.

    Args:
        level: events below it are dropped.
        console: write to standard error here. Otherwise whoever owns the process listens to the logger: a Prefect
            worker does through ``PREFECT_LOGGING_EXTRA_LOGGERS=semacdr``.
    """
    logger = logging.getLogger(LOGGER)
    logger.setLevel(level)
    if console and not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=12),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: logger,
        cache_logger_on_first_use=False,
    )
