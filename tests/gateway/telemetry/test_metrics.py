"""Metrics: every name and every outcome is documented, and each record is counted once."""

from pathlib import Path

from gateway.records.record import Outcome, Record
from gateway.records.stream_stats import StreamStats
from gateway.telemetry.metrics import Metrics

PAGE = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")


def test_every_metric_and_every_label_is_documented() -> None:
    metrics = Metrics()
    for family in metrics.registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert f"`{name}`" in PAGE, name


def test_every_key_of_a_record_and_every_outcome_is_documented() -> None:
    said = Record("A", Outcome.ALLOWED, 200, "chat").line()
    plain = {
        "id",
        "outcome",
        "status",
        "tenant",
        "model",
        "dialect",
        "stream",
        "action",
        "policy",
        "guard",
        "risk",
        "read_more",
    }
    for key in said.keys() - plain:
        assert f"`{key}`" in PAGE, key
    for outcome in Outcome:
        assert f"`{outcome}`" in PAGE, outcome
    for counter in StreamStats().line():
        assert f"`{counter}`" in PAGE, counter


def test_where_a_stream_failed_stands_in_its_record() -> None:
    said = Record(
        "A", Outcome.FAILED, 200, "chat", error="upstream_error", detail="KeyError at gateway/streaming/gate.py:1"
    ).line()
    assert said["detail"] == "KeyError at gateway/streaming/gate.py:1"
    assert "detail" not in Record("A", Outcome.ALLOWED, 200, "chat").line()


def test_a_record_is_counted_once_however_it_ended() -> None:
    metrics = Metrics()
    for outcome in (Outcome.ALLOWED, Outcome.ALLOWED, Outcome.BLOCKED):
        metrics.write(Record("A", outcome, 200, "chat", tenant="shop"))
    metrics.write(Record("B", Outcome.REFUSED, 401, "chat"))
    page = metrics.page().decode()
    assert "_created" not in page
    assert 'libragate_requests_total{dialect="chat",outcome="allowed",tenant="shop"} 2.0' in page
    assert 'libragate_requests_total{dialect="chat",outcome="blocked",tenant="shop"} 1.0' in page
    assert 'libragate_requests_total{dialect="chat",outcome="refused",tenant="none"} 1.0' in page
