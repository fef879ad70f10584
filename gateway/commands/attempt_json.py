"""What `libragate try --json` prints."""

from gateway.commands.attempt_result import Judged, Line, Result, SourceLine, Streamed
from gateway.dialects.fields import dotted
from gateway.policy.policy import Action, Decision
from guard_runtime.verdict import Place


def result_json(result: Result) -> dict[str, object]:
    judged, judgement = result.judged, result.judged.judgement
    policy, coverage = judged.tenant.policy, judgement.coverage
    spans = [
        {"label": s.label, "category": s.category, "part": dotted(s.path), "start": s.start, "end": s.end}
        for s in judgement.spans
    ]
    return {
        "tenant": judged.tenant.id,
        "policy": {"name": policy.name, "hash": policy.hash},
        "guards": judged.judge.version,
        "decision": decision_json(judged, judged.decision),
        "sources": [_source(line) for line in judged.sources],
        "scores": [_score(line) for line in judged.lines],
        "spans": spans,
        "coverage": {"parts": coverage.parts, "characters": coverage.characters, "windows": coverage.windows},
        "unread": [{"reason": item.reason, "characters": item.characters} for item in coverage.unread],
        "parts": [
            {"part": read.place, "kind": read.kind, "characters": read.characters, "seen": read.line()[-1]}
            for read in result.read
        ],
        "failures": list(judgement.failures),
        "seconds": round(judgement.seconds, 6),
        **({} if result.streamed is None else {"stream": _stream(result.streamed)}),
    }


def decision_json(judged: Judged, decision: Decision) -> dict[str, object]:
    return {
        "action": decision.action.name.lower(),
        "rewrite": decision.rewrite,
        "reason": decision.reason,
        "direction": decision.direction,
        "category": decision.category,
        "score": decision.score,
        "threshold": decision.threshold,
        "margin": decision.margin,
        "guard": decision.guard,
        "rule": decision.place or None,
        "detail": decision.detail or None,
        "source": decision.source,
        "window": None if decision.window is None else _place(decision.window, judged.window_text(decision.window)),
    }


def _place(place: Place, text: str | None) -> dict[str, object]:
    """`part` is "" where several parts were read joined; `text` is null then."""
    where = {"part": dotted(place.path), "characters": [place.start, place.end]}
    return {**where, "raw": place.raw, "correction": place.correction, "text": text}


def _source(line: SourceLine) -> dict[str, object]:
    return {
        "guard": line.guard,
        "source": line.source,
        "judged_for": line.treatment,
        "windows": line.windows,
        "highest": [{"category": high.category, "score": high.score, **_correction(high)} for high in line.highest],
    }


def _score(line: Line) -> dict[str, object]:
    return {
        "guard": line.guard,
        "source": line.source,
        "category": line.category,
        "score": line.score,
        **_correction(line),
        "threshold": line.threshold,
        "margin": line.margin,
        "fired": line.fired,
        "action": line.rule.action.name.lower(),
        "rewrite": line.rule.rewrite if line.rule.action is Action.REWRITE else None,
        "rule": line.rule.place,
    }


def _correction(line: Line) -> dict[str, object]:
    if line.place is None:
        return {"raw": None, "correction": None}
    return {"raw": line.place.raw, "correction": line.place.correction}


def _stream(streamed: Streamed) -> dict[str, object]:
    replay = streamed.replay
    checks = []
    for check, judged in streamed.checks:
        nearest = judged.nearest
        checks.append(
            {
                "characters": [check.start, check.end],
                "new_from": check.new,
                "nearest": None if nearest is None else _score(nearest),
                "decision": decision_json(judged, judged.decision),
            }
        )
    return {
        "mode": streamed.whole.tenant.policy.stream.mode,
        "chunk": streamed.chunk,
        "checks": checks,
        "stopped": replay.stopped is not None,
        "left": replay.left,
        "masked": replay.masked,
        "agrees_with_whole": streamed.agrees,
    }
