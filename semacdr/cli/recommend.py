"""The command ``recommend``: a list for a history that is given, by what the last batch was made with."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Column, Table

from semacdr.cli.options import STORE_OPTION, dataset_name, find_dataset, open_store
from semacdr.errors import ConfigError, close_names
from semacdr.terminal import open_console

if TYPE_CHECKING:
    from semacdr.recommendations.recommender import Event


@click.command()
@click.argument("dataset")
@click.option(
    "--history",
    default="",
    metavar="DOMAIN:ITEM,...",
    help="What the user took, oldest first; may be empty. An event with a comma stands in double quotes, as in CSV.",
)
@click.option("--user", help="Begin with what the log has of this user; --history is what came after it.")
@click.option("--domain", required=True, help="Recommend items of this domain.")
@click.option("--top", type=click.IntRange(min=1), help="Items.  [default: as many as the batch has]")
@click.option("--at", default="production", show_default=True, help="Version or alias of the recommendations.")
@click.option("--strict", is_flag=True, help="Refuse a history with an unknown item; else it is left out.")
@STORE_OPTION
def recommend(  # noqa: PLR0913 (options)
    *,
    dataset: str,
    history: str,
    user: str | None,
    domain: str,
    top: int | None,
    at: str,
    strict: bool,
    store: str | None,
) -> None:
    """Recommend items of a domain of DATASET without a run: for a history, or for a user of the log and new events.

    The model, items and rules are those of a published version of `recommendations`, and so is the answer for the
    same history. Prints rank, item, title, score and reason.

    \b
    semacdr recommend my-data --history "food:B001,kitchen:B777" --domain food --top 10
    semacdr recommend my-data --history '"food:salt, fine",kitchen:B777' --domain food
    semacdr recommend my-data --user A100 --history "food:B001" --domain kitchen
    semacdr recommend my-data --domain food --at current
    """
    from semacdr.recommendations import Recommender  # noqa: PLC0415 (torch takes seconds to import)

    opened = open_store(store)
    new: list[Event] = _events(history)
    recommender = Recommender.open(opened, find_dataset(opened, "recommendations", dataset_name(dataset)), at)
    events = (recommender.history(user) if user is not None else []) + new
    (found,) = recommender.recommend([events], domain, top, strict=strict)
    table = Table("rank", Column("item", overflow="fold"), "title", "score", "reason")
    for line in found:
        table.add_row(str(line.rank), *map(escape, (line.item_id, line.title or "", f"{line.score:.4f}", line.reason)))
    open_console().print(table)
    if unknown := recommender.unknown(events):
        click.echo(f"{len(unknown)} of {len(events)} events left out: items that are not known", err=True)
        for name in sorted({name for name, _ in unknown}.difference(recommender.domains)):
            click.echo(f"no domain {name!r}: {close_names(name, recommender.domains)}", err=True)


def _events(history: str) -> list[Event]:
    try:
        fields = next(csv.reader([history], skipinitialspace=True, strict=True), [])
    except csv.Error as error:
        raise _no_history(repr(history)) from error
    events = [tuple(event.strip().split(":", 1)) for event in fields if event.strip()]
    wrong = [event for event in events if len(event) != 2 or not all(event)]  # noqa: PLR2004
    if wrong:
        raise _no_history(":".join(wrong[0]))
    return [(domain, item) for domain, item in events]


def _no_history(found: str) -> ConfigError:
    return ConfigError(
        "--history",
        found=found,
        expected="DOMAIN:ITEM,DOMAIN:ITEM, oldest first, on one line, quotes in pairs",
        do="put an event with a comma in double quotes: 'books:1,\"books:a, b\"'",
    )
