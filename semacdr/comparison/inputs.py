"""What a row is evaluated on: the store's artifacts, split anew where another protocol is asked for."""

import fcntl
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import structlog

from semacdr import embeddings, sequences
from semacdr.comparison.own_words import own_words
from semacdr.comparison.rows import Row, Source, Texts
from semacdr.comparison.sources import alone
from semacdr.dataset import Protocol, Split
from semacdr.evaluation.task import Setting, Task
from semacdr.model.histories import read_events
from semacdr.model.titles import read_titles
from semacdr.model.vocabulary import Vocabulary
from semacdr.pipeline import Context
from semacdr.store import Artifact
from semacdr.tables import View, scan_files, table_files

log = structlog.get_logger()

FLOOR_INPUTS = ("interactions", "items")
MODEL_INPUTS = (*FLOOR_INPUTS, "embeddings", "semantics")


@dataclass(frozen=True)
class Prepared:
    """Folders of the inputs of one row."""

    folders: Mapping[str, Path]
    split: Split

    def task(self, setting: Setting) -> Task:
        """Return the task of the row's own sequences."""
        items = read_titles(self.folders["items"])
        vocabulary = Vocabulary.of_items(items)
        return Task(setting, vocabulary, items, read_events(self.folders["sequences"], vocabulary))


def row_folder(context: Context, row: Row, protocol: Protocol) -> Path:
    """Return the folder of the cache where a row is prepared."""
    return comparison_folder(context) / f"{protocol}-{row.slug}"


def comparison_folder(context: Context) -> Path:
    """Return the folder of the cache for all rows of a data set."""
    return context.settings.cache / "comparison" / context.dataset.name


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Keep other processes of this machine from what is made at a path; they wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waits", what=path.name, why="another process makes it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def prepare(context: Context, inputs: Mapping[str, Artifact], row: Row, protocol: Protocol, folder: Path) -> Prepared:
    """Write the sequences and, for a model, the embeddings that a row is evaluated on into a folder.

    Raises:
        DataError: the protocol leaves no events for a part.
    """
    split = context.dataset.split.model_copy(update={"protocol": protocol})
    folders = {name: artifact.path for name, artifact in inputs.items()}
    folders["sequences"] = _fresh(folder / "sequences")
    sequences.build(split, folders["interactions"], folders["sequences"], context.settings.duckdb)
    if row.source is Source.ALONE:
        file = folders["sequences"] / "sequences.parquet"
        alone(scan_files(file).collect()).write_parquet(file)
    if "embeddings" in folders:
        vectors = folders["embeddings"]
        if row.texts in {Texts.OWN_WORDS, Texts.MASKED}:
            texts = own_words(folders["items"], masked=row.texts is Texts.MASKED)
            vectors = _embedded(context, texts, folders["sequences"], _fresh(folder / row.texts))
        if row.texts is Texts.RANDOM:
            vectors = _random(vectors, _fresh(folder / "random"))
        folders["embeddings"] = _fresh(folder / "embeddings")
        embeddings.rewhiten(context.dataset.embeddings, vectors, folders["sequences"], folders["embeddings"])
    return Prepared(folders, split)


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _embedded(context: Context, texts: pl.DataFrame, sequences_folder: Path, output: Path) -> Path:
    """Embed each item's text (domain, item_id, text) as both of its views."""
    views = pl.DataFrame(
        {"view": [view.value for view in View]}, schema={"view": pl.Enum([view.value for view in View])}
    )
    texts = texts.join(views, how="cross").with_columns(source=pl.lit("fallback")).sort("domain", "item_id", "view")
    texts.write_parquet(output / "semantics.parquet")
    embeddings.embed(
        context.dataset.embeddings,
        context.settings.encoder,
        output,
        sequences_folder,
        context.store.vectors,
        output,
        context.progress,
    )
    return output


def _random(folder: Path, output: Path) -> Path:
    """Put random vectors of the same mean and covariance in the place of each view's."""
    rows = pl.concat(scan_files(file).collect() for file in table_files(folder, "embeddings"))
    vectors = rows["vector"].to_numpy().copy()
    for seed, view in enumerate(View):
        chosen = (rows["view"].cast(pl.String) == view.value).to_numpy()
        mean, spread = vectors[chosen].mean(axis=0), np.cov(vectors[chosen].T)
        drawn = np.random.default_rng(seed).multivariate_normal(mean, spread, int(chosen.sum()), method="eigh")
        vectors[chosen] = drawn
    rows = rows.with_columns(vector=pl.Series(vectors, dtype=pl.Array(pl.Float32, vectors.shape[1])))
    rows.write_parquet(output / "embeddings.parquet")
    return output
