"""The command ``init``: a data set's TOML from its files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import click

from semacdr.dataset import FILE_NAME
from semacdr.errors import ConfigError
from semacdr.interactions import describe


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--log", "logs", multiple=True, required=True, metavar="DOMAIN=FILES", help="A domain's events.")
@click.option("--items", multiple=True, metavar="DOMAIN=FILES", help="A domain's items.")
@click.option(
    "--column", "columns", multiple=True, metavar="COLUMN=FIELD", help="Which field a column is, if not guessed."
)
@click.option("--name", help="Of the data set.  [default: that of the TOML's folder]")
def init(path: Path, logs: tuple[str, ...], items: tuple[str, ...], columns: tuple[str, ...], name: str | None) -> None:
    """Write the TOML of a data set at PATH, a new file or a folder, from its files.

    Which field is which is guessed from names and first records: look at what it prints. FILES is a path or a pattern
    in quotes; an option may be given again. Nothing is overwritten.

    \b
    semacdr init shop --log books=books.csv --log films='films-*.jsonl.gz' --items books=catalogue.csv
    semacdr init shop/dataset.toml --log books=books.csv --column user_id=buyer --name my-shop
    """
    toml = path if path.suffix == ".toml" else path / FILE_NAME
    if toml.exists():
        raise ConfigError(f"{toml} is there", expected="a new file", do="remove it, or edit it: docs/datasets.md")
    folder = toml.parent.resolve()
    called = name or re.sub(r"[^a-z0-9_.-]+", "-", folder.name.lower()).strip("_.-")
    if not called:
        raise ConfigError(
            f"a data set cannot be called {folder.name!r}", expected="letters and digits", do="give --name"
        )
    columns_given = _pairs("--column", columns)
    text = describe(folder / toml.name, called, _pairs("--log", logs), _pairs("--items", items), columns_given)
    toml.parent.mkdir(parents=True, exist_ok=True)
    toml.write_text(text, encoding="utf-8")
    click.echo(text)
    click.echo(f"Written to {toml}. Is every field the right one? Every key: docs/datasets.md. Then:\n", err=True)
    click.echo(f"    semacdr doctor --dataset {toml}\n    semacdr run {toml} --dry-run", err=True)


def _pairs(option: str, values: Iterable[str]) -> dict[str, list[str]]:
    """Return what stands before the first ``=`` with all that stands behind it."""
    pairs: dict[str, list[str]] = {}
    for value in values:
        key, is_pair, rest = value.partition("=")
        if not (is_pair and key and rest):
            raise ConfigError(option, found=value, expected="NAME=VALUE", do="give it so: books=books.csv")
        pairs.setdefault(key, []).append(rest)
    return pairs
