"""Which items are to be asked, in which order, and what that would cost.

Most-interacted first, by the events that training sees: an order by all events would give texts to the items that will
be popular, and a model would read the future off who has one. Then, of the items without such an event, those that are
new since the last run, then the others, by domain and id. Those that a budget leaves out come first in the next run, so
every item has its turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import duckdb
import polars as pl

from semacdr.database import read_sql, work_database
from semacdr.dataset import DatasetConfig
from semacdr.errors import DataError, close_names
from semacdr.semantics.imports import read_imports
from semacdr.semantics.items import key_prefixes, read_item_ids, words_of
from semacdr.semantics.models import ModelIdentity, identify
from semacdr.semantics.prompt import Prompt, load_prompt
from semacdr.semantics.responses import Responses
from semacdr.settings import DuckDbSettings, LlmSettings
from semacdr.tables import View, table_files

CHARS_PER_TOKEN = 4
"""Of English, roughly; only used until there are answers to measure."""
SAMPLE_ITEMS = 200
BATCH_ITEMS = 20_000
"""Texts that are held at a time."""
LIMITS = DuckDbSettings(memory_limit="128MB", threads=1)
"""What does not fit spills to the disk, so that a million items take no more memory than ten thousand."""


class Inputs(NamedTuple):
    """Folders of artifacts."""

    items: Path
    interactions: Path
    """Say which items come first."""
    last_run: Path | None = None
    """``semantics`` of the last run, if there was one: an item that it lacks is new."""


class Selection:
    """The items of a data set, by what is still to be done about them; made by ``select``."""

    items: int
    """That have text."""
    imported: int
    """Items whose texts were imported."""
    reused: int
    """Items that have an answer."""
    wanted: int
    """Different texts without an answer."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self.items = _count(connection.table("items").filter("has_text"))
        self.imported = _count(connection.table("imported"))
        self.reused = _count(connection.table("texts").filter("is_answered"))
        self.wanted = _count(connection.table("wanted"))

    def texts(self, start: int = 0, stop: int | None = None) -> Iterator[pl.DataFrame]:
        """Yield the wanted texts at places ``[start, stop)`` in the order of asking, at most ``BATCH_ITEMS`` at a time.

        Columns: domain, item_id, key, title, text, text_hash.
        """
        stop = self.wanted if stop is None else min(stop, self.wanted)
        for begin in range(start, stop, BATCH_ITEMS):
            places = {"start": begin, "stop": min(begin + BATCH_ITEMS, stop)}
            yield self._connection.sql(read_sql("semantics/wanted_texts"), params=places).pl()

    def names(self, start: int, count: int) -> list[str]:
        """Return ``domain/item_id`` of the wanted items from a place on."""
        rows = self._connection.table("wanted").order("rowid").limit(count, start).select("domain, item_id")
        return [f"{domain}/{item_id}" for domain, item_id in rows.fetchall()]

    def answered_otherwise(self) -> int:
        """Count the wanted texts that have an answer of another prompt, model or decoding."""
        known = self._connection.table("wanted").filter("text_hash in (select text_hash from answers)")
        return _count(known.select("text_hash").distinct())


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run would ask, and what that is expected to cost."""

    model: str
    prompt: str
    items: int
    """That have text."""
    imported: int
    reused: int
    wanted: int
    """Different texts without an answer."""
    answered_otherwise: int
    """Wanted texts that have an answer of another prompt, model or decoding: what such a change costs."""
    calls: int
    """First tries within the budget of items; every second try comes on top."""
    left_out: int
    """Wanted, but beyond the budget of items."""
    tokens: int
    """Prompt and completion, all tries; capped by the budget of tokens."""
    tokens_measured: bool
    """From earlier answers to this prompt by this model; else from the lengths of texts and ``max_tokens``."""
    seconds: float | None
    """At the rate of earlier runs of this model, capped by the budget of minutes; None: it has not answered yet."""
    tokens_per_s: float | None
    """That rate: prompt and completion tokens."""


@contextmanager
def select(
    config: DatasetConfig, llm: LlmSettings, inputs: Inputs, responses: Responses, cache: Path
) -> Iterator[Selection]:
    """Find what is wanted of the LLM, in a database below ``cache`` that is gone at the end.

    Raises:
        ConfigError: a setting, prompt or import file is wrong.
        DataError: an item of a domain that the data set does not have.
    """
    prefixes = key_prefixes(config, identify(llm), load_prompt(config.semantics.prompt))
    with work_database(LIMITS, cache) as connection:
        _view(connection, "items", inputs.items, "items")
        _view(connection, "interactions", inputs.interactions, "interactions")
        responses.create_view(connection)
        _table(connection, "prefixes", {"domain": list(prefixes), "prefix": list(prefixes.values())})
        _check_domains(connection, prefixes)
        imported = _imported(connection, config, inputs, responses)
        _table(connection, "imported", imported.to_dict(as_series=False))
        connection.execute(read_sql("semantics/texts"))
        if inputs.last_run:
            _view(connection, "last_run", inputs.last_run, "semantics")
            connection.table("last_run").filter(f"view = '{View.SPECIFIC}'").select("domain, item_id").create("known")
        else:
            _table(connection, "known", {"domain": [], "item_id": []})
        split = config.split
        quantiles = {"validation_quantile": split.validation_quantile, "test_quantile": split.test_quantile}
        first_hidden_s, _ = connection.execute(read_sql("sequences/cuts"), quantiles).fetchall()[0]
        connection.execute(read_sql("semantics/in_order"), {"first_hidden_s": first_hidden_s})
        connection.execute(read_sql("semantics/wanted"))
        yield Selection(connection)


def plan(config: DatasetConfig, llm: LlmSettings, responses: Responses, selection: Selection) -> Plan:
    """Return what ``gather`` asks about a selection, and what that is expected to cost; asks nothing."""
    prompt, model, budget = load_prompt(config.semantics.prompt), identify(llm), config.semantics.budget
    wanted = selection.wanted
    calls = wanted if budget.items is None else min(wanted, budget.items)
    measured, tokens_per_s = _measured(responses, model, prompt.reference)
    per_item = measured if measured is not None else _guessed(config, prompt, selection)
    tokens = round(per_item * calls)
    if budget.tokens is not None:
        tokens = min(tokens, budget.tokens)
    seconds = tokens / tokens_per_s if tokens_per_s else None
    if seconds is not None and budget.minutes is not None:
        seconds = min(seconds, budget.minutes * 60)
    return Plan(
        model=str(model),
        prompt=prompt.reference,
        items=selection.items,
        imported=selection.imported,
        reused=selection.reused,
        wanted=wanted,
        answered_otherwise=selection.answered_otherwise(),
        calls=calls,
        left_out=wanted - calls,
        tokens=tokens,
        tokens_measured=measured is not None,
        seconds=None if seconds is None else round(seconds, 1),
        tokens_per_s=None if tokens_per_s is None else round(tokens_per_s, 1),
    )


def _count(relation: duckdb.DuckDBPyRelation) -> int:
    found: int = relation.count("*").fetchall()[0][0]
    return found


def _view(connection: duckdb.DuckDBPyConnection, name: str, folder: Path, table: str) -> None:
    files = [str(file) for file in table_files(folder, table)]
    connection.read_parquet(files, hive_partitioning=False).create_view(name)


def _table(connection: duckdb.DuckDBPyConnection, name: str, columns: Mapping[str, list[str]]) -> None:
    rows = pl.DataFrame(dict(columns), schema=dict.fromkeys(columns, pl.String)).to_arrow()
    connection.from_arrow(rows).create(name)


def _check_domains(connection: duckdb.DuckDBPyConnection, prefixes: Mapping[str, str]) -> None:
    unknown = connection.sql("select domain from items where domain not in (from prefixes select domain) limit 1")
    for (domain,) in unknown.fetchall():
        raise DataError(
            "items: domain", found=domain, expected=close_names(domain, prefixes), do="ingest the data set again"
        )


def _imported(
    connection: duckdb.DuckDBPyConnection, config: DatasetConfig, inputs: Inputs, responses: Responses
) -> pl.DataFrame:
    """Return domain and item_id of the items whose texts were imported; holds all items where there are any."""
    in_cache = connection.sql("select 1 from answers where source = 'imported' and status = 'ok' limit 1").fetchall()
    if not (config.semantics.imports or in_cache):
        return pl.DataFrame(schema={"domain": pl.String, "item_id": pl.String})
    with_text = read_item_ids(inputs.items, *(("title",) if config.semantics.imports else ()))
    return read_imports(config, with_text, responses).frame.select("domain", "item_id")


def _measured(responses: Responses, model: ModelIdentity, prompt: str) -> tuple[float | None, float | None]:
    """Return the mean tokens of an item, with this prompt, and tokens a second, with any, of earlier answers."""
    made = responses.all().filter(model=model.name, revision=model.revision, source="generated")
    per_item = made.filter(prompt=prompt).select(pl.col("spent_tokens").mean()).collect().item()
    times = pl.col("created_at").str.to_datetime(time_zone="UTC", strict=False)
    # A journal is one run's; its first answer took as long as any before it was kept.
    run = made.group_by("journal").agg(
        tokens=pl.col("spent_tokens").sum(),
        span_s=(times.max() - times.min()).dt.total_seconds() + pl.col("seconds").mean(),
    )
    tokens, span_s = run.select("tokens", "span_s").sum().collect().row(0)
    return per_item, tokens / span_s if span_s else None


def _guessed(config: DatasetConfig, prompt: Prompt, selection: Selection) -> float:
    """Return the tokens of an item, by the length of what is sent and the most that may come back."""
    words = words_of(config)
    most = config.semantics.max_item_tokens * CHARS_PER_TOKEN
    chars = [
        sum(len(message["content"]) for message in prompt.messages(words[domain], text[:most]))
        for sample in selection.texts(stop=SAMPLE_ITEMS)
        for domain, text in sample.select("domain", "text").iter_rows()
    ]
    return sum(chars) / CHARS_PER_TOKEN / len(chars) + config.semantics.max_tokens if chars else 0.0
