"""Asks the LLM about the items that have no text yet, most-interacted first, within the run's budget.

Answers go to the response cache as they arrive, so a run that ends early, by budget, by fault or by SIGKILL, has
lost nothing but what was in flight.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import structlog

from semacdr.dataset import Budget, DatasetConfig
from semacdr.errors import MAX_EXAMPLES, StoreError
from semacdr.progress import Progress, Task
from semacdr.semantics.ask import Asker
from semacdr.semantics.engine import Engine, UnansweredError
from semacdr.semantics.items import decoding_of
from semacdr.semantics.models import ModelIdentity, identify
from semacdr.semantics.openai_engine import OpenAiEngine
from semacdr.semantics.resolve import resolve_engine
from semacdr.semantics.responses import Record, Responses
from semacdr.semantics.selection import Inputs, Selection, plan, select
from semacdr.settings import LlmSettings

log = structlog.get_logger()

_MEAN_OF = 32
"""Answers that the expected time of the next one looks back on."""


@dataclass(frozen=True, kw_only=True)
class GatherReport:
    """What one run asked, got and spent."""

    imported: int = 0
    """Items whose texts come from a file."""
    reused: int = 0
    """Items that were answered before."""
    wanted: int = 0
    """Different item texts without an answer."""
    asked: int = 0
    accepted: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)
    """By reason, after the second try."""
    left_out: int = 0
    """Wanted, but beyond the budget, or not answered while others were: first in the next run."""
    left_out_first: tuple[str, ...] = ()
    stopped_by: str | None = None
    """``items``, ``tokens`` or ``minutes``: the limit of the budget that was met."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    """From the first request to the last answer; a server's start is not in it."""

    @property
    def tokens_per_s(self) -> float:
        """Completion tokens a second."""
        return self.completion_tokens / self.seconds if self.seconds else 0.0


def gather(
    config: DatasetConfig,
    llm: LlmSettings,
    inputs: Inputs,
    responses: Responses,
    cache: Path,
    progress: Progress,
) -> GatherReport:
    """Fill the response cache; when nothing is wanted no engine is started.

    Args:
        config: the data set.
        llm: who is asked.
        inputs: the artifacts that are read.
        responses: where answers are kept.
        cache: where the default model lies and server logs go.
        progress: shows items, tokens and failures.

    Raises:
        ConfigError: a setting, prompt or import file is wrong, or there is no engine to start.
        EngineError: no item can be answered; what was answered before is kept.
        TransientError: the engine went away; what was answered before is kept.
        StoreError: answers cannot be kept.
    """
    with select(config, llm, inputs, responses, cache) as selection:
        run = _Run(config, identify(llm), responses, selection)
        if run.may_start():
            expected = plan(config, llm, responses, selection)
            log.info(
                "semantics planned", **{name: value for name, value in asdict(expected).items() if value is not None}
            )
            with resolve_engine(llm, cache) as endpoints, progress.task("semantics", run.planned) as task:
                engine = OpenAiEngine(endpoints, decoding_of(config), llm)
                try:
                    with _rare_garbage_collection():
                        asyncio.run(_with(engine, run, task))
                finally:
                    responses.close()
        report = run.report()
    log.info("semantics gathered", **asdict(report), tokens_per_s=round(report.tokens_per_s, 1))
    return report


@contextmanager
def _rare_garbage_collection() -> Iterator[None]:
    """Look for cycles a hundredth as often, and among new objects alone: a seventh of a request's CPU otherwise."""
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(100 * usual[0], *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()


async def _with(engine: OpenAiEngine, run: _Run, task: Task) -> None:
    async with engine:
        await run.ask_all(engine, engine.in_flight_limit, task)


class _Run:
    """One run over the wanted items: what is taken next, what was spent, what came of it."""

    def __init__(self, config: DatasetConfig, model: ModelIdentity, responses: Responses, selection: Selection) -> None:
        self.settings = config.semantics
        self.budget: Budget = config.semantics.budget
        self.asker = Asker(config, model)
        self.selection = selection
        self.responses = responses
        self.wanted = selection.wanted
        self.planned = self.wanted if self.budget.items is None else min(self.wanted, self.budget.items)
        self.taken = self.done = self.accepted = 0
        self.failed: Counter[str] = Counter()
        self.unanswered: list[str] = []
        self._to_keep: list[Record] = []
        self._kept: asyncio.Future[None] | None = None
        self.started = self.ended = 0.0
        self._item_s = 0.0
        """Of the latest answers, a moving mean."""
        self.stopped_by: str | None = "items" if self.planned < self.wanted else None

    def may_start(self) -> bool:
        """Tell whether there is anything to ask, and anything to spend."""
        if self.planned and 0 in (self.budget.tokens, self.budget.minutes):
            self.stopped_by = "tokens" if self.budget.tokens == 0 else "minutes"
            return False
        return self.planned > 0

    async def ask_all(self, engine: Engine, limit: int, task: Task) -> None:
        """Ask with at most ``limit`` items in flight: as many workers draw from one stream."""
        self.started = time.monotonic()
        rows = self._rows()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(limit, self.planned)):
                    group.create_task(self._work(engine, rows, task))
        except BaseExceptionGroup as faults:
            raise faults.exceptions[0] from None
        finally:
            self.ended = time.monotonic()

    def _rows(self) -> Iterator[dict[str, Any]]:
        for batch in self.selection.texts(stop=self.planned):
            yield from batch.iter_rows(named=True)

    async def _work(self, engine: Engine, rows: Iterator[dict[str, Any]], task: Task) -> None:
        while True:
            # Drawn only when it can be sent at once, so that a budget of minutes has no queue to wait for.
            await engine.room()
            if not self._affords_another() or (row := next(rows, None)) is None:
                return
            self.taken += 1
            try:
                record = await self.asker.ask(engine, row)
            except UnansweredError as error:
                self.unanswered.append(f"{row['domain']}/{row['item_id']}")
                log.warning("item left to the next run", item=self.unanswered[-1], error=str(error))
                continue
            await self._keep(record)
            self.done += 1
            self._item_s += (record.seconds - self._item_s) / min(self.done, _MEAN_OF)
            if record.accepted:
                self.accepted += 1
            else:
                self.failed[record.reason or ""] += 1
            elapsed_s = time.monotonic() - self.started
            task.advance(
                1, tokens_per_s=round(self.asker.completion_tokens / elapsed_s, 1), failed=sum(self.failed.values())
            )

    async def _keep(self, record: Record) -> None:
        """Return when the record is kept, together with those that came at the same time: one write for all."""
        if self._kept is None:
            self._kept = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(self._flush)
        self._to_keep.append(record)
        await asyncio.shield(self._kept)

    def _flush(self) -> None:
        assert self._kept is not None
        kept, records = self._kept, self._to_keep
        self._kept, self._to_keep = None, []
        try:
            self.responses.put(*records)
        except StoreError as error:
            kept.set_exception(error)
        else:
            kept.set_result(None)

    def _affords_another(self) -> bool:
        """Tell whether the budget has room for one more item beside those in flight."""
        minutes, tokens = self.budget.minutes, self.budget.tokens
        # What would be answered too late is not begun: a full queue may take a minute to drain.
        if minutes is not None and time.monotonic() - self.started + self._item_s >= minutes * 60:
            self.stopped_by = "minutes"
            return False
        if tokens is not None:
            spent = self.asker.prompt_tokens + self.asker.completion_tokens
            an_item = spent / self.done if self.done else self.settings.max_tokens
            in_flight = self.taken - self.done - len(self.unanswered)
            if spent + in_flight * an_item >= tokens:
                self.stopped_by = "tokens"
                return False
        return True

    def report(self) -> GatherReport:
        """Return what came of the run."""
        names = [*self.unanswered, *self.selection.names(self.taken, MAX_EXAMPLES)]
        return GatherReport(
            imported=self.selection.imported,
            reused=self.selection.reused,
            wanted=self.wanted,
            asked=self.done,
            accepted=self.accepted,
            failed=dict(sorted(self.failed.items())),
            left_out=self.wanted - self.done,
            left_out_first=tuple(names[:MAX_EXAMPLES]),
            stopped_by=self.stopped_by if self.taken < self.wanted else None,
            prompt_tokens=self.asker.prompt_tokens,
            completion_tokens=self.asker.completion_tokens,
            seconds=round(self.ended - self.started, 3),
        )
