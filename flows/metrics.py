"""Metrics of stages by OpenTelemetry, sent by OTLP where ``OTEL_EXPORTER_OTLP_ENDPOINT`` names a collector.

| metric | of | attributes |
| --- | --- | --- |
| ``semacdr.stage.duration`` (s) | each run of a stage | stage, dataset, outcome: published, unchanged or an error |
| ``semacdr.artifact.rows`` | each table of a stage's artifacts | dataset, artifact, table |
| ``semacdr.artifact.dropped`` | each reason for which records were left out | dataset, artifact, reason |
| ``semacdr.artifact.figure`` | each metric of a manifest: ndcg_10, tokens_per_s, ... | dataset, artifact, figure |

vLLM's servers have Prometheus metrics of their own at ``/metrics``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from prefect.runtime import flow_run

from semacdr import __version__
from semacdr.manifest import Manifest

FLUSH_MS = 5_000
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")


class StageMeter:
    """What one run of a stage tells."""

    def __init__(self, stage: str, dataset: str) -> None:
        self._about = {"stage": stage, "dataset": dataset}
        self.outcome = "unchanged"

    def published(self, manifest: Manifest) -> None:
        """Take in an artifact that the stage has published."""
        self.outcome = "published"
        if not (meter := _meter()):
            return
        of = {"dataset": manifest.dataset, "artifact": manifest.name}
        for table, rows in manifest.rows_out.items():
            meter.create_gauge("semacdr.artifact.rows").set(rows, of | {"table": table})
        for reason, rows in manifest.dropped.items():
            meter.create_gauge("semacdr.artifact.dropped").set(rows, of | {"reason": reason})
        for figure, value in manifest.metrics.items():
            meter.create_gauge("semacdr.artifact.figure").set(value, of | {"figure": figure})

    def ended(self, seconds: float) -> None:
        """Send everything; a collector that does not answer costs a few seconds, not the run."""
        if not (meter := _meter()):
            return
        duration = meter.create_histogram("semacdr.stage.duration", unit="s")
        duration.record(seconds, self._about | {"outcome": self.outcome})
        _provider().force_flush(FLUSH_MS)


@contextmanager
def measured(stage: str, dataset: str) -> Iterator[StageMeter]:
    """Measure the block as one run of a stage."""
    meter, started = StageMeter(stage, dataset), time.monotonic()
    try:
        yield meter
    except BaseException as error:
        meter.outcome = type(error).__name__
        raise
    finally:
        meter.ended(time.monotonic() - started)


def _meter() -> Meter | None:
    wanted = any(os.environ.get(name) for name in ENDPOINTS)
    return _provider().get_meter("semacdr", __version__) if wanted else None


@cache
def _provider() -> MeterProvider:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415 (slow, rare)

    about = {"service.name": "semacdr", "service.version": __version__, "service.instance.id": str(flow_run.id)}
    reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    return MeterProvider([reader], Resource.create(about))
