"""What a streamed answer is counted as, over all its attempts."""

import pytest

from gateway.dialects.dialect import Delta, Event
from gateway.errors import BadRequest, GatewayError, GuardUnavailable, InternalError, UpstreamError, UpstreamTimeout
from gateway.judging.judge import Judgement
from gateway.pipeline.replies import outcome_of
from gateway.policy.policy import Action, Decision, Reason, Rewrite, StreamMode, StreamSettings
from gateway.records.record import Outcome
from gateway.records.stream_stats import StreamStats
from gateway.streaming.gate import Gate
from gateway.streaming.outcome import Ended, StreamOutcome
from gateway.streaming.stats import StreamStatsBuilder
from guard_runtime.conversation import Direction
from guard_runtime.verdict import CATEGORIES, Category, Span, Verdict

CHANNEL = (0, "content")
PRIVACY = Category.PRIVACY_AND_PROPERTY


def judged(action: Action = Action.ALLOW) -> Judgement:
    rewrite = Rewrite.MASK if action is Action.REWRITE else None
    decision = Decision(action, Reason.RULE, Direction.RESPONSE, PRIVACY, 0.9, 0.5, rewrite)
    return Judgement(decision, (decision,), (Verdict("g", dict.fromkeys(CATEGORIES, 0.0)),), seconds=0.5)


def attempt(builder: StreamStatsBuilder, text: str, *spans: Span, clear: bool = True) -> None:
    """One attempt whose text is checked once, and leaves if the check clears it."""
    gate = Gate(StreamSettings(first_window=1))
    gate.push(Event({"x": text}), [Delta(CHANNEL, text)], 0.0)
    gate.end(complete=True)
    gate.take()
    builder.add(judged(), 0)
    if clear:
        gate.clear(spans, risk=0.0)
    for free in gate.release(1.0):
        builder.sent(free.characters, free.texts)
    builder.absorb(gate)


def test_counters_add_up_over_attempts() -> None:
    builder = StreamStatsBuilder()
    attempt(builder, "no good", clear=False)
    attempt(builder, "all good, a@b.cn", Span(CHANNEL, 10, 16, PRIVACY, "email"))
    assert builder.attempts == 2
    assert builder.stats == StreamStats(released=16, cleared=16, unguarded=0, masked=1, judged=23, checks=2)


def test_what_leaves_unchecked_in_async_mode_is_counted() -> None:
    gate = Gate(StreamSettings(mode=StreamMode.ASYNC))
    gate.push(Event({"x": "four"}), [Delta(CHANNEL, "four")], 0.0)
    builder = StreamStatsBuilder()
    for free in gate.release(0.0):
        builder.sent(free.characters, free.texts)
    builder.absorb(gate)
    assert builder.stats == StreamStats(released=4, unguarded=4)


def test_every_counter_is_summed_and_told_by_its_name() -> None:
    names = list(StreamStats().line())
    first = StreamStats(*range(1, len(names) + 1))
    assert (first + first).line() == {name: 2 * number for number, name in enumerate(names, 1)}


def ended(how: Ended, action: Action = Action.ALLOW) -> Outcome:
    stats = StreamStats()
    return StreamOutcome(how, judged(action), True, 1, stats, (), {}, {}).outcome


@pytest.mark.parametrize("how", Ended)
def test_every_ending_of_a_stream_is_an_outcome_that_records_know(how: Ended) -> None:
    renamed = {Ended.COMPLETE: Outcome.ALLOWED, Ended.TIMEOUT: Outcome.UPSTREAM_TIMEOUT}
    assert ended(how) == renamed.get(how, str(how))


def test_a_complete_answer_that_was_masked_is_rewritten() -> None:
    assert ended(Ended.COMPLETE, Action.REWRITE) is Outcome.REWRITTEN
    assert ended(Ended.COMPLETE, Action.LOG) is Outcome.ALLOWED


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (BadRequest(""), Outcome.REFUSED),
        (GuardUnavailable(""), Outcome.GUARD_UNAVAILABLE),
        (UpstreamError(""), Outcome.UPSTREAM_FAILED),
        (UpstreamTimeout(""), Outcome.UPSTREAM_TIMEOUT),
        (InternalError(""), Outcome.FAILED),
    ],
)
def test_every_kind_of_error_is_an_outcome(error: GatewayError, outcome: Outcome) -> None:
    assert outcome_of(error) is outcome
