"""Progress as a Prefect artifact: the numbers of a terminal's bar, on the page of the run."""

from __future__ import annotations

import contextvars
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import structlog
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from semacdr.progress import Progress, Task

log = structlog.get_logger()

EVERY_S = 5.0


class PrefectProgress(Progress):
    """Shows each task as a progress artifact of the run, beside another display.

    Args:
        beside: the other display.
        every_s: how often the artifact is brought up to date.
    """

    def __init__(self, beside: Progress, every_s: float = EVERY_S) -> None:
        self.beside = beside
        self.every_s = every_s

    @contextmanager
    def task(self, label: str, total: float | None = None) -> Iterator[Task]:
        """Open a task that is shown until the block ends; a server that fails costs the picture, not the run."""
        with self.beside.task(label, total) as shown:
            task = _Shown(shown, label, total)
            over = threading.Event()
            # A thread, for a stage may be inside an event loop; with this run's context, which names the task run.
            arguments = (_show, task, over, self.every_s)
            thread = threading.Thread(target=contextvars.copy_context().run, args=arguments, daemon=True)
            thread.start()
            try:
                yield task
            finally:
                over.set()
                thread.join()


class _Shown(Task):
    def __init__(self, beside: Task, label: str, total: float | None) -> None:
        self.beside = beside
        self.label = label
        self.total = total
        self.done = 0.0
        self.facts: dict[str, object] = {}
        self.started = time.monotonic()

    def advance(self, steps: float = 1, **facts: object) -> None:
        self.done += steps
        self.facts = facts
        self.beside.advance(steps, **facts)

    @property
    def percent(self) -> float:
        return min(100.0, 100 * self.done / self.total) if self.total else 0.0

    @property
    def words(self) -> str:
        """Count, rate, facts and remaining time."""
        rate = self.done / max(time.monotonic() - self.started, 1e-9)
        of = f" of {self.total:,.0f}" if self.total else ""
        words = [f"{self.done:,.0f}{of}", f"{rate:,.2f}/s", *(f"{name} {value}" for name, value in self.facts.items())]
        if self.total and rate:
            words.append(f"{max(0.0, self.total - self.done) / rate:,.0f} s left")
        return f"{self.label}: " + ", ".join(words)


def _show(task: _Shown, over: threading.Event, every_s: float) -> None:
    try:
        key = re.sub(r"[^a-z0-9]+", "-", task.label.lower()).strip("-")
        artifact = create_progress_artifact(task.percent, key=key, description=task.words)
        assert isinstance(artifact, UUID)  # a coroutine only within an event loop
        while not over.wait(every_s):
            update_progress_artifact(artifact, task.percent, description=task.words)
        update_progress_artifact(artifact, task.percent, description=task.words)
    except Exception as error:  # noqa: BLE001 (the numbers are in the log, too)
        log.warning("no Prefect artifact of the progress", error=f"{type(error).__name__}: {error}")
