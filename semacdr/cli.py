"""The command line ``semacdr``. Errors end with one message: exit 2 for the user's mistakes, 1 for faults."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import duckdb
from rich.table import Table

from semacdr import __version__
from semacdr.dataset import load_dataset
from semacdr.doctor import examine
from semacdr.errors import ConfigError, SemacdrError, StoreError
from semacdr.logs import configure_logging
from semacdr.pipeline import STAGES, find_stage, refreshable
from semacdr.report import summarize
from semacdr.settings import load_settings
from semacdr.store import Store
from semacdr.terminal import open_console

STORE_OPTION = click.option(
    "--store", type=click.Path(path_type=Path), help="Folder of the store.  [default: settings, else ./store]"
)


class _Group(click.Group):
    """Prints our errors as messages; ``--debug`` lets them rise with their traceback."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 (click's own signature)
        try:
            return super().invoke(ctx)
        except SemacdrError as error:
            if ctx.params.get("debug"):
                raise
            click.secho(type(error).__name__, fg="red", bold=True, err=True)
            click.echo(str(error), err=True)
            ctx.exit(error.exit_code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show tracebacks and debug events.")
def main(debug: bool) -> None:
    """Cross-domain sequential recommendation from LLM-written item semantics.

    A DATASET is the path of a data set's TOML, its folder, or its name below ./examples
    (docs/datasets.md). Settings come from semacdr.toml and SEMACDR_* variables.
    """
    configure_logging(level=logging.DEBUG if debug else logging.INFO, console=True)


@main.command()
@click.argument("dataset")
@STORE_OPTION
@click.option(
    "--only", metavar="STAGE", help="Run this stage alone: " + ", ".join(stage.name for stage in STAGES) + "."
)
@click.option(
    "--refresh",
    metavar="STAGE",
    multiple=True,
    help="Run a stage although nothing changed: semantics spends another budget.",
)
@click.pass_context
def run(ctx: click.Context, dataset: str, store: Path | None, only: str | None, refresh: tuple[str, ...]) -> None:
    """Run the pipeline on DATASET: the flow pipeline/nightly, without a Prefect server.

    Stages whose outputs are published already, from the same inputs and configuration, are skipped. When it is
    done it prints where the artifacts are, the metrics beside the baselines, and one user's recommendations.

    \b
    semacdr run amazon-food-kitchen-mini
    semacdr run my/dataset.toml --store /data/store
    semacdr run amazon-food-kitchen-mini --only semantics
    """
    settings = load_settings(store=store)
    config = load_dataset(dataset, settings.datasets)
    refreshable(refresh)
    if only:
        find_stage(only)
    with _quiet_prefect(debug=ctx.find_root().params["debug"]):
        from flows.pipeline import nightly  # noqa: PLC0415 (Prefect takes seconds to import)

        nightly(dataset, store=str(settings.store), only=only, refresh=list(refresh), retries=0)
    if only is None:
        summarize(Store(settings.store), config, open_console())


@main.command()
@click.argument("dataset", required=False)
@STORE_OPTION
def artifacts(dataset: str | None, store: Path | None) -> None:
    """List the published artifacts, newest last; of one DATASET if it is named."""
    known = _open_store(store).manifests(dataset or "*")
    if not known:
        raise StoreError(
            "nothing is published" + (f" of data set {dataset!r}" if dataset else ""),
            found=f"store {_open_store(store).root}",
            do="run `semacdr run DATASET`, or name another --store",
        )
    table = Table("dataset", "artifact", "current", "rows", "dropped", "made at (UTC)", "seconds", "metrics")
    opened = _open_store(store)
    for m in known:
        is_current = opened.aliases(m.dataset, m.name).get("current") == m.version
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in m.metrics.items() if "popularity" not in name)
        table.add_row(
            m.dataset, m.reference, "yes" if is_current else "", f"{sum(m.rows_out.values()):,}",
            f"{sum(m.dropped.values()):,}", m.created_at[:19].replace("T", " "), f"{m.seconds:.1f}", metrics,
        )  # fmt: skip
    open_console().print(table)


@main.command()
@click.argument("reference", metavar="NAME[@VERSION]")
@click.option("--dataset", help="Of this data set; needed when the store has several.")
@STORE_OPTION
def show(reference: str, dataset: str | None, store: Path | None) -> None:
    """Print the manifest of an artifact: what made it, from what, and what it holds.

    \b
    semacdr show checkpoint
    semacdr show semantics@2026.11.24 --dataset amazon-food-kitchen-mini
    """
    opened = _open_store(store)
    datasets = [dataset] if dataset else opened.datasets()
    if len(datasets) != 1:
        raise ConfigError("which data set?", found=", ".join(datasets) or "an empty store", do="name it with --dataset")
    name, _, version = reference.partition("@")
    artifact = opened.get(datasets[0], name, version or "current")
    click.echo(artifact.manifest.model_dump_json(indent=2))


@main.command()
@click.argument("query")
@click.option("--csv", is_flag=True, help="Print CSV instead of a table.")
@STORE_OPTION
def sql(query: str, csv: bool, store: Path | None) -> None:
    """Run QUERY on the store's catalog; QUERY is SQL, or the path of a .sql file.

    Views: one per table at its current version, TABLE_versions over all versions, artifacts, lineage, metrics.

    \b
    semacdr sql "from artifacts"
    semacdr sql "select view, source, count(*) from semantics group by all"
    """
    catalog = _open_store(store).catalog
    if not catalog.exists():
        raise StoreError(f"no catalog in {catalog.parent}", do="run `semacdr run DATASET`, or name another --store")
    text = Path(query).read_text(encoding="utf-8") if query.endswith(".sql") and Path(query).is_file() else query
    with duckdb.connect(str(catalog), read_only=True) as connection:
        try:
            result = connection.sql(text)
        except duckdb.Error as error:
            raise ConfigError(
                "DuckDB refuses the query", found=error, do="`semacdr sql 'show tables'` lists the views"
            ) from error
        if result is None:
            return
        if csv:
            click.echo(result.pl().write_csv(), nl=False)
        else:
            click.echo(str(result))


@main.command()
@click.option("--dataset", help="Also check this data set's files and configuration.")
@STORE_OPTION
def doctor(dataset: str | None, store: Path | None) -> None:
    """Look at the machine: GPU, vLLM, store, disk, versions; say what is missing and how to get it.

    Exit code 1 when something that a run needs is missing.
    """
    findings = examine(load_settings(store=store), dataset)
    table = Table("", "what", "found", "to do")
    marks = {"ok": "[green]ok[/]", "missing": "[red]missing[/]", "note": "[yellow]note[/]"}
    for finding in findings:
        table.add_row(marks[finding.state], finding.what, finding.found, finding.do)
    open_console().print(table)
    if any(finding.state == "missing" for finding in findings):
        raise click.exceptions.Exit(1)


def _open_store(store: Path | None) -> Store:
    return Store(load_settings(store=store).store)


@contextmanager
def _quiet_prefect(*, debug: bool) -> Iterator[None]:
    """Run flows in this process: our log lines, not Prefect's, and no server that the user did not name."""
    quiet = {
        "PREFECT_LOGGING_LEVEL": "DEBUG" if debug else "CRITICAL",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "DO_NOT_TRACK": "1",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    yield
