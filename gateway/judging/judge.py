"""Runs all guards on a conversation and applies the policy. Guard failures become decisions here and nowhere else."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import anyio

from gateway.clock import now
from gateway.judging.masks import masked_conversation
from gateway.policy.policy import Action, Decision, Policy, Reason, Rewrite, decide, worst_of
from guard_runtime.conversation import Conversation, Direction
from guard_runtime.errors import GuardError, GuardTimeout
from guard_runtime.guard import Guard, SpanFinder
from guard_runtime.verdict import Coverage, Span, Unread, UnreadReason, Verdict


@dataclass(frozen=True, slots=True)
class Judgement:
    """Everything that one check of a conversation gave. `decision` is the worst of `decisions`."""

    decision: Decision
    decisions: tuple[Decision, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    failures: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def coverage(self) -> Coverage:
        total = Coverage()
        for verdict in self.verdicts:
            total += verdict.coverage
        return total

    @property
    def risk(self) -> float:
        """The highest score of any guard; 1 where none gave a verdict."""
        return max((verdict.risk for verdict in self.verdicts), default=1.0)

    @property
    def spans(self) -> tuple[Span, ...]:
        return tuple(span for verdict in self.verdicts for span in verdict.spans)


def together(judgements: Sequence[Judgement], direction: Direction) -> Judgement:
    """Several judgements made at the same time, as one."""
    decisions = tuple(decision for judgement in judgements for decision in judgement.decisions)
    return Judgement(
        decision=worst_of(decisions, direction),
        decisions=decisions,
        verdicts=tuple(verdict for judgement in judgements for verdict in judgement.verdicts),
        failures=tuple(failure for judgement in judgements for failure in judgement.failures),
        seconds=max((judgement.seconds for judgement in judgements), default=0.0),
    )


@dataclass(slots=True)
class _Answers:
    verdicts: list[Verdict] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


class Judge:
    """All guards together, each with the same deadline (seconds)."""

    def __init__(self, guards: Sequence[Guard], *, deadline: float = 10.0) -> None:
        self.guards = tuple(guards)
        self._finders = tuple(guard for guard in guards if isinstance(guard, SpanFinder) and guard.finds_spans)
        self.deadline = deadline

    @property
    def version(self) -> str:
        """The guards and their versions, for headers and records: `libra-mini@0.1.0,rules@1`."""
        return ",".join(f"{guard.name}@{guard.version}" for guard in self.guards)

    async def judge(self, policy: Policy, conversation: Conversation) -> Judgement:
        """What to do with this conversation. Never raises for a guard's failure: the policy answers for it, and for
        every part that no guard could read. Raises `ExceptionGroup` for a bug in a guard: there is no verdict then."""
        started = now()
        answers = _Answers()
        await self._ask_all(self._finders, policy, conversation, answers)
        shown = masked_conversation(conversation, self._to_mask(answers.verdicts, answers.decisions))
        await self._ask_all([guard for guard in self.guards if guard not in self._finders], policy, shown, answers)
        unread = (
            *(Unread(part.path, UnreadReason.MEDIA) for part in conversation.unreadable),
            *_unread_by_all(answers.verdicts),
        )
        if unread:
            answers.decisions.append(_unreadable(policy, conversation, unread))
        if conversation.sealed:
            answers.decisions.append(_sealed(policy, conversation))
        return Judgement(
            decision=worst_of(answers.decisions, conversation.direction),
            decisions=tuple(answers.decisions),
            verdicts=tuple(answers.verdicts),
            failures=tuple(answers.failures),
            seconds=now() - started,
        )

    def as_read(self, conversation: Conversation, judgement: Judgement) -> Conversation:
        """The conversation as the guards that give no spans were shown it: masked by what the others found."""
        return masked_conversation(conversation, self._to_mask(judgement.verdicts, judgement.decisions))

    def _to_mask(self, verdicts: Sequence[Verdict], decisions: Sequence[Decision]) -> tuple[Span, ...]:
        """What the policy masks of what was found first: those who read after it need not see it."""
        finders = {guard.name for guard in self._finders}
        masked = {d.category for d in decisions if d.rewrite is Rewrite.MASK and d.guard in finders}
        return tuple(s for v in verdicts if v.guard in finders for s in v.spans if s.category in masked)

    async def _ask_all(
        self, guards: Sequence[Guard], policy: Policy, conversation: Conversation, answers: _Answers
    ) -> None:
        if not guards:
            return
        async with anyio.create_task_group() as tasks:
            for guard in guards:
                tasks.start_soon(self._ask, guard, policy, conversation, answers)

    async def _ask(self, guard: Guard, policy: Policy, conversation: Conversation, answers: _Answers) -> None:
        direction = conversation.direction
        rules = policy.toward(direction)
        try:
            verdict = await self._verdict(guard, conversation)
        except GuardError as exc:
            detail = f"{guard.name}: {exc.result}: {exc}"
            answers.failures.append(detail)
            failed = Decision(rules.on_guard_failure, Reason.GUARD_FAILURE, direction, guard=guard.name, detail=detail)
            answers.decisions.append(failed)
            return
        answers.verdicts.append(verdict)
        answers.decisions.extend(decide(rules, verdict, guard.operating_points, direction, policy.sources))

    async def _verdict(self, guard: Guard, conversation: Conversation) -> Verdict:
        try:
            with anyio.fail_after(self.deadline):
                return await guard.check(conversation)
        except TimeoutError as exc:
            raise GuardTimeout(f"no verdict within {self.deadline:g} s") from exc


def _unread_by_all(verdicts: Sequence[Verdict]) -> tuple[Unread, ...]:
    """What a guard says it did not read. One guard's reading does not stand in for another's."""
    return tuple(unread for verdict in verdicts for unread in verdict.coverage.unread)


def _unreadable(policy: Policy, conversation: Conversation, unread: Sequence[Unread]) -> Decision:
    direction = conversation.direction
    detail = ", ".join(sorted({item.reason for item in unread}))
    return Decision(policy.toward(direction).on_unreadable, Reason.UNREADABLE, direction, detail=detail)


def _sealed(policy: Policy, conversation: Conversation) -> Decision:
    direction = conversation.direction
    return Decision(policy.toward(direction).on_sealed, Reason.SEALED, direction, detail="sealed by the provider")


def is_outage(decision: Decision) -> bool:
    """Whether a block says "the check could not be completed" rather than "this is harmful"."""
    return decision.reason is Reason.GUARD_FAILURE and decision.action is Action.BLOCK
