"""A record and a page of metrics in which everything that may stand there does."""

from collections.abc import Iterator

from gateway.judging.judge import Judgement
from gateway.judging.prompt import Seen
from gateway.policy.policy import Action, Decision, Policy, Reason, Rewrite
from gateway.records.record import Outcome, Read, Record
from gateway.records.stream_stats import StreamStats
from gateway.telemetry.metrics import Metrics
from gateway.tenants.tenants import Tenant
from guard_runtime.conversation import Direction, Source
from guard_runtime.guards.scripted import ScriptedGuard
from guard_runtime.serving.batch_observer import BatchStats
from guard_runtime.verdict import CATEGORIES, Category, Coverage, Place, Unread, UnreadReason, Verdict

STAGES = ("guard_prompt", "guard_response", "upstream", "first_event", "hold", "total")
"""What is timed: see `RecordBuilder.spend` and `gateway/streaming/stats.py`."""


def record() -> Record:
    """A record with a value for every key."""
    fired = Decision(
        action=Action.BLOCK,
        reason=Reason.RULE,
        direction=Direction.PROMPT,
        category=Category.PROMPT_ATTACK,
        score=0.9,
        threshold=0.5,
        rewrite=Rewrite.MASK,
        guard="sample",
        place="policies/base.yaml:1",
        detail="sample",
        source=Source.USER,
        window=Place((), 0, 10, 0.9, 0.0),
    )
    unread = Decision(Action.LOG, Reason.UNREADABLE, Direction.PROMPT, detail="media")
    coverage = Coverage(unread=(Unread((), UnreadReason.MEDIA),))
    verdict = Verdict("sample", dict.fromkeys(CATEGORIES, 0.9), coverage=coverage)
    return Record(
        id="AAAA-AAAA-AAAA",
        outcome=Outcome.BLOCKED,
        status=400,
        dialect="chat",
        tenant="sample",
        judgements=((Direction.PROMPT, Judgement(fired, (fired, unread), (verdict,), ("sample",))),),
        read=(Read(Direction.PROMPT, "messages[0]", "text", 10, Seen.SCANNED),),
        seconds=dict.fromkeys(STAGES, 0.1),
        stats=StreamStats(),
        error="sample",
        detail="sample",
        text={"prompt": []},
    )


def metric_labels() -> Iterator[tuple[str, str, str]]:
    """Name, type and labels of every metric."""
    metrics = Metrics()
    metrics.write(record())
    metrics.queue("sample", lambda: 0)
    metrics.batch_finished("sample", BatchStats(passages=1, wait=0.1, run=0.1, failed=False))
    metrics.serving("sample", "sample")
    metrics.counts(_Counting(lambda text: {}))
    metrics.policies(lambda: [Tenant("sample", Policy("sample", "0"), frozenset())])
    for family in metrics.registry.collect():
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        ordered = list(family.samples[0].labels) if family.samples else []
        suffix = "_total" if family.type == "counter" else ""
        told = " ".join(f"`{name}`" for name in ordered if name in labels)
        yield f"{family.name}{suffix}", family.type, told or "-"


class _Counting(ScriptedGuard):
    def counts(self) -> dict[str, int]:
        return {"sample": 1}
