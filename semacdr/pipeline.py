"""The whole system on one page: every stage in order, what it reads, what it makes, and the function that does it.

    raw logs ─ingest─▶ interactions, items, rejects
    interactions ─sequences─▶ sequences
    items, interactions ─semantics─▶ semantics            two texts an item, by an LLM behind a vLLM server
    semantics, sequences ─embeddings─▶ embeddings         vectors and their whitening
    embeddings ─index─▶ index                             one FAISS file per domain and view
    sequences, items, embeddings ─training─▶ checkpoint    semantics, too: the leak linter asks who got a text
    checkpoint, sequences, items ─evaluation─▶ evaluation
    checkpoint, sequences, items ─recommendations─▶ recommendations, user_vectors, item_vectors

A stage is a plain function that reads artifacts and writes files. ``run_stage`` around it decides whether it has to run
(its fingerprint is not published yet), gives it a folder, and publishes what it made. Stages know neither each other
nor who orchestrates them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl
import structlog

from semacdr import embeddings, index, interactions, semantics, sequences
from semacdr.dataset import DatasetConfig
from semacdr.errors import ConfigError, SemacdrError, StoreError, close_names, examples
from semacdr.manifest import Facts, fingerprint
from semacdr.model.config import load_preset
from semacdr.progress import Progress
from semacdr.settings import Settings
from semacdr.store import CURRENT, Artifact, Draft, Store, catalog_shows, rebuild_catalog
from semacdr.tables import CONTRACT_VERSIONS, check_contract

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where and on what a stage runs."""

    dataset: DatasetConfig
    settings: Settings
    store: Store
    progress: Progress = field(default_factory=Progress)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of the pipeline."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    config: Callable[[DatasetConfig], Any]
    """The values that shape the outputs, as JSON."""
    run: Callable[[Context, Mapping[str, Artifact], Draft], Facts]
    """Write every output's files into the draft's folders."""
    sources: Callable[[Context, Mapping[str, Artifact]], dict[str, Any]] | None = None
    """The identity of what the stage reads from outside the store's artifacts."""
    gather: Callable[[Context, Mapping[str, Artifact]], None] | None = None
    """Get more of it, as far as the budget goes."""
    revision: int = 1
    """Raised when the stage's code makes other content from the same inputs."""


def _sections(*names: str) -> Callable[[DatasetConfig], dict[str, Any]]:
    return lambda dataset: dataset.model_dump(mode="json", include=set(names))


def _ingest_config(dataset: DatasetConfig) -> dict[str, Any]:
    wording = {"label", "expert"}
    domains = {name: domain.model_dump(mode="json", exclude=wording) for name, domain in dataset.domains.items()}
    return {"domains": domains, "filters": dataset.filters.model_dump(mode="json")}


def _semantics_config(dataset: DatasetConfig) -> dict[str, Any]:
    # The budget and the domains' words shape which answers there are, and the answers are among the sources.
    return dataset.semantics.model_dump(mode="json", exclude={"budget"})


def _ingest(context: Context, inputs: Mapping[str, Artifact], draft: Draft) -> Facts:
    return interactions.ingest(context.dataset, draft.folders, context.settings.duckdb, context.progress)


def _sequences(context: Context, inputs: Mapping[str, Artifact], draft: Draft) -> Facts:
    return sequences.build(
        context.dataset.split, inputs["interactions"].path, draft.folders["sequences"], context.settings.duckdb
    )


def _gather_semantics(context: Context, inputs: Mapping[str, Artifact]) -> None:
    semantics.gather(
        context.dataset,
        context.settings.llm,
        _semantics_inputs(context, inputs),
        semantics.Responses(context.store.responses),
        context.settings.cache,
        context.progress,
    )


def _semantics_inputs(context: Context, inputs: Mapping[str, Artifact]) -> semantics.Inputs:
    return semantics.Inputs(inputs["items"].path, inputs["interactions"].path, _current(context, "semantics"))


def _current(context: Context, name: str) -> Path | None:
    """Return the folder of the last run's artifact, from which a stage goes on; None if there is none to be read."""
    try:
        return context.store.get(context.dataset.name, name).path
    except StoreError:
        return None


def _semantics_sources(context: Context, inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    responses = semantics.Responses(context.store.responses)
    return semantics.answers_digest(context.dataset, context.settings.llm, inputs["items"].path, responses)


def _semantics(context: Context, inputs: Mapping[str, Artifact], draft: Draft) -> Facts:
    return semantics.assemble(
        context.dataset,
        context.settings.llm,
        inputs["items"].path,
        semantics.Responses(context.store.responses),
        draft.folders["semantics"],
    )


def _embeddings(context: Context, inputs: Mapping[str, Artifact], draft: Draft) -> Facts:
    return embeddings.embed(
        context.dataset.embeddings,
        context.settings.encoder,
        inputs["semantics"].path,
        inputs["sequences"].path,
        context.store.vectors,
        draft.folders["embeddings"],
        context.progress,
    )


def _index(context: Context, inputs: Mapping[str, Artifact], draft: Draft) -> Facts:
    last = _current(context, "index")
    return index.build(inputs["embeddings"].path, draft.folders["index"], context.dataset.index, context.progress, last)


def _training(context: Context, inputs: Mapping[str, Artifact], draft: Draft) -> Facts:
    from semacdr import training

    return training.train(
        context.dataset.training,
        context.dataset.split,
        {name: artifact.path for name, artifact in inputs.items()},
        draft.folders["checkpoint"],
        training.Run(context.settings.threads, context.settings.cache / "training" / draft.fingerprint),
        context.progress,
    )


def _evaluation(context: Context, inputs: Mapping[str, Artifact], draft: Draft) -> Facts:
    from semacdr import evaluation

    return evaluation.evaluate(
        context.dataset.split.protocol,
        {name: artifact.path for name, artifact in inputs.items()},
        draft.folders["evaluation"],
        context.dataset.training.seed,
        context.progress,
        context.settings.threads,
    )


def _recommendations(context: Context, inputs: Mapping[str, Artifact], draft: Draft) -> Facts:
    from semacdr import recommendations

    return recommendations.recommend_all(
        context.dataset.recommendations,
        {name: artifact.path for name, artifact in inputs.items()},
        draft.folders,
        context.progress,
    )


STAGES: tuple[Stage, ...] = (
    Stage(
        name="ingest",
        inputs=(),
        outputs=("interactions", "items", "rejects"),
        config=_ingest_config,
        sources=lambda context, _: {"files": interactions.raw_files(context.dataset)},
        run=_ingest,
    ),
    Stage(
        name="sequences",
        inputs=("interactions",),
        outputs=("sequences",),
        config=_sections("split"),
        run=_sequences,
    ),
    Stage(
        name="semantics",
        inputs=("items", "interactions"),
        outputs=("semantics",),
        config=_semantics_config,
        gather=_gather_semantics,
        sources=_semantics_sources,
        run=_semantics,
    ),
    Stage(
        name="embeddings",
        inputs=("semantics", "sequences"),
        outputs=("embeddings",),
        config=_sections("embeddings"),
        run=_embeddings,
    ),
    Stage(
        name="index",
        inputs=("embeddings",),
        outputs=("index",),
        config=_sections("index"),
        run=_index,
    ),
    Stage(
        name="training",
        inputs=("sequences", "items", "embeddings", "semantics"),
        outputs=("checkpoint",),
        config=_sections("training"),
        run=_training,
        revision=3,
    ),
    Stage(
        name="evaluation",
        inputs=("checkpoint", "sequences", "items"),
        outputs=("evaluation",),
        config=lambda dataset: {"seed": dataset.training.seed},
        run=_evaluation,
        revision=3,
    ),
    Stage(
        name="recommendations",
        inputs=("checkpoint", "sequences", "items"),
        outputs=("recommendations", "user_vectors", "item_vectors"),
        config=_sections("recommendations"),
        run=_recommendations,
        revision=2,
    ),
)


def find_stage(name: str) -> Stage:
    """Return a stage by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    for stage in STAGES:
        if stage.name == name:
            return stage
    raise ConfigError(f"no stage {name!r}", expected=close_names(name, [stage.name for stage in STAGES]))


def check_dataset(dataset: DatasetConfig) -> None:
    """Find what is wrong with a data set before anything runs, so that no LLM is paid for a slip of the pen.

    Raises:
        ConfigError: a raw file is missing, there is no such preset, or an override is impossible.
    """
    interactions.raw_files(dataset)
    load_preset(dataset.training.preset, dataset.training.overrides)


def refreshable(names: Iterable[str]) -> set[str]:
    """Return the names, all of stages that gather from outside the store.

    Raises:
        ConfigError: there is no such stage, or it gathers nothing.
    """
    for name in names:
        if find_stage(name).gather is None:
            able = ", ".join(stage.name for stage in STAGES if stage.gather)
            raise ConfigError(
                f"stage {name!r} has nothing to refresh", found="it runs when its inputs change", expected=able
            )
    return set(names)


def outlook(stages: Iterable[Stage], context: Context) -> dict[str, str]:
    """Return stage -> what ``run_stage`` would do about it, in words; does nothing.

    Raises:
        SemacdrError: as ``run_stage``, for what shapes the outputs.
    """
    dataset, store = context.dataset.name, context.store
    found: dict[str, str] = {}
    anew: set[str] = set()
    for stage in stages:
        there = {m.name for m in store.manifests(dataset)}
        if changed := [name for name in stage.inputs if name in anew or name not in there]:
            found[stage.name] = f"runs: {', '.join(changed)} {'is' if len(changed) == 1 else 'are'} made anew"
        elif _find_published(stage, context, {name: store.get(dataset, name) for name in stage.inputs}):
            found[stage.name] = "unchanged"
        else:
            found[stage.name] = "runs"
        if found[stage.name] != "unchanged":
            anew |= set(stage.outputs)
    return found


def plan_semantics(context: Context) -> semantics.Plan:
    """Return what the semantics stage would ask if it gathered now; the data set must be ingested."""
    dataset, llm = context.dataset, context.settings.llm
    artifacts = {name: context.store.get(dataset.name, name) for name in ("items", "interactions")}
    inputs, responses = _semantics_inputs(context, artifacts), semantics.Responses(context.store.responses)
    wanted = semantics.select(dataset, llm, inputs, responses)
    return semantics.plan(dataset, llm, inputs.items, responses, wanted)


def run_stage(stage: Stage, context: Context, *, refresh: bool = False) -> dict[str, Artifact]:
    """Run a stage on the current versions of its inputs and publish what it makes, if that is not published yet.

    Args:
        stage: which.
        context: where and on what.
        refresh: let a stage that gathers from outside the store gather more although nothing has changed: the
            semantics stage spends another budget on items that lack an answer.

    Returns:
        Its outputs at their current versions, by name.

    Raises:
        SemacdrError: see the stage; nothing is published then.
    """
    started = time.monotonic()
    dataset, store = context.dataset.name, context.store
    bound = log.bind(stage=stage.name, dataset=dataset)
    inputs = {name: store.get(dataset, name) for name in stage.inputs}
    for artifact in inputs.values():
        check_contract(artifact.manifest.name, artifact.manifest.contract_version, artifact.reference)
    with _blamed(store, inputs):
        if not (refresh and stage.gather) and (known := _published(stage, context, inputs)):
            bound.info("unchanged", artifacts=[artifact.reference for artifact in known.values()])
            return known
        _refuse_broken(store, inputs, whole=False)
        if stage.gather is not None:
            with store.gathering_responses():
                stage.gather(context, inputs)
            if known := _published(stage, context, inputs):
                bound.info("unchanged", artifacts=[artifact.reference for artifact in known.values()])
                return known
        draft = replace(_draft(stage, context, inputs), started=started)
        with store.open_draft(draft, stage.outputs):
            facts = stage.run(context, inputs, draft)
            artifacts = store.publish(draft, facts)
            rebuild_catalog(store)
    rows_out = {table: rows for a in artifacts.values() for table, rows in a.manifest.rows_out.items()}
    bound.info(
        "published",
        artifacts=[artifact.reference for artifact in artifacts.values()],
        rows_in=facts.rows_in,
        rows_out=rows_out,
        dropped=dict(facts.dropped),
        seconds=round(time.monotonic() - started, 1),
        **{name: round(value, 4) for name, value in facts.metrics.items()},
    )
    return artifacts


@contextmanager
def _blamed(store: Store, inputs: Mapping[str, Artifact]) -> Iterator[None]:
    """If the block fails in a library, look whether an input's bytes are to blame: its error would name no artifact.

    Raises:
        StoreError: an input is broken.
    """
    try:
        yield
    except SemacdrError:
        raise
    # Polars panics on some broken files, and a panic is no Exception.
    except (Exception, pl.exceptions.PanicException) as error:
        try:
            _refuse_broken(store, inputs, whole=True)
        except StoreError as broken:
            raise broken from error
        raise


def _refuse_broken(store: Store, inputs: Mapping[str, Artifact], *, whole: bool) -> None:
    for artifact in inputs.values():
        faults = store.faults(artifact.manifest, whole=whole)
        if faults:
            raise StoreError(
                f"{artifact.reference} of {artifact.manifest.dataset!r} is broken: no stage can read it",
                found=examples(faults),
                expected="the files that were published",
                do=f"restore them, or remove {store.location(artifact.manifest)} and run again, which makes it anew;"
                " `semacdr verify` lists all that is broken",
            )


def _draft(stage: Stage, context: Context, inputs: Mapping[str, Artifact]) -> Draft:
    sources = stage.sources(context, inputs) if stage.sources else {}
    config = stage.config(context.dataset)
    identity = {
        "stage": stage.name,
        "revision": stage.revision,
        "contracts": {name: CONTRACT_VERSIONS[name] for name in stage.outputs},
        "config": config,
        "sources": sources,
        "inputs": {name: artifact.manifest.fingerprint for name, artifact in inputs.items()},
    }
    return Draft(
        dataset=context.dataset.name,
        stage=stage.name,
        fingerprint=fingerprint(identity),
        config=config,
        sources=sources,
        inputs=inputs,
    )


def _published(stage: Stage, context: Context, inputs: Mapping[str, Artifact]) -> dict[str, Artifact] | None:
    """Return the stage's outputs if all are published with today's fingerprint, and point ``current`` at them."""
    known = _find_published(stage, context, inputs)
    if known is None:
        return None
    dataset, store = context.dataset.name, context.store
    moved = [store.move_alias(dataset, name, CURRENT, artifact.manifest.version) for name, artifact in known.items()]
    if any(moved) or not catalog_shows(store, known.values()):
        rebuild_catalog(store)
    return known


def _find_published(stage: Stage, context: Context, inputs: Mapping[str, Artifact]) -> dict[str, Artifact] | None:
    wanted = _draft(stage, context, inputs).fingerprint
    found = (context.store.find(context.dataset.name, name, wanted) for name in stage.outputs)
    known = {artifact.manifest.name: artifact for artifact in found if artifact}
    return known if len(known) == len(stage.outputs) else None
