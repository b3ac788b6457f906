"""Commands that look: ``artifacts``, ``show``, ``diff`` and ``lineage``."""

from __future__ import annotations

import json
import re
from dataclasses import asdict

import click
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from semacdr.cli.options import DATASET_OPTION, STORE_OPTION, dataset_name, find_artifact, open_store
from semacdr.errors import StoreError
from semacdr.manifest import Manifest
from semacdr.store.differences import Difference, compare
from semacdr.store.lineage import Direction, Lineage, State
from semacdr.terminal import open_console

_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")


@click.command()
@click.argument("dataset", required=False)
@STORE_OPTION
def artifacts(dataset: str | None, store: str | None) -> None:
    """List the published artifacts, newest last; of one DATASET if it is named."""
    opened = open_store(store)
    dataset = dataset and dataset_name(dataset)
    known = opened.manifests(dataset or "*")
    if not known:
        raise StoreError(
            "nothing is published" + (f" of data set {dataset!r}" if dataset else ""),
            found=f"store {opened.uri}",
            do="run `semacdr run DATASET`, or name another --store",
        )
    names = {(m.dataset, m.name) for m in known}
    aliases = {(dataset, name): opened.aliases(dataset, name) for dataset, name in names}
    table = Table("dataset", "artifact", "aliases", "rows", "dropped", "made at (UTC)", "seconds", "metrics")
    for m in known:
        here = [alias for alias, version in aliases[m.dataset, m.name].items() if version == m.version]
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in m.metrics.items() if "popularity" not in name)
        table.add_row(
            m.dataset, m.reference, ", ".join(here), f"{sum(m.rows_out.values()):,}",
            f"{sum(m.dropped.values()):,}", _time(m), f"{m.seconds:.1f}", metrics,
        )  # fmt: skip
    open_console().print(table)


@click.command()
@click.argument("reference", metavar="NAME[@VERSION]")
@DATASET_OPTION
@STORE_OPTION
def show(reference: str, dataset: str | None, store: str | None) -> None:
    """Print what is recorded of an artifact, as JSON: its manifest, and the aliases of its name with their history.

    VERSION may be an alias; without it, the current version is shown.

    \b
    semacdr show checkpoint
    semacdr show semantics@2026.11.24 --dataset amazon-food-kitchen-mini
    semacdr show checkpoint@production
    """
    opened = open_store(store)
    manifest = find_artifact(opened, reference, dataset).manifest
    histories = opened.alias_histories(manifest.dataset, manifest.name)
    aliases = {
        alias: {"version": moves[-1].version, "history": [asdict(move) for move in moves]}
        for alias, moves in histories.items()
    }
    click.echo(json.dumps({**manifest.model_dump(mode="json"), "aliases": aliases}, indent=2, ensure_ascii=False))


@click.command()
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with nothing cut.")
@DATASET_OPTION
@STORE_OPTION
def diff(before: str, after: str, as_json: bool, dataset: str | None, store: str | None) -> None:
    """Compare two artifacts, NAME@VERSION each: configuration field by field, inputs, counts, files, metrics.

    What is equal is left out. Manifests are compared, no files are read.

    \b
    semacdr diff checkpoint@2026.11.23 checkpoint
    semacdr diff checkpoint@production checkpoint@current --json
    """
    opened = open_store(store)
    left, right = (find_artifact(opened, reference, dataset).manifest for reference in (before, after))
    found = compare(left, right)
    if as_json:
        document = {
            "dataset": left.dataset, "a": left.reference, "b": right.reference,
            "same_fingerprint": left.fingerprint == right.fingerprint,
            "differences": [{"section": d.section, "field": d.field, "a": d.before, "b": d.after} for d in found],
        }  # fmt: skip
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    console = open_console()
    if not found:
        console.print(f"{left.reference} and {right.reference} do not differ")
        return
    table = Table("", "field", left.reference, right.reference, "change")
    section = ""
    for difference in found:
        if difference.section != section:
            table.add_section()
        heading = "" if difference.section == section else difference.section
        table.add_row(heading, *(Text(cell) for cell in _cells(difference)))
        section = difference.section
    console.print(table)


@click.command()
@click.argument("reference", metavar="NAME[@VERSION]")
@click.option("--table", "as_table", is_flag=True, help="A table, each artifact once, instead of a tree.")
@DATASET_OPTION
@STORE_OPTION
def lineage(reference: str, as_table: bool, dataset: str | None, store: str | None) -> None:
    """Show what an artifact was made from, up to the raw logs, and what was made from it.

    \b
    semacdr lineage checkpoint
    semacdr lineage items@2026.11.24 --table
    """
    opened = open_store(store)
    start = find_artifact(opened, reference, dataset).manifest
    known = {manifest.reference: manifest for manifest in opened.manifests(start.dataset)}
    graph = Lineage(known.values())
    console = open_console()
    if not as_table:
        tree = Tree(f"[bold]{start.reference}[/] of {start.dataset}")
        for direction in Direction:
            _grow(tree.add(f"[bold]{direction}[/]"), graph, start.reference, direction)
        console.print(tree)
        return
    table = Table("direction", "steps", "artifact", "next to", "made at (UTC)", "stage", "state")
    for direction in Direction:
        for step in graph.steps(start.reference, direction):
            manifest = known.get(step.reference)
            made = (_time(manifest), manifest.stage) if manifest else ("", "")
            table.add_row(direction, str(step.depth), step.reference, step.via, *made, step.state)
    console.print(table)


def _grow(root: Tree, graph: Lineage, start: str, direction: Direction) -> None:
    """Add the artifacts of one direction, each with its own neighbours where it comes first."""
    drawn: set[str] = set()
    waiting = [(root, start)]
    while waiting:
        branch, via = waiting.pop()
        grown = []
        for near in graph.neighbours(direction)(via):
            state = graph.state(near, via, direction)
            note = "" if state is State.PUBLISHED else f" [red]({state})[/]"
            again = near in drawn and graph.neighbours(direction)(near)
            twig = branch.add(escape(near) + note + (" [dim](see above)[/]" if again else ""))
            if near not in drawn:
                grown.append((twig, near))
            drawn.add(near)
        waiting += reversed(grown)
    if not drawn:
        root.add("[dim]nothing in the store[/]")


def _cells(difference: Difference) -> tuple[str, str, str, str]:
    step = difference.step
    change = ""
    if step is not None:
        change = f"{step:+,}" if isinstance(step, int) else f"{step:+.4g}"
    return difference.field, _cell(difference.before), _cell(difference.after), change


def _cell(value: object) -> str:
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _DIGEST.sub(r"\1…", text)


def _time(manifest: Manifest) -> str:
    return manifest.created_at[:19].replace("T", " ")
