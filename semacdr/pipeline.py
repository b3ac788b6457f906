"""The whole system on one page: every stage in order, what it reads, what it makes, and the function that does it.

    raw logs ─ingest─▶ interactions, items, rejects
    interactions ─sequences─▶ sequences
    items, interactions ─semantics─▶ semantics            two texts an item, by an LLM behind a vLLM server
    semantics, sequences ─embeddings─▶ embeddings         vectors and their whitening
    embeddings ─index─▶ index                             one FAISS file per domain and view
    sequences, items, embeddings ─training─▶ checkpoint    semantics, too: the leak linter asks who got a text
    checkpoint, sequences, items, embeddings ─evaluation─▶ evaluation
    checkpoint, sequences, items, embeddings ─recommendations─▶ recommendations, user_vectors, item_vectors
    checkpoint, index, recommendations and what tells of them ─gate─▶ gate, and with it the alias production
    evaluation, checkpoint, recommendations and what they were made from ─report─▶ report, a page for people

A stage is a plain function that reads artifacts and writes files. ``run_stage`` around it decides whether it has to run
(its fingerprint is not published yet), gives it a folder, and publishes what it made. Stages know neither each other
nor who orchestrates them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import structlog

from semacdr import embeddings, gate, index, interactions, semantics, sequences
from semacdr.availability import available
from semacdr.dataset import DatasetConfig, load_dataset, namesakes, refuse_namesake
from semacdr.errors import ConfigError, SemacdrError, StoreError, close_names, examples
from semacdr.manifest import Facts, fingerprint
from semacdr.model.config import load_preset
from semacdr.progress import Progress
from semacdr.settings import Settings
from semacdr.spread import Spread, here
from semacdr.store import CURRENT, Artifact, Draft, Store, catalog_shows, rebuild_catalog
from semacdr.store.lineage import is_made_from, made_from
from semacdr.store.promotion import PRODUCTION, admit, formerly, replaced
from semacdr.store.promotion import known as known_artifact
from semacdr.tables import CONTRACT_VERSIONS, check_contract, scan_files

if TYPE_CHECKING:
    from semacdr import recommendations

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where and on what a stage runs."""

    dataset: DatasetConfig
    settings: Settings
    store: Store
    progress: Progress = field(default_factory=Progress)
    spread: Spread = here
    """Where the shards of ingest, embeddings and recommendations run."""
    turn: Callable[[Stage], AbstractContextManager[None]] = lambda _: nullcontext()
    """What a stage enters before it works: may wait while another run works on the same."""


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
    keeps: Callable[[Context, Mapping[str, Artifact]], dict[str, Artifact] | None] | None = None
    """Return the outputs that serve on although something has changed; None: they do not."""
    settle: Callable[[Context, Mapping[str, Artifact]], bool] | None = None
    """What follows from the outputs once they are published; called at every run. Tells whether an alias has moved."""
    revision: int = 1
    """Raised when the stage's code makes other content from the same inputs."""


def _sections(*names: str) -> Callable[[DatasetConfig], dict[str, Any]]:
    return lambda dataset: dataset.model_dump(mode="json", include=set(names))


def _ingest_config(dataset: DatasetConfig) -> dict[str, Any]:
    wording = {"label", "expert"}
    domains = {name: domain.model_dump(mode="json", exclude=wording) for name, domain in dataset.domains.items()}
    return {"domains": domains, "filters": dataset.filters.model_dump(mode="json", exclude_none=True)}


def _semantics_config(dataset: DatasetConfig) -> dict[str, Any]:
    # The budget and the domains' words shape which answers there are, and the answers are among the sources.
    return dataset.semantics.model_dump(mode="json", exclude={"budget"})


def _training_config(dataset: DatasetConfig) -> dict[str, Any]:
    training = dataset.training
    model = load_preset(training.preset, training.overrides).model_dump(mode="json")
    return {"training": training.model_dump(mode="json", exclude={"max_age_days"}), "model": model}


def _ingest(context: Context, inputs: Mapping[str, Artifact], draft: Draft) -> Facts:
    return interactions.ingest(
        context.dataset, draft.folders, context.settings.duckdb, context.progress, context.spread
    )


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
        context.spread,
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
        training.Run(
            context.settings.threads,
            context.settings.cache / "training" / draft.fingerprint,
            training.Compute.of(
                context.settings.device, bfloat16=context.settings.bfloat16, compiled=context.settings.compile
            ),
        ),
        context.progress,
    )


def _young_checkpoint(context: Context, inputs: Mapping[str, Artifact]) -> dict[str, Artifact] | None:
    """The current checkpoint, if it is young, of today's configuration and format, and today's items can be added.

    That is, it was made from sequences and embeddings of today's configuration, no item of it is gone, no domain is
    new, and the cut before the test targets has not moved back: it would have been trained on some of them.
    """
    from semacdr.model.checkpoint import is_readable

    dataset, store = context.dataset, context.store
    try:
        last = store.get(dataset.name, "checkpoint")
        made = {name: made_from(store, last, name).manifest for name in ("sequences", "embeddings")}
    except StoreError:
        return None
    then = {name: manifest.config for name, manifest in made.items()}
    cut, cut_then = (m.details.get("t_test_s", 0) for m in (inputs["sequences"].manifest, made["sequences"]))
    if cut < cut_then:
        return None
    age = datetime.now(UTC) - datetime.fromisoformat(last.manifest.created_at)
    if age >= timedelta(days=dataset.training.max_age_days) or last.manifest.config != _training_config(dataset):
        return None
    if then != {name: inputs[name].manifest.config for name in then} or not is_readable(last.path):
        return None
    keys = ["domain", "item_id"]
    known, today = (
        scan_files(last.path / "vocabulary.parquet").select(keys),
        inputs["items"].scan().select(keys),
    )
    gone, new = known.join(today, on=keys, how="anti"), today.join(known, on="domain", how="anti")
    return None if any(some.head(1).collect().height for some in (gone, new)) else {"checkpoint": last}


def _grown_from(context: Context, inputs: Mapping[str, Artifact]) -> dict[str, Path]:
    """The inputs' folders, and those of what the checkpoint was made from, which tell it of new items."""
    from semacdr.model.growth import TRAINED_ON

    trained = {f"trained_{name}": made_from(context.store, inputs["checkpoint"], name) for name in TRAINED_ON}
    return {name: artifact.path for name, artifact in {**inputs, **trained}.items()}


def _evaluation(context: Context, inputs: Mapping[str, Artifact], draft: Draft) -> Facts:
    from semacdr import evaluation

    return evaluation.evaluate(
        context.dataset.split.protocol,
        _grown_from(context, inputs),
        draft.folders["evaluation"],
        context.dataset.training.seed,
        context.progress,
        context.settings.threads,
    )


def _kept_evaluation(context: Context, inputs: Mapping[str, Artifact]) -> dict[str, Artifact] | None:
    """The current evaluation, if it is of today's checkpoint, code, split and seed, and of much the same targets."""
    from semacdr import evaluation

    store, stage = context.store, find_stage("evaluation")
    try:
        last = store.get(context.dataset.name, "evaluation")
        then = {name: made_from(store, last, name) for name in stage.inputs}
    except StoreError:
        return None
    same = then["checkpoint"].reference == inputs["checkpoint"].reference
    same &= then["sequences"].manifest.config == inputs["sequences"].manifest.config
    # The fingerprint that today's code and configuration give what it was made from.
    if not same or _draft(stage, context, then).fingerprint != last.manifest.fingerprint:
        return None
    days = ({name: made[name].scan() for name in ("sequences", "items")} for made in (then, inputs))
    return {"evaluation": last} if evaluation.much_the_same(*days) else None


def _recommendations(context: Context, inputs: Mapping[str, Artifact], draft: Draft) -> Facts:
    from semacdr import recommendations

    return recommendations.recommend_all(
        context.dataset.recommendations,
        _grown_from(context, inputs),
        draft.folders,
        recommendations.Run(
            context.settings.cache / "recommendations" / draft.fingerprint, _last_recommendations(context, draft)
        ),
        context.progress,
        context.spread,
    )


def _last_recommendations(context: Context, draft: Draft) -> recommendations.Last | None:
    """The current recommendations, if they were made by the same rules from the same checkpoint."""
    from semacdr import recommendations

    try:
        last = {name: context.store.get(draft.dataset, name) for name in ("recommendations", "user_vectors")}
        sequences = made_from(context.store, last["recommendations"], "sequences")
    except StoreError:
        return None
    checkpoint = draft.inputs["checkpoint"].manifest
    manifests = [artifact.manifest for artifact in last.values()]
    same = all(m.config == draft.config and is_made_from(m, checkpoint) for m in manifests)
    if not same or len({m.fingerprint for m in manifests}) > 1:
        return None
    return recommendations.Last(last["recommendations"].path, last["user_vectors"].path, sequences.path)


def _gate_config(dataset: DatasetConfig) -> dict[str, Any]:
    recall = {"wanted_recall": dataset.index.wanted_recall, "seed": dataset.training.seed}
    return {"gate": dataset.gate.model_dump(mode="json"), **recall}


def _gate_sources(context: Context, inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    before = {name: replaced(context.store, inputs[name]) for name in gate.GROUPS}
    production = {name: artifact and artifact.manifest.version for name, artifact in before.items()}
    best = _best_of_late(context, inputs["checkpoint"])
    return {"production": production, "best": best and best[1].reference}


def _best_of_late(context: Context, checkpoint: Artifact) -> tuple[Artifact, Artifact] | None:
    """The best checkpoint that was in production lately, before this one, and its evaluation; None: none was."""
    before = formerly(context.store, checkpoint, context.dataset.gate.compare_last)
    made = [(one, found) for one in before if (found := _evaluation_of(context, one))]
    return max(made, key=lambda pair: pair[1].manifest.metrics["ndcg_10"], default=None)


def _evaluation_of(context: Context, checkpoint: Artifact) -> Artifact | None:
    store, dataset = context.store, context.dataset.name
    made = [m for m in store.manifests(dataset, "evaluation") if is_made_from(m, checkpoint.manifest)]
    return store.get(dataset, "evaluation", made[-1].version) if made else None


def _gate(context: Context, inputs: Mapping[str, Artifact], draft: Draft) -> Facts:
    dataset, store = context.dataset, context.store
    _demand_made_from(inputs["evaluation"], inputs["checkpoint"])
    _demand_made_from(inputs["recommendations"], inputs["checkpoint"])
    there = {name: known_artifact(store, dataset.name, name, PRODUCTION) for name in gate.GROUPS}
    production = {name: artifact for name, artifact in there.items() if artifact}
    if "checkpoint" in production:
        if evaluation := _evaluation_of(context, production["checkpoint"]):
            production["evaluation"] = evaluation
        if best := _best_of_late(context, inputs["checkpoint"]):
            production["best_checkpoint"], production["best_evaluation"] = best
    if "recommendations" in production:
        production["items"] = made_from(store, production["recommendations"], "items")
    return gate.judge(
        dataset.gate,
        dataset.index.wanted_recall,
        dataset.training.seed,
        gate.Side(inputs),
        gate.Side(production),
        draft.folders["gate"],
    )


def _demand_made_from(made: Artifact, source: Artifact) -> None:
    if not is_made_from(made.manifest, source.manifest):
        raise StoreError(
            f"{made.reference} was not made from {source.reference}",
            found=", ".join(made.manifest.inputs),
            do="run the whole pipeline: what is judged must belong together",
        )


def _admit(context: Context, outputs: Mapping[str, Artifact]) -> bool:
    moved = admit(context.store, outputs["gate"])
    if moved:
        log.info("in production", dataset=context.dataset.name, artifacts=moved)
    return bool(moved)


def _report(context: Context, inputs: Mapping[str, Artifact], draft: Draft) -> Facts:
    from semacdr import reports

    _demand_made_from(inputs["evaluation"], inputs["checkpoint"])
    _demand_made_from(inputs["recommendations"], inputs["checkpoint"])
    return reports.report([inputs["evaluation"]], inputs, draft.folders["report"])


STAGES: tuple[Stage, ...] = (
    Stage(
        name="ingest",
        inputs=(),
        outputs=("interactions", "items", "rejects"),
        config=_ingest_config,
        sources=lambda context, _: {"files": interactions.raw_files(context.dataset)},
        run=_ingest,
        revision=3,
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
        revision=2,
    ),
    Stage(
        name="index",
        inputs=("embeddings",),
        outputs=("index",),
        config=_sections("index"),
        run=_index,
        revision=2,
    ),
    Stage(
        name="training",
        inputs=("sequences", "items", "embeddings", "semantics"),
        outputs=("checkpoint",),
        config=_training_config,
        run=_training,
        keeps=_young_checkpoint,
        revision=15,
    ),
    Stage(
        name="evaluation",
        inputs=("checkpoint", "sequences", "items", "embeddings"),
        outputs=("evaluation",),
        config=lambda dataset: {"seed": dataset.training.seed},
        run=_evaluation,
        keeps=_kept_evaluation,
        revision=4,
    ),
    Stage(
        name="recommendations",
        inputs=("checkpoint", "sequences", "items", "embeddings"),
        outputs=("recommendations", "user_vectors", "item_vectors"),
        config=_sections("recommendations"),
        run=_recommendations,
        revision=4,
    ),
    Stage(
        name="gate",
        inputs=(
            "checkpoint",
            "evaluation",
            "index",
            "semantics",
            "sequences",
            "items",
            "recommendations",
            "user_vectors",
            "item_vectors",
        ),
        outputs=("gate",),
        config=_gate_config,
        sources=_gate_sources,
        run=_gate,
        settle=_admit,
        revision=5,
    ),
    Stage(
        name="report",
        inputs=(
            "evaluation",
            "checkpoint",
            "sequences",
            "items",
            "semantics",
            "embeddings",
            "recommendations",
            "user_vectors",
            "item_vectors",
        ),
        outputs=("report",),
        config=lambda _: {},
        run=_report,
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


def check_dataset(dataset: DatasetConfig, settings: Settings, store: Store) -> None:
    """Find what is wrong with a data set before anything runs, so that no LLM is paid for a slip of the pen.

    Raises:
        ConfigError: a raw file, an import, the prompt or the encoder is missing, there is no such preset, an override
            is impossible, the availability is no condition, or another data set in the folders of the settings or in
            the store has the same name.
        StoreError: the store cannot be read.
    """
    refuse_namesake(dataset, settings.datasets)
    interactions.check_raw_files(dataset)
    _refuse_to_replace(dataset, store)
    load_preset(dataset.training.preset, dataset.training.overrides)
    semantics.check_files(dataset)
    if settings.encoder.url is None:
        embeddings.locate(dataset.embeddings.encoder)
    if (condition := dataset.recommendations.availability) is not None:
        available(interactions.no_items(), condition)


def _refuse_to_replace(dataset: DatasetConfig, store: Store) -> None:
    """Look whether the store's artifacts of this name are those of another data set, whose TOML is still there.

    One that was moved is the same, and so is a copy as long as both have the same logs.

    Raises:
        ConfigError: they are.
        StoreError: the store cannot be read.
    """
    if not (ingested := store.manifests(dataset.name, "interactions")):
        return
    described_by = Path(str(ingested[-1].details.get(interactions.DESCRIBED_BY, dataset.path)))
    try:
        if described_by == dataset.path or not described_by.is_file():
            return
        other = load_dataset(described_by)
        is_another = other.name == dataset.name and not interactions.same_raw_files(dataset, other)
    except (ConfigError, OSError):
        return  # nobody can run it as it is
    if is_another:
        raise namesakes(dataset, described_by, "; or remove the other, and this one takes its place")


def refreshable(names: Iterable[str]) -> set[str]:
    """Return the names, all of stages that gather from outside the store, or keep what they made for a while.

    Raises:
        ConfigError: there is no such stage, or it does neither.
    """
    for name in names:
        if find_stage(name).gather is None and find_stage(name).keeps is None:
            able = ", ".join(stage.name for stage in STAGES if stage.gather or stage.keeps)
            raise ConfigError(
                f"stage {name!r} has nothing to refresh", found="it runs when its inputs change", expected=able
            )
    return set(names)


def outlook(stages: Iterable[Stage], context: Context, refresh: Collection[str] = ()) -> dict[str, str]:
    """Return stage -> what ``run_stage`` would do about it, in words; does nothing.

    Args:
        stages: which.
        context: where and on what.
        refresh: the stages that are to be refreshed.

    Raises:
        SemacdrError: as ``run_stage``, for what shapes the outputs.
    """
    dataset, store = context.dataset.name, context.store
    found: dict[str, str] = {}
    anew: set[str] = set()
    for stage in stages:
        there = {m.name for m in store.manifests(dataset)}
        if changed := [name for name in stage.inputs if name in anew or name not in there]:
            does = "runs, or keeps what it made" if stage.keeps else "runs"
            found[stage.name] = f"{does}: {', '.join(changed)} {'is' if len(changed) == 1 else 'are'} made anew"
        elif stage.gather and stage.name in refresh:
            found[stage.name] = "runs: gathers more"
        elif _find_published(stage, context, _draft(stage, context, inputs := _inputs(stage, context))):
            found[stage.name] = "unchanged"
        elif stage.keeps and stage.name not in refresh and stage.keeps(context, inputs):
            found[stage.name] = "keeps what it made"
        else:
            found[stage.name] = "runs"
        if found[stage.name].startswith("runs"):
            anew |= set(stage.outputs)
    return found


def plan_semantics(context: Context) -> semantics.Plan:
    """Return what the semantics stage would ask if it gathered now; the data set must be ingested."""
    dataset, llm = context.dataset, context.settings.llm
    artifacts = {name: context.store.get(dataset.name, name) for name in ("items", "interactions")}
    refuse_broken(context.store, artifacts)
    inputs, responses = _semantics_inputs(context, artifacts), semantics.Responses(context.store.responses)
    with semantics.select(dataset, llm, inputs, responses, context.settings.cache) as selection:
        return semantics.plan(dataset, llm, responses, selection)


def run_stage(stage: Stage, context: Context, *, refresh: bool = False) -> dict[str, Artifact]:
    """Run a stage on the current versions of its inputs and publish what it makes, if that is not published yet.

    Args:
        stage: which.
        context: where and on what.
        refresh: let a stage that gathers from outside the store gather more although nothing has changed: the
            semantics stage spends another budget on items that lack an answer. A stage that keeps what it made for a
            while makes it anew.

    Returns:
        Its outputs at their current versions, by name.

    Raises:
        SemacdrError: see the stage; nothing is published then.
    """
    started = time.monotonic()
    dataset, store = context.dataset.name, context.store
    bound = log.bind(stage=stage.name, dataset=dataset)
    inputs = _inputs(stage, context)
    drafted = partial(_draft, stage, context, inputs)
    for artifact in inputs.values():
        check_contract(artifact.manifest.name, artifact.manifest.contract_version, artifact.reference)
    with _blamed(store, inputs):
        if not (refresh and stage.gather) and (known := _published(stage, context, drafted())):
            return _served(stage, context, known)
        if stage.keeps and not refresh and (kept := stage.keeps(context, inputs)):
            bound.info("kept", artifacts=[artifact.reference for artifact in kept.values()])
            return kept
        refuse_broken(store, inputs)
        before = _current_versions(stage, context)
        with context.turn(stage):
            # Another run may have made newer inputs, or done the work, while this one waited.
            if any(now.reference != inputs[name].reference for name, now in _inputs(stage, context).items()):
                return run_stage(stage, replace(context, turn=Context.turn), refresh=refresh)
            if _current_versions(stage, context) != before and (known := _published(stage, context, drafted())):
                return _served(stage, context, known)
            if stage.gather is not None:
                with store.gathering_responses():
                    stage.gather(context, inputs)
            draft = replace(drafted(), started=started)
            if stage.gather is not None and (known := _published(stage, context, draft)):
                return _served(stage, context, known)
            with store.open_draft(draft, stage.outputs):
                facts = stage.run(context, inputs, draft)
                artifacts = store.publish(draft, facts)
        if stage.settle is not None:
            stage.settle(context, artifacts)
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


def _inputs(stage: Stage, context: Context) -> dict[str, Artifact]:
    return {name: context.store.get(context.dataset.name, name) for name in stage.inputs}


def _current_versions(stage: Stage, context: Context) -> list[str | None]:
    dataset, store = context.dataset.name, context.store
    return [store.aliases(dataset, name).get(CURRENT) for name in stage.outputs]


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
            refuse_broken(store, inputs, whole=True)
        except StoreError as broken:
            raise broken from error
        raise


def refuse_broken(store: Store, inputs: Mapping[str, Artifact], *, whole: bool = False) -> None:
    """Look whether files of artifacts are as they were published.

    Args:
        store: which.
        inputs: by name.
        whole: read every byte; else sizes alone are looked at.

    Raises:
        StoreError: a file is missing or another.
    """
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


def _served(stage: Stage, context: Context, known: dict[str, Artifact]) -> dict[str, Artifact]:
    """Say that what is published serves, and do what follows from it; return it."""
    references = [artifact.reference for artifact in known.values()]
    log.info("unchanged", stage=stage.name, dataset=context.dataset.name, artifacts=references)
    if stage.settle is not None and stage.settle(context, known):
        rebuild_catalog(context.store)
    return known


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


def _published(stage: Stage, context: Context, draft: Draft) -> dict[str, Artifact] | None:
    """Return the stage's outputs if all are published with the draft's fingerprint, and point ``current`` at them."""
    known = _find_published(stage, context, draft)
    if known is None:
        return None
    dataset, store = context.dataset.name, context.store
    moved = [store.move_alias(dataset, name, CURRENT, artifact.manifest.version) for name, artifact in known.items()]
    if any(moved) or not catalog_shows(store, known.values()):
        rebuild_catalog(store)
    return known


def _find_published(stage: Stage, context: Context, draft: Draft) -> dict[str, Artifact] | None:
    found = (context.store.find(draft.dataset, name, draft.fingerprint) for name in stage.outputs)
    known = {artifact.manifest.name: artifact for artifact in found if artifact}
    return known if len(known) == len(stage.outputs) else None
