"""``semacdr semantics``: answers that are made elsewhere."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from semacdr.cli.options import STORE_OPTION
from semacdr.dataset import DatasetConfig, Import, load_dataset
from semacdr.errors import ConfigError
from semacdr.pipeline import refuse_broken
from semacdr.semantics import Responses
from semacdr.semantics.batch import export_requests
from semacdr.semantics.models import identify
from semacdr.semantics.selection import Inputs, select
from semacdr.semantics.takein import take_in
from semacdr.settings import Settings, load_settings
from semacdr.store import Store
from semacdr.terminal import open_console

DATASET_OPTION = click.option("--dataset", required=True, help="Path of the data set's TOML, its folder, or its name.")


@click.group()
def semantics() -> None:
    """Have a data set's items answered elsewhere, and bring the answers in.

    The data set must be ingested: semacdr run DATASET --only ingest.
    `semacdr run DATASET --dry-run` shows what a run would ask, and what that costs.
    """


@semantics.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@DATASET_OPTION
@click.option("--model", required=True, help="Who wrote the texts; kept beside each of them.")
@click.option(
    "--domain", "domains", multiple=True, metavar="THEIRS=OURS", help="A domain that the file calls otherwise."
)
@click.option("--exclude", type=click.Path(path_type=Path), help="Text file of DOMAIN<TAB>ITEM lines to leave out.")
@STORE_OPTION
def import_answers(
    file: Path, dataset: str, model: str, domains: tuple[str, ...], exclude: Path | None, store: str | None
) -> None:
    """Take the answers of FILE into the response cache; the next run publishes them as imported.

    FILE is Parquet with item_id, domain, specific, agnostic, or the output of a batch (.jsonl) whose requests
    export-requests wrote. A batch's answers are held to the rules of a run's own; of
    Parquet the audit replaces what breaks them.

    \b
    semacdr semantics import answers.parquet --dataset my-data --model gpt-x
    semacdr run my-data
    """
    for path in (file, exclude):
        if path and not path.is_file():
            raise ConfigError(f"no file {path}", found=f"nothing at {path.resolve()}", do="give the path of a file")
    config, _, opened = _open(dataset, store)
    named = dict(pair.split("=", 1) for pair in domains if "=" in pair)
    if len(named) != len(domains):
        raise ConfigError("--domain", found=", ".join(domains), expected="THEIRS=OURS, once for each domain")
    source = Import(
        file=str(file.resolve()), model=model, domains=named, exclude=str(exclude.resolve()) if exclude else None
    )
    items = _inputs(config, opened).items
    with opened.gathering_responses():
        taken = take_in(config, items, Responses(opened.responses), source)
    table = Table("what", "number", title=f"{file.name}, by {model}")
    table.add_row("rows", f"{taken.rows:,}")
    table.add_row("accepted", f"{taken.accepted:,}")
    table.add_row("  kept already", f"{taken.unchanged:,}")
    for reason, count in taken.not_taken.items():
        table.add_row(f"not taken: {reason}", f"{count:,}")
    for rule, count in taken.findings.items():
        table.add_row(f"audit: {rule}", f"{count:,}")
    console = open_console()
    console.print(table)
    for example in taken.examples:
        console.print(f"  {example}", markup=False, highlight=False)
    console.print(f"Publish with: semacdr run {dataset}", markup=False, highlight=False)


@semantics.command("export-requests")
@click.argument("output", type=click.Path(path_type=Path))
@DATASET_OPTION
@click.option("--model", help="Who is to answer, as the service calls it.  [default: as in the settings]")
@click.option("--limit", type=click.IntRange(min=1), help="Requests at most, most-interacted items first.")
@STORE_OPTION
def export(output: Path, dataset: str, model: str | None, limit: int | None, store: str | None) -> None:
    """Write OUTPUT, a file for a batch API: one request per item text that has no answer.

    Take the batch's output in again with `semacdr semantics import`.
    """
    config, settings, opened = _open(dataset, store)
    if output.exists():
        raise ConfigError(f"{output} is there already", do="name a file that is not, or remove it")
    if not output.parent.is_dir():
        raise ConfigError(f"no folder {output.parent}", found="nothing there", do="make it, or name another file")
    inputs = _inputs(config, opened)
    with select(config, settings.llm, inputs, Responses(opened.responses), settings.cache) as selection:
        exported = export_requests(config, selection, output, model or identify(settings.llm).name, limit)
    left = f"; {exported.left_out:,} beyond the limit" if exported.left_out else ""
    click.echo(f"{exported.requests:,} requests in {output}; {exported.answered:,} items have texts{left}")


def _open(dataset: str, store: str | None) -> tuple[DatasetConfig, Settings, Store]:
    settings = load_settings(store=store)
    return load_dataset(dataset, settings.datasets), settings, Store(settings.store, settings.cache)


def _inputs(config: DatasetConfig, store: Store) -> Inputs:
    artifacts = {name: store.get(config.name, name) for name in ("items", "interactions")}
    refuse_broken(store, artifacts)
    return Inputs(artifacts["items"].path, artifacts["interactions"].path)
