"""The gate as a page of the run: what was judged, and why something was refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import structlog
from prefect.artifacts import create_markdown_artifact

from semacdr.dataset import load_dataset
from semacdr.settings import load_settings
from semacdr.store import Store

log = structlog.get_logger()


def show_gate(dataset: str, store: str | None, version: str) -> None:
    """Put the checks of a version of ``gate`` on a page; a server that fails costs the page, not the run."""
    settings = load_settings(store=store)
    name = load_dataset(dataset, settings.datasets).name
    gate = Store(settings.store, settings.cache).get(name, "gate", version)
    checks = gate.scan("gate_checks").collect().iter_rows(named=True)
    try:
        create_markdown_artifact(
            markdown=gate_markdown(gate.reference, gate.manifest.details["verdicts"], checks),
            key="gate",
            description=f"Gate of {name} {gate.reference}",
        )
    except Exception as error:  # noqa: BLE001 (the verdict stands in the store)
        log.warning("no Prefect artifact of the gate", error=f"{type(error).__name__}: {error}")


def gate_markdown(reference: str, verdicts: Mapping[str, Any], checks: Iterable[Mapping[str, Any]]) -> str:
    """Return verdicts and checks as a page."""
    lines = [f"# {reference}", "", "| artifact | verdict |", "| --- | --- |"]
    lines += [f"| {name} | {'passed' if verdict['passed'] else '**refused**'} |" for name, verdict in verdicts.items()]
    lines += ["", "| artifact | check | | what was found |", "| --- | --- | --- | --- |"]
    for row in checks:
        verdict = "passed" if row["passed"] else "**refused**"
        lines.append(f"| {row['artifact']} | {row['check']} | {verdict} | {row['reason'].replace('|', ' ')} |")
    return "\n".join(lines) + "\n"
