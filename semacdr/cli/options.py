"""What several commands take: the store, and the name of an artifact in it."""

from __future__ import annotations

from pathlib import Path

import click

from semacdr.dataset import FILE_NAME, load_dataset
from semacdr.errors import ConfigError, StoreError, close_names
from semacdr.settings import load_settings
from semacdr.store import CURRENT, Artifact, Store
from semacdr.store.names import check_alias, check_artifact, check_version, is_version

STORE_OPTION = click.option(
    "--store", metavar="URI", help="A folder or s3://bucket/prefix.  [default: settings, else ./store]"
)
DATASET_OPTION = click.option("--dataset", help="Of this data set; needed when several have an artifact of that name.")


def open_store(store: str | None) -> Store:
    """Return the store that the option, the settings or the environment name."""
    settings = load_settings(store=store)
    return Store(settings.store, settings.cache)


def open_existing_store(store: str | None) -> Store:
    """Return the store that the option, the settings or the environment name.

    Raises:
        StoreError: there is none.
    """
    opened = open_store(store)
    if not opened.exists():
        raise StoreError(
            f"no store at {opened.uri}",
            expected="one that a run has published into",
            do="name it with --store, SEMACDR_STORE or semacdr.toml",
        )
    return opened


def dataset_name(reference: str) -> str:
    """Return the name of a data set that is given by its name in the store, or by its TOML or folder.

    Raises:
        ConfigError: the TOML is wrong.
    """
    is_path = "/" in reference or reference.endswith(".toml") or (Path(reference) / FILE_NAME).is_file()
    return reference if not is_path else load_dataset(reference, load_settings().datasets).name


def find_artifact(store: Store, reference: str, dataset: str | None) -> Artifact:
    """Return the artifact of ``NAME[@VERSION]``, where VERSION may be an alias; without it, the current one.

    Raises:
        ConfigError: there is none, or the name stands for several.
        StoreError: its manifest is broken.
    """
    name, _, version = reference.partition("@")
    version = version or CURRENT
    dataset = find_dataset(store, name, dataset)
    (check_version if version[0].isdigit() else check_alias)(version)
    if version not in (known := _versions_and_aliases(store, dataset, name)):
        kind = [other for other in known if is_version(other) == is_version(version)]
        raise ConfigError(
            f"no {name}@{version} of data set {dataset!r}",
            found=close_names(version, kind[-20:]),
            do=f"name a version or alias that exists: `semacdr show {name}`, `semacdr artifacts {dataset}`",
        )
    return store.get(dataset, name, version)


def find_dataset(store: Store, name: str, dataset: str | None) -> str:
    """Return the data set that has an artifact of this name.

    Raises:
        ConfigError: none has, or several have and none is named.
    """
    check_artifact(dataset or "any", name)
    survey = store.survey()
    places = [*((m.dataset, m.name) for m in survey.manifests), *((p.dataset, p.name) for p in survey.broken)]
    if dataset is not None and dataset not in (datasets := {known for known, _ in places}):
        raise ConfigError(
            f"no data set {dataset!r} in {store.uri}",
            found=close_names(dataset, datasets),
            do="name one that exists (`semacdr artifacts`)",
        )
    having = sorted({known for known, artifact in places if artifact == name and dataset in (None, known)})
    if not having:
        names = {artifact for known, artifact in places if dataset in (None, known)}
        raise ConfigError(
            f"no artifact {name!r} in {store.uri}",
            found=close_names(name, names) if names else "nothing is published",
            do="name one that exists (`semacdr artifacts`), or another --store",
        )
    if len(having) > 1:
        raise ConfigError(f"{name} of which data set?", found=", ".join(having), do="name it with --dataset")
    return having[0]


def find_alias(store: Store, dataset: str, name: str, alias: str) -> str:
    """Return the alias if there is such a one.

    Raises:
        ConfigError: there is none.
    """
    check_alias(alias)
    known = store.aliases(dataset, name)
    if alias not in known:
        raise ConfigError(
            f"no alias {alias!r} of {name} of data set {dataset!r}",
            found=close_names(alias, known),
            do=f"name one that exists (`semacdr show {name}`), or make it with `semacdr promote`",
        )
    return alias


def _versions_and_aliases(store: Store, dataset: str, name: str) -> list[str]:
    survey = store.survey(dataset, name)
    versions = [m.version for m in survey.manifests] + [place.version for place in survey.broken]
    return [*store.aliases(dataset, name), *versions]
