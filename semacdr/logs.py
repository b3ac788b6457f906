"""Logging of a process: an event and its key-values, one line each, through the standard library's loggers."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

import orjson
import structlog
from structlog.typing import Processor

LOGGER = "semacdr"


def configure_logging(
    *, level: int = logging.INFO, console: bool = False, form: Literal["auto", "console", "json"] = "auto"
) -> None:
    """Route every event to the logger ``semacdr``; called once per entry point, harmless when called again.

    Args:
        level: events below it are dropped.
        console: write to standard error here. Otherwise whoever owns the process listens to the logger: a Prefect
            worker does through ``PREFECT_LOGGING_EXTRA_LOGGERS=semacdr``.
        form: one JSON object a line, or words for people; ``auto`` is words where ``console`` is set or standard
            error is a terminal.
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
            *(_json() if form == "json" or (form == "auto" and not console and not sys.stderr.isatty()) else _words()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: logger,
        cache_logger_on_first_use=False,
    )


class JsonLines(logging.Formatter):
    """One JSON object a line, whoever logs: our events as they are, other libraries' messages as an event each.

    A Prefect worker or server takes it by ``PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER=json`` and
    ``PREFECT_LOGGING_FORMATTERS_JSON_CLASS=semacdr.logs.JsonLines``.
    """

    def __init__(self, *_: Any, **__: Any) -> None:  # noqa: ANN401 (what Prefect's configuration gives)
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        message = record.getMessage()
        if record.name == LOGGER and message.startswith("{"):
            return message
        about = {"run": getattr(record, "flow_run_id", None), "task": getattr(record, "task_run_name", None)}
        event = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": message,
            **{name: value for name, value in about.items() if value},
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return _serialize(event)


def _words() -> list[Processor]:
    return [
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=12),
    ]


def _json() -> list[Processor]:
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(serializer=_serialize),
    ]


def _serialize(event: Any, **_: Any) -> str:  # noqa: ANN401 (structlog's own signature)
    return orjson.dumps(event, default=str, option=orjson.OPT_SORT_KEYS).decode()
