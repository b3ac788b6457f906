"""Commands that keep a store in order: ``verify``, ``prune`` and ``catalog rebuild``."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import click
from rich.markup import escape
from rich.table import Table

from semacdr.cli.options import DATASET_OPTION, STORE_OPTION, find_artifact, find_dataset, open_existing_store
from semacdr.dataset import MAX_DAYS
from semacdr.errors import ConfigError
from semacdr.store import rebuild_catalog
from semacdr.store.prune import Prune, carry_out, plan_prune
from semacdr.store.retention import DEFAULT_KEEP_LAST, Rule
from semacdr.store.verify import verify as verify_store
from semacdr.terminal import open_console

_GRACE_HOURS = 24


@click.command()
@click.argument("reference", metavar="[NAME[@VERSION]]", required=False)
@DATASET_OPTION
@STORE_OPTION
def verify(reference: str | None, dataset: str | None, store: str | None) -> None:
    """Read every byte and compare it with the manifests; exit code 1 when anything is broken.

    Without a NAME, the whole store is read; with a VERSION, which may be an alias, that version alone.

    \b
    semacdr verify
    semacdr verify checkpoint@production
    """
    opened = open_existing_store(store)
    if reference is None:
        findings = verify_store(opened, dataset or "*")
    elif "@" in reference:
        manifest = find_artifact(opened, reference, dataset).manifest
        findings = verify_store(opened, manifest.dataset, manifest.name, manifest.version)
    else:
        findings = verify_store(opened, find_dataset(opened, reference, dataset), reference)
    if not findings:
        click.echo(f"everything in {opened.uri} is as it was published" if reference is None else "as it was published")
        return
    table = Table("where", "what is wrong")
    for finding in findings:
        table.add_row(escape(finding.path), escape(finding.problem))
    open_console().print(table)
    raise click.exceptions.Exit(1)


@click.command()
@click.option(
    "--keep-last", type=click.IntRange(min=0), default=DEFAULT_KEEP_LAST, show_default=True,
    help="Keep the newest versions of each artifact.",
)  # fmt: skip
@click.option("--keep-days", type=click.FloatRange(min=0), help="Keep versions that are no older.")
@click.option(
    "--grace-hours", type=click.FloatRange(min=0), default=_GRACE_HOURS, show_default=True,
    help="Keep files that long which no reader can find any more.",
)  # fmt: skip
@click.option("--yes", is_flag=True, help="Do it; without, only show what would go.")
@STORE_OPTION
def prune(keep_last: int, keep_days: float | None, grace_hours: float, yes: bool, store: str | None) -> None:
    """Remove versions that nothing needs, and what crashed runs have left.

    A version stays when an alias points at it or would after a rollback, when --keep-last or --keep-days keeps
    it, or when something that stays was made from it. The files of a version that goes stay for the grace time,
    so that nobody who reads them is disturbed; the first prune after that removes them.

    \b
    semacdr prune                               show what would go
    semacdr prune --keep-last 5 --keep-days 30 --yes
    """
    if keep_days is not None and not keep_days <= MAX_DAYS:  # NaN, too
        raise ConfigError(
            "--keep-days",
            found=keep_days,
            expected=f"a number of days, at most {MAX_DAYS:,}",
            do="leave it out to keep none by age",
        )
    opened = open_existing_store(store)
    rule = Rule(keep_last=keep_last, keep_days=keep_days)
    plan = plan_prune(opened, rule, grace_s=grace_hours * 3600, now=datetime.now(UTC))
    if plan.manifests or plan.leftovers:
        open_console().print(_what_goes(plan))
    versions, files = len(plan.manifests), len(plan.leftovers)
    kept = sum(len(of_dataset.keep) for of_dataset in plan.plans.values())
    if yes:
        carry_out(opened, plan)
    for dataset_name, broken in plan.held.items():
        click.echo(f"nothing of {dataset_name!r} goes: what was {broken} made from? Restore its manifest, or remove it")
    verb = "removed" if yes else "would remove"
    click.echo(f"{verb} {versions:,} versions and {files:,} leftovers; {kept:,} versions stay")
    if not yes and (versions or files):
        click.echo("nothing has been touched: add --yes to do it")


@click.group()
def catalog() -> None:
    """Look after the DuckDB catalog."""


@catalog.command()
@STORE_OPTION
def rebuild(store: str | None) -> None:
    """Write catalog.duckdb anew from the manifests.

    Runs, promotions and prunes do it by themselves; it is never needed but after files were moved or removed by
    hand. The catalog holds nothing of its own, so it can be thrown away.

    \b
    semacdr catalog rebuild --store /data/store
    """
    opened = open_existing_store(store)
    started = time.monotonic()
    path = rebuild_catalog(opened)
    click.echo(f"{path}: {len(opened.manifests()):,} versions in {time.monotonic() - started:.1f} s")


def _what_goes(plan: Prune) -> Table:
    table = Table("dataset", "what", "from (UTC)", "MB")
    for manifest in plan.manifests:
        made = manifest.created_at[:19].replace("T", " ")
        megabytes = sum(file.bytes for file in manifest.files) / 1e6
        table.add_row(manifest.dataset, manifest.reference, made, f"{megabytes:,.1f}")
    for leftover in plan.leftovers:
        table.add_row("", f"{leftover.kind}: {escape(leftover.key)}", f"{leftover.age_s / 3600:,.1f} hours ago", "")
    return table
