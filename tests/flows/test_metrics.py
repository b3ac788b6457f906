from __future__ import annotations

import queue

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from flows import metrics
from semacdr.errors import DataError
from semacdr.manifest import Manifest
from tests.receiver import Receiver, receiving


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch):
    with receiving(answer=b"") as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        metrics._provider.cache_clear()
        yield receiver
        metrics._provider().shutdown()
        metrics._provider.cache_clear()


def sent(collector: Receiver) -> dict[str, dict]:
    """The last values: metric -> attributes as text -> value or count."""
    body = b""
    while True:
        try:
            body = collector.bodies.get_nowait()
        except queue.Empty:
            break
    found: dict[str, dict] = {}
    for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
        for metric in resource.scope_metrics[0].metrics:
            points = metric.gauge.data_points or metric.histogram.data_points
            for point in points:
                about = " ".join(sorted(attribute.value.string_value for attribute in point.attributes))
                found.setdefault(metric.name, {})[about] = getattr(point, "count", None) or point.as_double
    return found


def test_published_artifact_and_its_stage_reach_the_collector(collector: Receiver):
    manifest = Manifest(
        dataset="toys", name="semantics", version="2026.11.24", contract_version=1, stage="semantics", created_at="",
        fingerprint="", config={}, inputs={}, rows_in=5, rows_out={"semantics": 0}, dropped={"no text": 0},
        metrics={"tokens_per_s": 417.5}, files=(), seconds=0,
    )  # fmt: skip
    with metrics.measured("semantics", "toys") as meter:
        meter.published(manifest)
    found = sent(collector)
    assert found["semacdr.stage.duration"] == {"published semantics toys": 1}
    assert found["semacdr.artifact.figure"] == {"semantics tokens_per_s toys": 417.5}
    assert {"semacdr.artifact.rows", "semacdr.artifact.dropped"} <= set(found)


def test_failed_stage_is_counted_by_its_error(collector: Receiver):
    with pytest.raises(DataError), metrics.measured("ingest", "toys"):
        raise DataError("no event")
    assert sent(collector)["semacdr.stage.duration"] == {"DataError ingest toys": 1}


def test_without_a_collector_nothing_is_started(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    with metrics.measured("ingest", "toys"):
        pass
    assert metrics._provider.cache_info().currsize == 0
