"""Progress of long work. The default does nothing, so a stage reports without knowing whether anyone looks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

log = structlog.get_logger()


class Task:
    """One piece of work with a known or unknown number of steps. This one reports nothing."""

    def advance(self, steps: float = 1, **facts: object) -> None:
        """Count steps done; ``facts`` (``tokens_per_s=…``) are shown beside the bar."""


class Progress:
    """Where tasks are reported. This one reports nothing."""

    @contextmanager
    def task(self, label: str, total: float | None = None) -> Iterator[Task]:
        """Open a task of ``total`` steps (None: unknown)."""
        yield Task()


class LogProgress(Progress):
    """Logs a line with rate and remaining time every ``every_s`` seconds; needs no terminal."""

    def __init__(self, every_s: float = 10) -> None:
        self.every_s = every_s

    @contextmanager
    def task(self, label: str, total: float | None = None) -> Iterator[Task]:
        """Open a task that logs now and then."""
        yield _LoggedTask(label, total, self.every_s)


class _LoggedTask(Task):
    def __init__(self, label: str, total: float | None, every_s: float) -> None:
        self.label = label
        self.total = total
        self.every_s = every_s
        self.done = 0.0
        self.started = self.reported = time.monotonic()

    def advance(self, steps: float = 1, **facts: object) -> None:
        self.done += steps
        now = time.monotonic()
        if now - self.reported < self.every_s:
            return
        self.reported = now
        rate = self.done / (now - self.started)
        left_s = round((self.total - self.done) / rate) if self.total and rate else None
        log.info(
            "progress",
            task=self.label,
            done=round(self.done),
            total=self.total,
            per_s=round(rate, 2),
            left_s=left_s,
            **facts,
        )
