"""The page about several evaluations of one protocol: what separates their models, and what transfer gives."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from semacdr import reports
from semacdr.comparison.table import KEYS, METRICS, Comparison, compare, demand_alike, per_target
from semacdr.comparison.transfer import CONTROLS, GroupGain, transfer_report
from semacdr.manifest import fingerprint
from semacdr.pipeline import Context, find_stage
from semacdr.store import Artifact, Draft, rebuild_catalog
from semacdr.tables import CONTRACT_VERSIONS

STAGE, REVISION = "compare", 2


def report_on(context: Context, evaluations: Sequence[Artifact], model: str) -> Artifact:
    """Publish the page as ``report``, if it is not published yet; the alias PROTOCOL-CANDIDATES-FIT points at it.

    What it shows of a model beside the figures is of the current checkpoint. ``current`` stays where it is.

    Args:
        context: where and on what.
        evaluations: alike, each of other models.
        model: that the others are compared with; the transfer report is its own.

    Raises:
        ConfigError: the evaluations are not alike, or none is of the model.
    """
    alike = demand_alike(evaluations)
    store, dataset, stage = context.store, context.dataset.name, find_stage("report")
    shown = {name: store.get(dataset, name) for name in stage.inputs if name != "evaluation"}
    config = {"model": model, "evaluations": [one.reference for one in evaluations]}
    inputs = {one.reference: one for one in evaluations} | shown
    identity = {
        "stage": STAGE,
        "revision": [REVISION, stage.revision, CONTRACT_VERSIONS["report"]],
        "config": config,
        "inputs": {name: artifact.manifest.fingerprint for name, artifact in inputs.items()},
    }
    draft = Draft(
        dataset=dataset, stage=STAGE, fingerprint=fingerprint(identity), config=config, sources={}, inputs=inputs
    )
    alias = "-".join(str(alike[name]) for name in ("protocol", "candidates", "fit"))
    known = store.find(dataset, "report", draft.fingerprint)
    if known is None:
        with store.open_draft(draft, ["report"]):
            facts = reports.report(evaluations, shown, draft.folders["report"], compared(evaluations, model))
            known = store.publish(draft, facts, alias=alias)["report"]
            rebuild_catalog(store)
    elif store.move_alias(dataset, "report", alias, known.manifest.version):
        rebuild_catalog(store)
    return known


def compared(evaluations: Sequence[Artifact], model: str) -> dict[str, Any]:
    """Return, as JSON values, the model against all others, and its transfer report if its twin is among them.

    Raises:
        ConfigError: the evaluations are not alike, or none is of the model.
    """
    found: dict[str, Any] = {"model": model, "comparisons": {}, "transfer": {}}
    of_transfer = {model, f"{model}:alone", *(f"{model}:{name}" for name in CONTROLS)}
    related = [one for one in evaluations if one.manifest.details.get("model") in of_transfer]
    for metric in METRICS:
        values = per_target(evaluations, metric)
        others = [name for name in values.columns if name not in {*KEYS, model}]
        if others:
            rows = compare(values, model, others, metric)
            found["comparisons"][metric] = [_comparison(one) for one in rows]
        if f"{model}:alone" in others:
            transfer = transfer_report(related, model, metric)
            found["transfer"][metric] = {
                "groups": [_group(one) for one in transfer.groups],
                "controls": [_comparison(one) for one in transfer.controls],
            }
    return {name: value for name, value in found.items() if value}


def _comparison(one: Comparison) -> dict[str, Any]:
    return {"against": one.against, **asdict(one.difference), "p_holm": one.p_holm}


def _group(one: GroupGain) -> dict[str, Any]:
    return {"group": one.group, "num_targets": one.num_targets, **asdict(one.difference), **asdict(one.shares)}
