"""What a run prints when it is done: artifacts, metrics, one user, and what to try next."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

import duckdb
import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from semacdr.database import read_sql
from semacdr.dataset import DatasetConfig
from semacdr.manifest import Manifest
from semacdr.store import Artifact, Store
from semacdr.tables import REPORT_PAGE

_SHOWN_EVENTS = 5
_SHOWN_RECOMMENDATIONS = 10


def summarize(store: Store, dataset: DatasetConfig, console: Console) -> None:
    """Print the artifacts, the test metrics, what may go into production, the page, and one user's recommendations."""
    _print_artifacts(store, dataset, console)
    _print_metrics(store, dataset.name, console)
    _print_gate(store, dataset.name, console)
    console.print(f"The page: {page_of(store, store.get(dataset.name, 'report'))}\n", highlight=False, soft_wrap=True)
    user = _print_user(store, dataset, console)
    console.print("\n[bold]Try next[/]")
    for command in next_commands(store, dataset.name, user or ""):
        console.print(f"  {command}", highlight=False, soft_wrap=True, markup=False)


def _print_artifacts(store: Store, dataset: DatasetConfig, console: Console) -> None:
    table = Table("artifact", "rows", "dropped", "seconds", "folder", title=f"Artifacts of {dataset.name}")
    for name in sorted({manifest.name for manifest in store.manifests(dataset.name)}):
        m = store.get(dataset.name, name).manifest
        rows = f"{sum(m.rows_out.values()):,}"
        table.add_row(m.reference, rows, f"{sum(m.dropped.values()):,}", f"{m.seconds:.1f}", _folder(store, m))
    console.print(table)
    semantics = store.get(dataset.name, "semantics")
    counts = semantics.scan().group_by("source", "model").agg(texts=pl.len()).sort("texts", descending=True).collect()
    written = ", ".join(
        f"{texts:,} {source}" + (f" by {model}" if model else "") for source, model, texts in counts.iter_rows()
    )
    console.print(f"Texts: {escape(written)}.")
    waiting = semantics.scan().filter(pl.col("fallback_reason") == "not asked").select("domain", "item_id")
    if num_waiting := waiting.unique().collect().height:
        console.print(
            f"{num_waiting:,} items make do with their own words: `semacdr run {dataset.name} --refresh semantics`"
            " asks the LLM for as many as the data set's budget allows.",
            highlight=False,
        )
    console.print()


def page_of(store: Store, report: Artifact) -> str:
    """Return where the page of a ``report`` lies."""
    return f"{_folder(store, report.manifest)}/{REPORT_PAGE}"


def _folder(store: Store, manifest: Manifest) -> str:
    location = store.location(manifest)
    return location if "://" in location else _short(Path(location))


def _print_metrics(store: Store, dataset: str, console: Console) -> None:
    rows = store.get(dataset, "evaluation").scan().filter(pl.col("group") == "all").collect()
    first = rows.row(0, named=True)
    title = f"Test: protocol {first['protocol']}, candidates {first['candidates']}, fit {first['fit']}"
    shown = {"hr_10": "HR@10", "ndcg_10": "NDCG@10", "mrr": "MRR"}
    wide = rows.filter(pl.col("metric").is_in(list(shown))).pivot(
        "metric", index=["domain", "model", "num_targets"], values="value", maintain_order=True
    )
    table = Table("domain", "model", "targets", *shown.values(), title=title)
    for row in wide.sort(pl.col("domain") == "macro", "domain", maintain_order=True).iter_rows(named=True):
        figures = (f"{row[metric]:.4f}" for metric in shown)
        table.add_row(row["domain"], row["model"], f"{row['num_targets']:,}", *figures)
    console.print(table)
    console.print(
        "Made to show that the machinery works: one seed, no tuning on test; docs/log.md says what flatters it.\n"
    )


def _print_gate(store: Store, dataset: str, console: Console) -> None:
    gate = store.get(dataset, "gate")
    verdicts = gate.manifest.details["verdicts"]
    passed = [reference for reference, verdict in verdicts.items() if verdict["passed"]]
    console.print(f"Passed {gate.reference}: {', '.join(passed) or 'nothing'}.", highlight=False)
    for reference, verdict in verdicts.items():
        for reason in verdict["reasons"]:
            console.print(f"[red]refused[/] {reference}: {escape(reason)}", highlight=False)
    console.print()


def _print_user(store: Store, dataset: DatasetConfig, console: Console) -> str | None:
    user, history, recommended = example_user(store, dataset.name)
    if user is None:
        console.print("No user has a recommendation: every item of every domain has been seen.")
        return None
    console.print(f"[bold]User {escape(user)}[/]: the last {_SHOWN_EVENTS} events in each domain")
    for domain in history["domain"].unique(maintain_order=True):
        console.print(f"  {domain}")
        for row in history.filter(pl.col("domain") == domain).iter_rows(named=True):
            console.print(
                f"    {row['event_date']}  {escape(row['item_id'])}  {escape(row['title'][:80])}", highlight=False
            )
    console.print(f"\n[bold]{_SHOWN_RECOMMENDATIONS} recommendations[/], with what the item's semantics say")
    for row in recommended.iter_rows(named=True):
        console.print(
            f"  {row['domain']} {row['rank']}. {escape(row['item_id'])}  {escape(row['title'][:80])}"
            f"  ({row['score']:.3f})",
            highlight=False,
        )
        console.print(f"      why: {row['reason']}", style="dim", highlight=False)
        if row["text_source"]:
            source = row["text_source"] + (f" by {row['text_model']}" if row["text_model"] else "")
            console.print(f"      {escape(source)}", style="dim", highlight=False)
            console.print(f"        specific: {escape(row['specific_text'])}", style="dim", highlight=False)
            console.print(f"        agnostic: {escape(row['agnostic_text'])}", style="dim", highlight=False)
    return user


def example_user(store: Store, dataset: str) -> tuple[str | None, pl.DataFrame, pl.DataFrame]:
    """Return a user with a history in every domain, the recent history, and the recommendations.

    The user is None when nobody has a recommendation.
    """
    with duckdb.connect() as connection:
        views = {
            "recommended": "recommendations",
            "events": "interactions",
            "catalogue": "items",
            "texts": "semantics",
        }
        for view, name in views.items():
            files = [str(file) for file in store.get(dataset, name).files()]
            connection.read_parquet(files, hive_partitioning=False).create_view(view)
        found = connection.execute(read_sql("report/example_user")).fetchall()
        user: str | None = found[0][0] if found else None
        history = connection.sql(read_sql("report/history"), params={"user_id": user, "length": _SHOWN_EVENTS}).pl()
        recommended = connection.sql(
            read_sql("report/recommended"), params={"user_id": user, "length": _SHOWN_RECOMMENDATIONS}
        ).pl()
    return user, history, recommended


def next_commands(store: Store, dataset: str, user: str) -> list[str]:
    """Return commands for a shell that query the catalog: any DuckDB client reads one that lies in a folder.

    A bucket's views need its keys, and a client that reads buckets: there the query goes through ``semacdr sql``.
    """
    queries = (
        (
            "select domain, rank, item_id, score, reason from recommendations"
            f" where dataset = '{dataset}' and user_id = {_quote(user)}"
            " order by domain, rank limit 10"
        ),
        "select name, version, created_at, ndcg_10, inputs from artifacts where name in ('checkpoint', 'evaluation')",
        f"select view, source, count(*) from semantics where dataset = '{dataset}' group by all order by all",
    )
    if store.uri.startswith("s3://"):
        return [f"{_program('semacdr')} sql {_shell(query)} --store {shlex.quote(store.uri)}" for query in queries]
    catalog = shlex.quote(_short(store.catalog))
    return [f"{_program('duckdb')} -readonly {catalog} -c {_shell(query)}" for query in queries]


def _program(name: str) -> str:
    """Return how a shell calls a program of this environment."""
    beside = Path(sys.executable).with_name(name)
    return shlex.quote(_short(beside) if beside.exists() else shutil.which(name) or name)


def _quote(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _shell(query: str) -> str:
    """Quote a query for a shell: readable in double quotes where they mean what they say."""
    return shlex.quote(query) if set(query) & set('"$`\\') else f'"{query}"'


def _short(path: Path) -> str:
    """Show a path from the working directory when that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)
