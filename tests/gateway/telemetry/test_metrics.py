"""Metrics: each record is counted once. That all of them are documented is held by tests/docs."""

from gateway.records.record import Outcome, Record
from gateway.telemetry.metrics import Metrics


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
