"""Progress bars in a terminal, log lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichBar

from semacdr.progress import LogProgress, Progress, Task

_WIDTH_OF_A_PIPE = 160


def open_console() -> Console:
    """Return a console on standard output; wide where there is no terminal, whose width it would keep to."""
    return Console() if sys.stdout.isatty() else Console(width=_WIDTH_OF_A_PIPE)


class TerminalProgress(Progress):
    """A bar with count, facts and remaining time; the lines of ``LogProgress`` when nobody sits at a terminal."""

    def __init__(self) -> None:
        self._fallback = LogProgress()

    @contextmanager
    def task(self, label: str, total: float | None = None) -> Iterator[Task]:
        """Open a task that is drawn until the block ends."""
        if not sys.stderr.isatty():
            with self._fallback.task(label, total) as task:
                yield task
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(),
        )
        with RichBar(*columns, console=Console(stderr=True), transient=True) as bar:
            yield _Bar(bar, bar.add_task(label, total=total, facts=""))


class _Bar(Task):
    def __init__(self, bar: RichBar, task: TaskID) -> None:
        self._bar = bar
        self._task = task

    def advance(self, steps: float = 1, **facts: object) -> None:
        self._bar.update(self._task, advance=steps)
        if facts:
            self._bar.update(self._task, facts="  ".join(f"{name} {value}" for name, value in facts.items()))
