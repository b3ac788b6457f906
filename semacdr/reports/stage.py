"""The report stage: collect the sections of the page, and write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from semacdr.manifest import Facts
from semacdr.model.checkpoint import load_checkpoint
from semacdr.reports.curves import curves
from semacdr.reports.explorer import explorer
from semacdr.reports.figures import about, figures, training
from semacdr.reports.gates import item_weights, score_weights
from semacdr.reports.maps import maps
from semacdr.reports.page import write_page
from semacdr.store import Artifact
from semacdr.tables import REPORT_PAGE

log = structlog.get_logger()


def report(
    evaluations: Sequence[Artifact],
    inputs: Mapping[str, Artifact],
    output: Path,
    compared: Mapping[str, Any] | None = None,
) -> Facts:
    """Write the page.

    Args:
        evaluations: of one protocol, candidate policy, fit and tie rule, each of other models.
        inputs: the checkpoint, what it was made from and what came of it, as the stage ``report`` reads them.
        output: an empty folder.
        compared: JSON of what separates the models, as ``semacdr.comparison.report`` makes it; None: nothing does.

    Returns:
        Facts with the page's bytes, and how many users, items and map points it shows.
    """
    checkpoint = load_checkpoint(inputs["checkpoint"].path)
    shown = explorer(inputs, evaluations, checkpoint.config.preset)
    mapped = maps(inputs)
    size = write_page(
        output / REPORT_PAGE,
        {
            "about": about(evaluations, inputs),
            "figures": figures(evaluations),
            "training": training(evaluations),
            "compared": dict(compared or {}),
            "curves": curves(inputs["checkpoint"]),
            "probe": inputs["embeddings"].manifest.details.get("domain_probe", {}),
            "maps": mapped,
            "item_weights": item_weights(checkpoint, inputs["item_vectors"]),
            "score_weights": score_weights(checkpoint, inputs["recommendations"]),
            "explorer": shown,
        },
    )
    counts = {"users": len(shown["users"]), "items": len(shown["items"]), "map_items": len(mapped["items"])}
    log.info("report", bytes=size, **counts)
    return Facts(details={"bytes": size, **counts})
