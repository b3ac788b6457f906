"""Commands ``run``, and ``doctor``, which tells whether it can."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, cast

import click
from rich.markup import escape
from rich.table import Table

from semacdr.cli.options import STORE_OPTION
from semacdr.dataset import as_of, load_dataset
from semacdr.doctor import demand_prefect_server, examine
from semacdr.errors import ConfigError
from semacdr.pipeline import STAGES, Context, check_dataset, find_stage, outlook, plan_semantics, refreshable
from semacdr.report import summarize
from semacdr.semantics import Plan
from semacdr.settings import load_settings
from semacdr.store import Store
from semacdr.terminal import open_console


@click.command()
@click.argument("dataset")
@STORE_OPTION
@click.option(
    "--only", metavar="STAGE", help="Run this stage alone: " + ", ".join(stage.name for stage in STAGES) + "."
)
@click.option(
    "--refresh",
    metavar="STAGE",
    multiple=True,
    help="Spend another budget in semantics although nothing changed; in training and evaluation make anew what"
    " would be kept for training.max_age_days.",
)
@click.option(
    "--until",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Run as of this day (UTC), in a data set of its own: DATASET-until-DAY.",
)
@click.option("--dry-run", "preview", is_flag=True, help="Only say what would run, and what the LLM would be asked.")
@click.pass_context
def run(
    ctx: click.Context,
    dataset: str,
    store: str | None,
    only: str | None,
    refresh: tuple[str, ...],
    until: datetime | None,
    *,
    preview: bool,
) -> None:
    """Run the pipeline on DATASET: the flow pipeline/nightly, without a Prefect server.

    Stages whose outputs are published already, from the same inputs and configuration, are skipped. When it is
    done it prints where the artifacts are, the metrics beside the baselines, and one user's recommendations.

    \b
    semacdr run amazon-food-kitchen-mini
    semacdr run my/dataset.toml --store /data/store
    semacdr run amazon-food-kitchen-mini --only semantics
    semacdr run amazon-food-kitchen-mini --until 2014-05-01
    semacdr run amazon-food-kitchen-mini --dry-run
    """
    settings = load_settings(store=store)
    config = load_dataset(dataset, settings.datasets)
    refreshable(refresh)
    if only:
        find_stage(only)
    artifacts = Store(settings.store, settings.cache)
    check_dataset(config, settings, artifacts)
    config = as_of(config, until.date()) if until else config
    if preview:
        context = Context(dataset=config, settings=settings, store=artifacts)
        _preview(context, only, {only} if only else refresh)
        return
    _demand_prefect_home()
    demand_prefect_server()
    with _quiet_prefect(debug=ctx.find_root().params["debug"]):
        from flows.interrupts import interruptible  # noqa: PLC0415 (Prefect takes seconds to import)
        from flows.pipeline import nightly  # noqa: PLC0415

        day = until.date() if until else None
        with interruptible():
            # Both hold names that were found to be right.
            nightly(dataset, settings.store, day, cast("Any", only), cast("Any", refresh), retries=0)
    if only is None:
        summarize(artifacts, config, open_console())


@click.command()
@click.option("--dataset", help="Also check this data set's files and configuration.")
@STORE_OPTION
def doctor(dataset: str | None, store: str | None) -> None:
    """Look at the machine: GPU, vLLM, store, disk, versions; say what is missing and how to get it.

    Exit code 1 when something that a run needs is missing.
    """
    findings = examine(load_settings(store=store), dataset)
    table = Table("", "what", "found", "to do")
    marks = {"ok": "[green]ok[/]", "missing": "[red]missing[/]", "note": "[yellow]note[/]"}
    for finding in findings:
        table.add_row(marks[finding.state], *(escape(text) for text in (finding.what, finding.found, finding.do)))
    open_console().print(table)
    if any(finding.state == "missing" for finding in findings):
        raise click.exceptions.Exit(1)


def _preview(context: Context, only: str | None, refresh: Collection[str]) -> None:
    """Print what each stage would do; and the semantics stage's plan, once there are items."""
    console = open_console()
    stages = outlook([find_stage(only)] if only else STAGES, context, refresh)
    table = Table("stage", "what it would do", title=f"{context.dataset.name} in {context.store.uri}")
    for stage, verdict in stages.items():
        table.add_row(stage, verdict)
    console.print(table)
    if stages.get("ingest", "unchanged") == "unchanged" and "semantics" in stages:
        console.print(_plan_table(plan_semantics(context), context.dataset.semantics.budget.minutes))


def _plan_table(expected: Plan, most_minutes: float | None) -> Table:
    table = Table("semantics", "number", title=f"{expected.prompt} by {expected.model}")
    table.add_row("items with text", f"{expected.items:,}")
    table.add_row("  with imported texts", f"{expected.imported:,}")
    table.add_row("  answered before", f"{expected.reused:,}")
    table.add_row("texts without an answer", f"{expected.wanted:,}")
    table.add_row("  answered with another prompt, model or decoding", f"{expected.answered_otherwise:,}")
    table.add_row("calls of a run that asks", f"{expected.calls:,}")
    table.add_row("left to later runs by the budget of items", f"{expected.left_out:,}")
    table.add_row("tokens", f"{expected.tokens:,} ({'measured' if expected.tokens_measured else 'guessed'})")
    rate = f" at {expected.tokens_per_s:,.0f} tokens/s" if expected.tokens_per_s else ""
    unknown = "unknown: the model has not answered yet" + (f"; at most {most_minutes:g}" if most_minutes else "")
    table.add_row("minutes", unknown if expected.seconds is None else f"{expected.seconds / 60:,.1f}{rate}")
    return table


def _demand_prefect_home() -> None:
    """Look whether Prefect can keep its files: it would find out after two minutes, and in pages.

    Raises:
        ConfigError: it cannot.
    """
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise ConfigError(
            f"Prefect cannot keep its files in {home}",
            found=error.strerror,
            expected="a folder that can be written",
            do="name one by PREFECT_HOME",
        ) from error


@contextmanager
def _quiet_prefect(*, debug: bool) -> Iterator[None]:
    """Run flows in this process: our log lines, not Prefect's, and no server that the user did not name."""
    quiet = {
        "PREFECT_LOGGING_LEVEL": "DEBUG" if debug else "CRITICAL",
        "PREFECT_INTERNAL_LOGGING_LEVEL": "ERROR" if debug else "CRITICAL",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "DO_NOT_TRACK": "1",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    yield
