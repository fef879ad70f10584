"""What `libragate try` prints for people."""

from collections.abc import Iterator

from gateway.commands.attempt_result import Judged, Line, Result, SourceLine, Streamed, stops
from gateway.commands.terminal import paint, table
from gateway.dialects.fields import dotted
from gateway.policy.policy import OWN_TEXT, Action, Decision, Reason
from gateway.streaming.replay import StreamCheck

_COLOURS = {Action.ALLOW: "green", Action.LOG: "cyan", Action.REWRITE: "yellow", Action.BLOCK: "red"}

MOST_SCORES = 12
"""Lines of a whole request that are printed, the nearest to their thresholds first."""


def result_text(result: Result) -> Iterator[str]:
    if result.streamed is not None:
        yield from _stream(result.streamed)
        yield ""
        yield "the whole answer:"
    yield from _judged(result)


def _judged(result: Result) -> Iterator[str]:
    judged, judgement = result.judged, result.judged.judgement
    tenant = judged.tenant
    yield _headline(judged.decision)
    yield f"tenant {tenant.id}, policy {tenant.policy.name} {tenant.policy.hash}, guards {judged.judge.version}"
    yield f"{judged.decision.direction}, {judgement.seconds * 1000:.0f} ms"
    if result.request:
        yield from _sources(judged)
    yield from _scores(judged.lines, sources=result.request)
    yield from _window(judged)
    if judged.decision.source in OWN_TEXT:
        yield f"hint: {judged.decision.detail}"
    for span in judgement.spans:
        where = f" of {dotted(span.path)}" if result.request else ""
        yield f"found: {span.label} in characters {span.start} to {span.end}{where}"
    for failure in judgement.failures:
        yield f"failed: {failure}"
    for read in result.left_out:
        yield f"{read.seen}: {read.place} ({read.kind}, {read.characters} characters)"
    unread = judgement.coverage.unread
    yield f"not read: {', '.join(f'{item.reason} ({item.characters} characters)' for item in unread) or 'nothing'}"


def _headline(decision: Decision) -> str:
    return f"{paint(decision.action.name.lower(), _COLOURS[decision.action])}  {_because(decision)}"


def _because(decision: Decision) -> str:
    if decision.reason is Reason.RULE and decision.score is not None and decision.margin is not None:
        score = f"{decision.category} {decision.score:.3f}, {decision.margin:+.3f} over {decision.place}"
        return f"{score} ({decision.rewrite})" if decision.rewrite else score
    return f"{decision.reason}: {decision.detail}" if decision.detail else str(decision.reason)


def _sources(judged: Judged) -> Iterator[str]:
    rows = [row for line in judged.sources for row in _source_rows(line)]
    if rows:
        yield from table([("source", "judged for", "windows", "guard", "highest", "score", "raw", "correction"), *rows])
        yield ""


def _source_rows(line: SourceLine) -> Iterator[tuple[str, ...]]:
    about: tuple[str, ...] = (line.source, line.treatment, str(line.windows), line.guard)
    if not line.highest:
        yield (*about, "-", "0.000", "", "")
    for high in line.highest:
        place = high.place
        raw = ("", "") if place is None else (f"{place.raw:.3f}", f"{place.correction:.3f}")
        yield (*about, high.category, f"{high.score:.3f}", *raw)
        about = ("", "", "", "")


def _scores(lines: tuple[Line, ...], *, sources: bool) -> Iterator[str]:
    if not lines:
        return
    head: tuple[str, ...] = ("category", "score", "threshold", "margin", "do", "rule")
    told = sorted([line for line in lines if line.score > 0] or lines, key=lambda line: -line.margin)
    shown = told[:MOST_SCORES] if sources else told
    rows = [(line.guard, *((line.source or "-",) if sources else ()), *_row(line)) for line in shown]
    yield from table([("guard", *(("source",) if sources else ()), *head), *rows])
    if len(told) > len(shown):
        yield f"... and {len(told) - len(shown)} further from their thresholds: --json has them all"


def _row(line: Line) -> tuple[str, ...]:
    """A rule that did not fire stands in brackets."""
    figures = (f"{line.score:.3f}", f"{line.threshold:.3f}", f"{line.margin:+.3f}")
    return (line.category, *figures, line.does if line.fired else f"({line.does})", line.rule.place)


def _window(judged: Judged) -> Iterator[str]:
    """The window that decided, and its text; nothing where that is all that was given."""
    decision, window = judged.decision, judged.decision.window
    if window is None or decision.source is None:
        return
    text = judged.window_text(window)
    if [text] == [part.text for part in judged.conversation.judged]:
        return
    score = f"raw {window.raw:.3f}, correction {window.correction:.3f}"
    place = dotted(window.path) or "the last turns, read joined"
    yield f"decided by: {decision.source}, {place}, characters {window.start} to {window.end} ({score})"
    for line in (text or "").splitlines():
        yield f"  | {line}"


def _stream(streamed: Streamed) -> Iterator[str]:
    replay, whole = streamed.replay, streamed.whole
    yield f"as a stream ({whole.tenant.policy.stream.mode}, {streamed.chunk} characters at a time):"
    rows = [_check_row(number, *check) for number, check in enumerate(streamed.checks, 1)]
    yield from table([("check", "characters", "new from", "nearest", "score", "threshold", "decision"), *rows])
    if replay.stopped is None:
        yield f"ran to its end: {replay.left} characters left, {replay.masked} masks"
    else:
        yield f"stopped by check {len(replay.checks)}, when {replay.left} characters had left:"
        yield _headline(replay.stopped)
        *_, last = streamed.checks
        yield from _stopped_at(*last)
    if not streamed.agrees:
        stream, judged = _does(stopped=replay.stopped is not None), _does(stopped=stops(whole))
        yield f"note: as a stream the answer {stream}, judged whole it {judged}"


def _check_row(number: int, check: StreamCheck, judged: Judged) -> tuple[str, ...]:
    nearest = judged.nearest
    action = judged.decision.action.name.lower()
    place = (str(number), f"{check.start} to {check.end}", str(check.new))
    if nearest is None:
        return (*place, "-", "", "", action)
    return (*place, nearest.category, f"{nearest.score:.3f}", f"{nearest.threshold:.3f}", action)


def _stopped_at(check: StreamCheck, judged: Judged) -> Iterator[str]:
    yield f"it read characters {check.start} to {check.end}:"
    for part in judged.conversation.judged:
        for line in (part.text or "").splitlines():
            yield f"  | {line}"


def _does(*, stopped: bool) -> str:
    return "is stopped" if stopped else "goes out"
