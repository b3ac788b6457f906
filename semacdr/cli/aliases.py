"""Commands that point aliases at versions: ``promote`` and ``rollback``."""

from __future__ import annotations

import click

from semacdr.cli.options import DATASET_OPTION, STORE_OPTION, find_alias, find_artifact, find_dataset, open_store
from semacdr.store import promotion

_REASON = click.option("--reason", default="", help="Kept in the alias's history.")


@click.command()
@click.argument("reference", metavar="NAME@VERSION")
@click.argument("alias")
@_REASON
@click.option("--override", metavar="REASON", default="", help="Although the gate refused the artifact; kept, too.")
@DATASET_OPTION
@STORE_OPTION
def promote(*, reference: str, alias: str, reason: str, override: str, dataset: str | None, store: str | None) -> None:
    """Point ALIAS, an existing or a new one, at a version; readers of the alias get it from then on.

    What the gate refused needs --override; `semacdr sql "from gate_checks where not passed"` tells why.

    \b
    semacdr promote checkpoint@2026.11.24 production --reason "better on cold items"
    semacdr promote checkpoint@current production
    semacdr promote recommendations@current production --override "a new catalogue: little overlap is right"
    """
    opened = open_store(store)
    artifact = find_artifact(opened, reference, dataset)
    moved = promotion.promote(opened, artifact, alias, reason=reason, override=override)
    click.echo(f"{alias} points at {artifact.reference}" + ("" if moved else ", as before"))


@click.command()
@click.argument("name")
@click.argument("alias")
@_REASON
@DATASET_OPTION
@STORE_OPTION
def rollback(name: str, alias: str, reason: str, dataset: str | None, store: str | None) -> None:
    """Point ALIAS of NAME at the version that it pointed at before.

    The history keeps both moves; a second rollback undoes the first. A pipeline that runs points `current` at
    what it makes; pin readers to an alias of your own.

    \b
    semacdr rollback checkpoint production --reason "complaints about games"
    """
    opened = open_store(store)
    dataset = find_dataset(opened, name, dataset)
    find_alias(opened, dataset, name, alias)
    before, now = promotion.rollback(opened, dataset, name, alias, reason=reason)
    click.echo(f"{alias} points at {name}@{now.version}; it was at {name}@{before.version}")
