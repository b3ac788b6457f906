"""What a stage made, as pages of the Prefect UI: counts, rejects, the audit of texts, metrics, the gate, the report."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import structlog
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.events import emit_event

from flows.assets import asset_key
from semacdr.errors import StoreError
from semacdr.gate import GROUPS
from semacdr.manifest import Manifest
from semacdr.store import Artifact, Store
from semacdr.store.promotion import PRODUCTION
from semacdr.tables import REPORT_PAGE

log = structlog.get_logger()

GATE_REFUSED = "semacdr.gate.refused"
"""The event of each thing that the gate did not let through: a checkpoint, an index, recommendations."""
SHOWN_METRICS = ("hr_10", "ndcg_10", "mrr")


def show(store: Store, artifacts: Mapping[str, Artifact]) -> None:
    """Make the pages of a stage's artifacts; what cannot be shown costs the picture, not the run."""
    for name, artifact in artifacts.items():
        try:
            if page := PAGES.get(name):
                page(store, artifact)
        except Exception as error:  # noqa: BLE001 (what the pages say stands in the store)
            log.warning("no Prefect artifact", artifact=artifact.reference, error=f"{type(error).__name__}: {error}")


def _ingest(_store: Store, artifact: Artifact) -> None:
    manifest = artifact.manifest
    domains = manifest.details.get("domains", {})
    counts = [{"domain": domain, **facts} for domain, facts in domains.items()]
    create_table_artifact(counts, _key("ingest-counts", manifest), f"{manifest.rows_in:,} raw records")


def _rejects(_store: Store, artifact: Artifact) -> None:
    manifest = artifact.manifest
    reasons = [{"reason": reason, "records": count} for reason, count in manifest.dropped.items()]
    total = sum(manifest.dropped.values())
    create_table_artifact(reasons, _key("ingest-rejects", manifest), f"{total:,} of {manifest.rows_in:,} raw records")


def _semantics(_store: Store, artifact: Artifact) -> None:
    manifest = artifact.manifest
    page = audit_markdown(manifest.reference, manifest.metrics, manifest.details)
    create_markdown_artifact(page, _key("semantics-audit", manifest), f"Audit of `{manifest.reference}`")


def _evaluation(store: Store, artifact: Artifact) -> None:
    manifest = artifact.manifest
    rows = metric_rows(artifact, _in_production(store, artifact))
    create_table_artifact(rows, _key("evaluation-metrics", manifest), f"`{manifest.reference}` on the test targets")
    groups = f"NDCG@10 of `{manifest.reference}` in each group of test targets, macro over domains"
    create_table_artifact(group_rows(artifact), _key("evaluation-groups", manifest), groups)


def _report(store: Store, artifact: Artifact) -> None:
    page = report_uri(store, artifact)
    about = f"`{artifact.reference}`: a browser opens it on a machine that sees the store"
    create_link_artifact(page, link_text=page, key=_key("report", artifact.manifest), description=about)


def _gate(store: Store, artifact: Artifact) -> None:
    manifest, verdicts = artifact.manifest, artifact.manifest.details["verdicts"]
    checks = artifact.scan("gate_checks").collect().to_dicts()
    page = gate_markdown(manifest.reference, verdicts, checks)
    create_markdown_artifact(page, _key("gate", manifest), f"What `{manifest.reference}` let into production")
    production = {name: store.aliases(manifest.dataset, name).get(PRODUCTION) for name in GROUPS}
    for name, reason in refusals(verdicts, production).items():
        resource = {
            "prefect.resource.id": asset_key(store, manifest.dataset, name),
            "prefect.resource.name": f"{name} of {manifest.dataset}",
        }
        emit_event(GATE_REFUSED, resource=resource, payload={"gate": reason})


PAGES: dict[str, Callable[[Store, Artifact], None]] = {
    "interactions": _ingest,
    "rejects": _rejects,
    "semantics": _semantics,
    "evaluation": _evaluation,
    "gate": _gate,
    "report": _report,
}
"""Artifact -> its page."""


def metric_rows(evaluation: Artifact, production: Artifact | None) -> list[dict[str, Any]]:
    """Return the figures of all targets by domain and model, those of the version in production beside them."""
    figures = _figures(evaluation)
    if production:
        before = _figures(production).rename({metric: f"{metric} in production" for metric in SHOWN_METRICS})
        figures = figures.join(before.drop("num_targets"), on=["domain", "model"], how="left", maintain_order="left")
    return figures.to_dicts()


def group_rows(evaluation: Artifact) -> list[dict[str, Any]]:
    """Return a row for each group of targets, with every model's macro NDCG@10."""
    rows = evaluation.scan().filter(pl.col("domain") == "macro", pl.col("metric") == "ndcg_10").collect()
    means = rows.group_by("group", "num_targets", "model", maintain_order=True).agg(pl.col("value").mean().round(4))
    return means.pivot("model", index=["group", "num_targets"], values="value", maintain_order=True).to_dicts()


def _figures(evaluation: Artifact) -> pl.DataFrame:
    rows = evaluation.scan().filter(pl.col("group") == "all", pl.col("metric").is_in(list(SHOWN_METRICS))).collect()
    wide = rows.pivot("metric", index=["domain", "model", "num_targets"], values="value", maintain_order=True)
    return wide.with_columns(pl.col(metric).round(4) for metric in SHOWN_METRICS)


def _in_production(store: Store, artifact: Artifact) -> Artifact | None:
    """Return the evaluation of the checkpoint that is in production."""
    manifest = artifact.manifest
    try:
        checkpoint = store.get(manifest.dataset, "checkpoint", PRODUCTION).reference
    except StoreError:
        return None
    evaluated = [m.version for m in store.manifests(manifest.dataset, manifest.name) if checkpoint in m.inputs]
    return store.get(manifest.dataset, manifest.name, evaluated[-1]) if evaluated else None


def report_uri(store: Store, report: Artifact) -> str:
    """Return where the report's page lies, for a browser."""
    location = store.location(report.manifest)
    return f"{location if '://' in location else Path(location).resolve().as_uri()}/{REPORT_PAGE}"


def refusals(verdicts: Mapping[str, Any], production: Mapping[str, str | None]) -> dict[str, str]:
    """Return what the gate keeps out -> why; artifacts that go into production together share a verdict.

    Args:
        verdicts: by reference.
        production: the version of each artifact that is in production: somebody may have overridden the gate.
    """
    judged = {reference.partition("@")[::2]: verdict for reference, verdict in verdicts.items()}
    return {
        name: "; ".join(verdict["reasons"])
        for (name, version), verdict in judged.items()
        if name in GROUPS and not verdict["passed"] and production.get(name) != version
    }


def gate_markdown(reference: str, verdicts: Mapping[str, Any], checks: Iterable[Mapping[str, Any]]) -> str:
    """Return the gate's verdicts and checks as a page."""
    said = {True: "passed", False: "**refused**"}
    lines = [f"# {reference}", "", "| artifact | verdict |", "| --- | --- |"]
    lines += [f"| {name} | {said[verdict['passed']]} |" for name, verdict in verdicts.items()]
    lines += ["", "| artifact | check | | what was found |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {row['artifact']} | {row['check']} | {said[row['passed']]} | {_cell(row['reason'])} |" for row in checks
    ]
    return "\n".join(lines) + "\n"


def audit_markdown(reference: str, metrics: Mapping[str, float], details: Mapping[str, Any]) -> str:
    """Return the audit of a manifest as a page."""
    audit = details.get("audit", {})
    sources = ", ".join(f"{count:,} {source}" for source, count in details.get("texts_by_source", {}).items())
    lines = [f"# {reference}", "", f"Texts: {sources}. Judged: {audit.get('judged_texts', 0):,}.", ""]
    lines += ["| figure | value |", "| --- | --- |"]
    lines += [f"| {name} | {value:.4g} |" for name, value in sorted(metrics.items())]
    lines += ["", "| rule | action | findings | share |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {rule} | {found['action']} | {found['findings']:,} | {found['share']:.1%} |"
        for rule, found in audit.get("rules", {}).items()
        if found["findings"]
    ]
    lines += ["", "| worst leaks | words | text |", "| --- | --- | --- |"]
    lines += [
        f"| {_cell(leak['item'])} | {_cell(leak['words'])} | {_cell(leak['text'])} |"
        for leak in audit.get("worst_leaks", ())
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _key(page: str, manifest: Manifest) -> str:
    """Return the key under which the UI keeps all versions of a data set's page."""
    return re.sub(r"[^a-z0-9]+", "-", f"{page}-{manifest.dataset}").strip("-")
