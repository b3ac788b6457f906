"""``semantics/generate``: both views for the items that lack them, and what the audit says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.stages import run_stage
from semacdr.dataset import load_dataset
from semacdr.settings import load_settings
from semacdr.store import Store

log = structlog.get_logger()


@flow(name="semantics", flow_run_name="semantics of {dataset}")
def generate(dataset: str, store: str | None = None) -> dict[str, str]:
    """Spend one budget of the data set on the most-interacted items without LLM text, and publish the table.

    Args:
        dataset: name or path of the data set's TOML; it must be ingested.
        store: folder of the store; None: as in the settings.
    """
    versions = run_stage("semantics", dataset, store, refresh=True)
    settings = load_settings(store=store)
    name = load_dataset(dataset, settings.datasets).name
    manifest = Store(settings.store).get(name, "semantics", versions["semantics"]).manifest
    try:
        create_markdown_artifact(
            markdown=audit_markdown(manifest.reference, manifest.metrics, manifest.details),
            key="semantics-audit",
            description=f"Audit of {name} {manifest.reference}",
        )
    except Exception as error:  # noqa: BLE001 (the audit stands in the store; a page that shows it is no reason to fail)
        log.warning("no Prefect artifact of the audit", error=f"{type(error).__name__}: {error}")
    return versions


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
