"""Asks the LLM about the items that have no text yet, most-interacted first, within the run's budget.

Answers go to the response cache as they arrive, so a run that ends early, by budget, by fault or by SIGKILL, has
lost nothing but what was in flight.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import structlog

from semacdr.dataset import Budget, DatasetConfig
from semacdr.errors import MAX_EXAMPLES
from semacdr.progress import Progress, Task
from semacdr.semantics.accept import Texts, accept, copies, read_answer
from semacdr.semantics.engine import CHARS_PER_TOKEN, Answer, Engine, OpenAiEngine, RequestRefusedError
from semacdr.semantics.imports import read_imports
from semacdr.semantics.items import decoding_of, read_items, with_keys, words_of
from semacdr.semantics.models import ModelIdentity, identify
from semacdr.semantics.prompt import Messages, Prompt, clean_item_text, load_prompt
from semacdr.semantics.resolve import resolve_engine
from semacdr.semantics.responses import Record, Responses, utc_now
from semacdr.settings import LlmSettings
from semacdr.tables import table_files

log = structlog.get_logger()

REPAIR_TEMPERATURE = 0.7
"""Of the second try, at least: at temperature 0 another seed gives the same answer again."""
PROBE_TEXT = "a wooden spoon"
"""Asked when a server refuses an item before it has answered any: tells a bad item from a server that refuses all."""


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
    """Wanted, but beyond the budget: first in the next run."""
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
    items: Path,
    interactions: Path,
    responses: Responses,
    cache: Path,
    progress: Progress,
) -> GatherReport:
    """Fill the response cache; when nothing is wanted no engine is started.

    Args:
        config: the data set.
        llm: who is asked.
        items: folder of the ``items`` artifact.
        interactions: folder of the ``interactions`` artifact; says which items come first.
        responses: where answers are kept.
        cache: where the default model lies and server logs go.
        progress: shows items, tokens and failures.

    Raises:
        ConfigError: a setting, prompt or import file is wrong, or there is no engine to start.
        EngineError: no item can be answered; what was answered before is kept.
        TransientError: the engine went away; what was answered before is kept.
        StoreError: answers cannot be kept.
    """
    prompt = load_prompt(config.semantics.prompt)
    model = identify(llm)
    with_text, _ = read_items(items)
    imported = read_imports(config, with_text).frame
    open_items = with_keys(with_text, config, model, prompt).join(imported, on=["domain", "item_id"], how="anti")
    answered = responses.answered(open_items["key"])
    unanswered = open_items.filter(~pl.col("key").is_in(list(answered)))
    wanted = _most_interacted_first(unanswered, interactions).unique("key", keep="first", maintain_order=True)
    reused = open_items.height - unanswered.height
    run = _Run(config, prompt, model, responses, wanted)
    if run.may_start():
        with resolve_engine(llm, cache) as endpoints, progress.task("semantics", run.planned) as task:
            key = endpoints.api_key.get_secret_value() if endpoints.api_key else None
            engine = OpenAiEngine(
                endpoints.urls,
                endpoints.model,
                decoding_of(config),
                api_key=key,
                timeout_s=llm.request_timeout_s,
                concurrency=llm.concurrency,
                local=endpoints.local,
            )
            try:
                asyncio.run(_with(engine, run, task))
            finally:
                responses.close()
    report = run.report(imported=imported.height, reused=reused)
    log.info("semantics gathered", **asdict(report), tokens_per_s=round(report.tokens_per_s, 1))
    return report


async def _with(engine: OpenAiEngine, run: _Run, task: Task) -> None:
    async with engine:
        await run.ask_all(engine, engine.in_flight_limit, task)


def _most_interacted_first(items: pl.DataFrame, interactions: Path) -> pl.DataFrame:
    events = pl.scan_parquet(table_files(interactions, "interactions"), hive_partitioning=False)
    counts = events.group_by("domain", "item_id").agg(pl.len().alias("num_events")).collect()
    ordered = items.join(counts, on=["domain", "item_id"], how="left").with_columns(pl.col("num_events").fill_null(0))
    return ordered.sort(["num_events", "domain", "item_id"], descending=[True, False, False])


class _Run:
    """One run over the wanted items: what is taken next, what was spent, what came of it."""

    def __init__(
        self, config: DatasetConfig, prompt: Prompt, model: ModelIdentity, responses: Responses, wanted: pl.DataFrame
    ) -> None:
        self.settings = config.semantics
        self.budget: Budget = config.semantics.budget
        self.prompt = prompt
        self.model = model
        self.responses = responses
        self.wanted = wanted
        self.planned = min(wanted.height, wanted.height if self.budget.items is None else self.budget.items)
        self.words = words_of(config)
        self.taken = self.done = self.accepted = 0
        self.failed: Counter[str] = Counter()
        self.prompt_tokens = self.completion_tokens = 0
        self.started = self.ended = 0.0
        self.server_answers = False
        self.stopped_by: str | None = "items" if self.planned < wanted.height else None

    def may_start(self) -> bool:
        """Tell whether there is anything to ask, and anything to spend."""
        if self.planned and 0 in (self.budget.tokens, self.budget.minutes):
            self.stopped_by = "tokens" if self.budget.tokens == 0 else "minutes"
            return False
        return self.planned > 0

    async def ask_all(self, engine: Engine, limit: int, task: Task) -> None:
        """Ask with at most ``limit`` items in flight: as many workers draw from one stream."""
        self.started = time.monotonic()
        rows = self.wanted.head(self.planned).iter_rows(named=True)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(limit, self.planned)):
                    group.create_task(self._work(engine, rows, task))
        except BaseExceptionGroup as faults:
            raise faults.exceptions[0] from None
        finally:
            self.ended = time.monotonic()

    async def _work(self, engine: Engine, rows: Iterator[dict[str, Any]], task: Task) -> None:
        while self._affords_another() and (row := next(rows, None)) is not None:
            self.taken += 1
            record = await self._ask(engine, row)
            self.responses.put(record)
            self.done += 1
            if record.accepted:
                self.accepted += 1
            else:
                self.failed[record.reason or ""] += 1
            elapsed_s = time.monotonic() - self.started
            task.advance(1, tokens_per_s=round(self.completion_tokens / elapsed_s, 1), failed=sum(self.failed.values()))

    def _affords_another(self) -> bool:
        """Tell whether the budget has room for one more item beside those in flight."""
        minutes, tokens = self.budget.minutes, self.budget.tokens
        if minutes is not None and time.monotonic() - self.started >= minutes * 60:
            self.stopped_by = "minutes"
            return False
        if tokens is not None:
            spent = self.prompt_tokens + self.completion_tokens
            an_item = spent / self.done if self.done else self.settings.max_tokens
            if spent + (self.taken - self.done) * an_item >= tokens:
                self.stopped_by = "tokens"
                return False
        return True

    async def _ask(self, engine: Engine, row: Mapping[str, Any]) -> Record:
        most = self.settings.max_item_tokens
        text = await engine.cut(clean_item_text(row["text"][: most * CHARS_PER_TOKEN]), most)
        if not text:
            return self._record(row, "no readable text", None)
        messages = self.prompt.messages(self.words[row["domain"]], text)
        answers = []
        verdict: Texts | str = ""
        try:
            for seed, temperature in (
                (self.settings.seed, self.settings.temperature),
                (self.settings.seed + 1, max(self.settings.temperature, REPAIR_TEMPERATURE)),
            ):
                answers.append(await self._generate(engine, messages, seed, temperature))
                verdict = self._judge(answers[-1], row["title"])
                if isinstance(verdict, Texts):
                    break
        except RequestRefusedError as error:
            if not self.server_answers:
                probe = self.prompt.messages(self.words[row["domain"]], PROBE_TEXT)
                await self._generate(engine, probe, self.settings.seed, self.settings.temperature)
            log.warning("item refused", domain=row["domain"], item_id=row["item_id"], error=str(error))
            verdict = "refused by the server"
        return self._record(row, verdict, answers[-1] if answers else None, answers)

    def _judge(self, answer: Answer, title: str | None) -> Texts | str:
        verdict = read_answer(answer.text, answer.finish_reason, self.prompt.schema)
        if isinstance(verdict, Texts):
            verdict = accept(verdict, title)
        if isinstance(verdict, Texts):
            return copies(verdict, self.prompt.examples) or verdict
        return verdict

    async def _generate(self, engine: Engine, messages: Messages, seed: int, temperature: float) -> Answer:
        answer = await engine.generate(messages, self.prompt.schema, seed, temperature)
        self.server_answers = True
        self.prompt_tokens += answer.prompt_tokens
        self.completion_tokens += answer.completion_tokens
        return answer

    def _record(
        self, row: Mapping[str, Any], verdict: Texts | str, last: Answer | None, answers: list[Answer] | None = None
    ) -> Record:
        texts = verdict if isinstance(verdict, Texts) else None
        return Record(
            key=row["key"],
            status="ok" if texts else "failed",
            reason=None if texts else str(verdict),
            model=self.model.name,
            revision=self.model.revision,
            prompt=self.prompt.reference,
            text_hash=row["text_hash"],
            specific=texts.specific if texts else None,
            agnostic=texts.agnostic if texts else None,
            raw=last.text if last else "",
            prompt_tokens=last.prompt_tokens if last else 0,
            completion_tokens=last.completion_tokens if last else 0,
            finish_reason=last.finish_reason if last else None,
            calls=len(answers or ()),
            spent_tokens=sum(answer.prompt_tokens + answer.completion_tokens for answer in answers or ()),
            seconds=round(sum(answer.seconds for answer in answers or ()), 3),
            created_at=utc_now(),
        )

    def report(self, *, imported: int, reused: int) -> GatherReport:
        """Return what came of the run."""
        left = self.wanted.slice(self.done).head(MAX_EXAMPLES)
        return GatherReport(
            imported=imported,
            reused=reused,
            wanted=self.wanted.height,
            asked=self.done,
            accepted=self.accepted,
            failed=dict(sorted(self.failed.items())),
            left_out=self.wanted.height - self.done,
            left_out_first=tuple(f"{domain}/{item}" for domain, item in left.select("domain", "item_id").iter_rows()),
            stopped_by=self.stopped_by if self.done < self.wanted.height else None,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            seconds=round(self.ended - self.started, 3),
        )
