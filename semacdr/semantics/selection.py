"""Which items are to be asked, in which order, and what that would cost.

Most-interacted first, by the events that training sees: an order by all events would give texts to the items that will
be popular, and a model would read the future off who has one. Then, of the items without such an event, those that are
new since the last run, then the others, by domain and id. Those that a budget leaves out come first in the next run, so
every item has its turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl

from semacdr.dataset import DatasetConfig
from semacdr.semantics.imports import read_imports
from semacdr.semantics.items import read_item_ids, read_item_texts, with_keys, words_of
from semacdr.semantics.models import ModelIdentity, identify
from semacdr.semantics.prompt import Prompt, load_prompt
from semacdr.semantics.responses import Responses
from semacdr.settings import LlmSettings
from semacdr.tables import View, table_files

CHARS_PER_TOKEN = 4
"""Of English, roughly; only used until there are answers to measure."""
SAMPLE_ITEMS = 200


class Inputs(NamedTuple):
    """Folders of artifacts."""

    items: Path
    interactions: Path
    """Say which items come first."""
    last_run: Path | None = None
    """``semantics`` of the last run, if there was one: an item that it lacks is new."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The items of a data set, by what is still to be done about them."""

    items: int
    """That have text."""
    imported: int
    """Items whose texts were imported."""
    reused: int
    """Items that have an answer."""
    wanted: pl.DataFrame
    """One row per different text without an answer, in the order of asking: row, domain, item_id, key, num_events."""


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


def select(config: DatasetConfig, llm: LlmSettings, inputs: Inputs, responses: Responses) -> Selection:
    """Return what is wanted of the LLM.

    Raises:
        ConfigError: a setting, prompt or import file is wrong.
    """
    prompt, model = load_prompt(config.semantics.prompt), identify(llm)
    with_text = read_item_ids(inputs.items, *(("title",) if config.semantics.imports else ()))
    imported = read_imports(config, with_text, responses).frame
    keyed = with_keys(with_text.join(imported, on=["domain", "item_id"], how="anti"), config, model, prompt)
    num_items, num_open = with_text.height, keyed.height
    keyed = keyed.select("row", "domain", "item_id", "key")
    del with_text  # hashes weigh more than all the rest
    unanswered = keyed.join(responses.table(keyed["key"], ["key"]), on="key", how="anti")
    ordered = _most_interacted_first(unanswered, inputs, config.split.validation_quantile)
    return Selection(
        items=num_items,
        imported=imported.height,
        reused=num_open - unanswered.height,
        wanted=ordered.unique("key", keep="first", maintain_order=True),
    )


def plan(config: DatasetConfig, llm: LlmSettings, items: Path, responses: Responses, selection: Selection) -> Plan:
    """Return what ``gather`` asks about a selection, and what that is expected to cost; asks nothing."""
    prompt, model, budget = load_prompt(config.semantics.prompt), identify(llm), config.semantics.budget
    wanted = selection.wanted
    calls = wanted.height if budget.items is None else min(wanted.height, budget.items)
    measured, tokens_per_s = _measured(responses, model, prompt.reference)
    per_item = measured if measured is not None else _guessed(config, prompt, items, wanted)
    tokens = round(per_item * calls)
    if budget.tokens is not None:
        tokens = min(tokens, budget.tokens)
    seconds = tokens / tokens_per_s if tokens_per_s else None
    if seconds is not None and budget.minutes is not None:
        seconds = min(seconds, budget.minutes * 60)
    hashes = read_item_ids(items).join(wanted, on="row", how="semi").lazy()
    otherwise = responses.all().select("text_hash").join(hashes, on="text_hash", how="semi").unique().collect()
    return Plan(
        model=str(model),
        prompt=prompt.reference,
        items=selection.items,
        imported=selection.imported,
        reused=selection.reused,
        wanted=wanted.height,
        answered_otherwise=otherwise.height,
        calls=calls,
        left_out=wanted.height - calls,
        tokens=tokens,
        tokens_measured=measured is not None,
        seconds=None if seconds is None else round(seconds, 1),
        tokens_per_s=None if tokens_per_s is None else round(tokens_per_s, 1),
    )


def _most_interacted_first(items: pl.DataFrame, inputs: Inputs, quantile: float) -> pl.DataFrame:
    events = pl.scan_parquet(table_files(inputs.interactions, "interactions"), hive_partitioning=False)
    first_hidden_s = events.select(pl.col("timestamp_s").quantile(quantile, "lower"))
    events = events.filter(pl.col("timestamp_s") < first_hidden_s.collect(engine="streaming").to_series())
    counts = events.group_by("domain", "item_id").agg(pl.len().alias("num_events")).collect(engine="streaming")
    ordered = items.join(counts, on=["domain", "item_id"], how="left").with_columns(pl.col("num_events").fill_null(0))
    if inputs.last_run is None:
        return ordered.sort(["num_events", "domain", "item_id"], descending=[True, False, False])
    table = pl.scan_parquet(table_files(inputs.last_run, "semantics"), hive_partitioning=False)
    known = table.filter(view=View.SPECIFIC.value).select("domain", "item_id", is_new=False).collect(engine="streaming")
    ordered = ordered.join(known, on=["domain", "item_id"], how="left").with_columns(pl.col("is_new").fill_null(True))
    order = {"num_events": True, "is_new": True, "domain": False, "item_id": False}
    return ordered.sort(list(order), descending=list(order.values())).drop("is_new")


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


def _guessed(config: DatasetConfig, prompt: Prompt, items: Path, wanted: pl.DataFrame) -> float:
    """Return the tokens of an item, by the length of what is sent and the most that may come back."""
    sample = wanted.head(SAMPLE_ITEMS)
    if sample.is_empty():
        return 0.0
    words = words_of(config)
    texts = sample.join(read_item_texts(items, sample["row"]), on="row").select("domain", "text")
    most = config.semantics.max_item_tokens * CHARS_PER_TOKEN
    chars = sum(
        len(message["content"])
        for domain, text in texts.iter_rows()
        for message in prompt.messages(words[domain], text[:most])
    )
    return chars / CHARS_PER_TOKEN / texts.height + config.semantics.max_tokens
