"""Copies of the stream's modules with one line broken: what the simulation must notice."""

import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from gateway.streaming.response import GuardedStream
from tests.simulation.world import Fault
from tests.support.source_edit import SourceEdit

GATEWAY = Path(__file__).parent.parent.parent / "gateway"
ROOMS = {
    "remedy": "judging",
    "token_weight": "streaming",
    "channel": "streaming",
    "schedule": "streaming",
    "hold_buffer": "streaming",
    "gate": "streaming",
    "pipes": "streaming",
    "outcome": "streaming",
    "stats": "streaming",
    "response": "streaming",
}
"""The modules that are copied, and their rooms."""
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Mutation:
    """`old` stands once in `function` of the module and becomes `new` (`SourceEdit`). `breaks` says which promise that
    breaks; `faults` are those of a world in which it shows, `first` a seed from which on one is soon found."""

    breaks: str
    module: str
    old: str
    new: str
    faults: tuple[Fault, ...] = ()
    first: int = 0
    function: str = ""

    @property
    def edit(self) -> SourceEdit:
        return SourceEdit(self.function, self.old, self.new)


@contextmanager
def mutant(mutation: Mutation) -> Iterator[type[GuardedStream]]:
    """The guarded stream as it would be with this one line broken."""
    package = f"mutant_{next(_numbers)}"
    try:
        for name, room in ROOMS.items():
            source = (GATEWAY / room / f"{name}.py").read_text(encoding="utf-8")
            if name == mutation.module:
                source = mutation.edit.applied(source)
            for other, its_room in ROOMS.items():
                source = source.replace(f"from gateway.{its_room}.{other} import", f"from {package}.{other} import")
            module = ModuleType(f"{package}.{name}")
            sys.modules[module.__name__] = module
            exec(compile(source, f"{name}.py ({mutation.breaks})", "exec"), module.__dict__)
        yield sys.modules[f"{package}.response"].GuardedStream
    finally:
        for name in ROOMS:
            sys.modules.pop(f"{package}.{name}", None)


MUTATIONS = (
    Mutation(
        "text waits for its check",
        "hold_buffer",
        "return all(piece.end <= piece.text.cleared for piece in held.pieces)",
        "return all(piece.end <= piece.text._at.length for piece in held.pieces)",
        function="HoldBuffer._may_leave",
    ),
    Mutation(
        "every piece of an event is cleared before it leaves",
        "hold_buffer",
        "return all(piece.end <= piece.text.cleared for piece in held.pieces)",
        "return any(piece.end <= piece.text.cleared for piece in held.pieces) or not held.pieces",
        function="HoldBuffer._may_leave",
    ),
    Mutation(
        "only what a check has read is cleared by it",
        "channel",
        "        self.checked = self.taken\n",
        "        self.checked = self.taken = self.length\n",
        function="Positions.check",
    ),
    Mutation(
        "a check reads the tail of what was cleared",
        "channel",
        "self.context = self.rules.reread(known, self.rules.overlap)",
        'self.context = ""',
        function="ChannelText._clear_to",
    ),
    Mutation(
        "a check does not read the whole answer again",
        "channel",
        "self.context = self.rules.reread(known, self.rules.overlap)",
        "self.context = known",
        function="ChannelText._clear_to",
    ),
    Mutation(
        "a run that may be the first part of a number is held back",
        "channel",
        "cut = self._at.cleared + run_start(self.fresh, position - self._at.cleared)",
        "cut = position",
        function="ChannelText._safe_cut",
    ),
    Mutation(
        "a number written in groups is one run",
        "channel",
        '    if text[at] != " ":\n        return text[at] in RUN\n',
        "    return text[at] in RUN\n",
        function="_in_run",
    ),
    Mutation(
        "what a mask covers does not leave",
        "channel",
        "            at = min(mask.end, end)\n",
        "            at = max(mask.start, start)\n",
        function="ChannelText.masked",
    ),
    Mutation(
        "a mask leaves one label",
        "channel",
        "            if mask.start >= start:\n                out.append(mask.label)\n",
        "            out.append(mask.label)\n",
        function="ChannelText.masked",
    ),
    Mutation(
        "spans count from the tail",
        "channel",
        "        shift = cleared - len(self.context)\n",
        "        shift = cleared\n",
        function="ChannelText._masks_from",
    ),
    Mutation(
        "a longer number takes the place of the shorter one seen before",
        "channel",
        "return kept + merged(new)",
        "return self.masks + merged(new)",
        function="ChannelText._masks_from",
    ),
    Mutation(
        "a run at the end of a whole answer leaves",
        "hold_buffer",
        "return (self._schedule.input_ended or self.full) and self._schedule.settled and not self._incomplete",
        "return self.full and self._schedule.settled and not self._incomplete",
        function="HoldBuffer._stuck",
    ),
    Mutation(
        "a run at the end of a torn answer does not leave",
        "hold_buffer",
        "self._schedule.settled and not self._incomplete",
        "self._schedule.settled",
        (Fault.UPSTREAM_DIES,),
        function="HoldBuffer._stuck",
    ),
    Mutation(
        "a full gate lets go what nothing else can move",
        "hold_buffer",
        "return (self._schedule.input_ended or self.full) and",
        "return self._schedule.input_ended and",
        first=212,
        function="HoldBuffer._stuck",
    ),
    Mutation(
        "the gate knows when it is full",
        "hold_buffer",
        "return self._size >= self._settings.max_held or",
        "return False and",
        (
            Fault.FLOOD,
            Fault.GUARD_SLOW,
        ),
        function="HoldBuffer.full",
    ),
    Mutation(
        "text is checked within the release time",
        "schedule",
        "            or now >= self._waiting_since + self._longest_wait(reread)\n",
        "",
        function="CheckSchedule.due",
    ),
    Mutation(
        "the driver wakes when the release time is over",
        "schedule",
        "        return self._waiting_since + self._longest_wait(reread)\n",
        "        return math.inf\n",
        function="CheckSchedule.deadline",
    ),
    Mutation(
        "a run that other channels wait for is let go",
        "hold_buffer",
        "            if self._blocks(key, text) and (",
        "            if self._stuck and self._blocks(key, text) and (",
        function="HoldBuffer.release",
    ),
    Mutation(
        "nothing leaves before the first check, so that the model can be asked again",
        "hold_buffer",
        "        if not (self._schedule.first_check_passed or self._stuck):\n            return False\n",
        "",
        function="HoldBuffer._may_leave",
    ),
    Mutation(
        "one check at a time",
        "schedule",
        "        if self._waiting_since is None or self._checking:\n            return False\n",
        "        if self._waiting_since is None:\n            return False\n",
        function="CheckSchedule.due",
    ),
    Mutation(
        "in async mode the end waits for the checks",
        "hold_buffer",
        "            return bool(held.pieces) or self._schedule.settled\n",
        "            return True\n",
        function="HoldBuffer._may_leave",
    ),
    Mutation(
        "a check reads a slice",
        "gate",
        "MAX_CHECK = 1024",
        "MAX_CHECK = 1024 * 1024",
        (Fault.FLOOD,),
        first=17,
        function="",
    ),
    Mutation(
        "unreadable fields are put to the policy",
        "hold_buffer",
        "            if delta.text is None or has_surrogate(delta.text):\n                added",
        "            if False:\n                added",
        (Fault.UNKNOWN_FIELD,),
        function="HoldBuffer.add",
    ),
    Mutation(
        "a block stops the stream",
        "response",
        "            case Regenerate(decision) | Replace(decision):\n                return self._replaced(decision)\n",
        "            case Regenerate(decision) | Replace(decision):\n"
        "                if decision.action is Action.BLOCK:\n                    return self._clear(judgement, ())\n"
        "                return self._replaced(decision)\n",
        function="_Relay._apply",
    ),
    Mutation(
        "a rewrite that is no mask stops the stream",
        "response",
        "            case Regenerate(decision) | Replace(decision):\n                return self._replaced(decision)\n",
        "            case Regenerate(decision) | Replace(decision):\n"
        "                if decision.action is Action.REWRITE:\n                    return self._clear(judgement, ())\n"
        "                return self._replaced(decision)\n",
        function="_Relay._apply",
    ),
    Mutation(
        "an astray span is no mask",
        "remedy",
        "    if any(not 0 <= span.start < span.end",
        "    if False and any(not 0 <= span.start < span.end",
        (Fault.SPANS_ASTRAY,),
        function="_valid_spans",
    ),
    Mutation(
        "an outage has its own ending",
        "response",
        "            case Outage(decision):\n                error",
        "            case Outage(decision):\n                return self._replaced(decision)\n                error",
        (Fault.GUARD_RAISES,),
        function="_Relay._apply",
    ),
    Mutation(
        "a bug in a guard stops the stream",
        "response",
        "            bug = (_outage(bug_place(bugs)),)\n",
        "            bug = (Judgement(Decision(Action.ALLOW, Reason.NO_RULE, Direction.RESPONSE)),)\n",
        (Fault.GUARD_BUG,),
        function="_Relay._check",
    ),
    Mutation(
        "the model is not asked again once something has left",
        "response",
        "if may_ask_again and not self._sent:",
        "if may_ask_again:",
        first=188,
        function="_Relay._apply",
    ),
    Mutation(
        "the upstream is closed when the stream is over",
        "response",
        "        finally:\n            self._reading.cancel()\n            self._stats",
        "        finally:\n            self._stats",
        first=355,
        function="_Relay.run",
    ),
    Mutation(
        "a caller who left ends the stream",
        "response",
        "            self._ending = _Ending(Ended.CLIENT_LEFT)\n        scope.cancel()\n",
        "            self._ending = _Ending(Ended.CLIENT_LEFT)\n",
        (Fault.CALLER_LEAVES,),
        function="GuardedStream._until_left",
    ),
    Mutation(
        "a stream has a deadline",
        "response",
        "        if now >= deadline:\n",
        "        if False:\n",
        (Fault.UPSTREAM_HANGS,),
        function="_Relay._step",
    ),
    Mutation(
        "a silent upstream has a deadline",
        "response",
        "        if now >= self._silence_ends:\n",
        "        if False:\n",
        (Fault.UPSTREAM_HANGS,),
        function="_Relay._step",
    ),
    Mutation(
        "an upstream that stops in the middle has failed",
        "response",
        "        return self._stream.finished or (self._buffer.closed and self._unusable is None)\n",
        "        return True\n",
        (Fault.UPSTREAM_DIES,),
        function="_Relay._complete",
    ),
    Mutation(
        "the record is written whatever happens",
        "response",
        "        try:\n            await self._answer(client, receive)\n        finally:\n            self._on_finish",
        "        if True:\n            await self._answer(client, receive)\n            self._on_finish",
        (Fault.SERVER_STOPS,),
        function="GuardedStream.__call__",
    ),
    Mutation(
        "a bug does not escape",
        "response",
        "        except ExceptionGroup as bugs:\n            # Every expected",
        "        except ZeroDivisionError as bugs:\n            # Every expected",
        (Fault.UPSTREAM_BUG,),
        function="GuardedStream._answer",
    ),
    Mutation(
        "silence is filled with comments",
        "response",
        "            await self._client.write(KEEP_ALIVE)\n",
        "            pass\n",
        (Fault.GUARD_HANGS,),
        function="_Relay._wait",
    ),
    Mutation(
        "an event that has left is noted",
        "response",
        "            self._stream.sent(event)\n",
        "",
        function="_Relay._forward",
    ),
    Mutation(
        "what has left is counted",
        "response",
        "            self._stats.sent(free.characters, free.texts)\n",
        "",
        function="_Relay._forward",
    ),
    Mutation(
        "edits are written into the event",
        "response",
        "if free.edited else",
        "if False else",
        function="_Relay._forward",
    ),
    Mutation(
        "a caller who is gone is noticed",
        "response",
        "        if self._client.gone:\n            return",
        "        if False:\n            return",
        (Fault.CALLER_STOPS_READING,),
        first=122,
        function="_Relay._step",
    ),
    Mutation(
        "garbage ends the stream",
        "response",
        "                self._buffer.end(exc, discard=True)\n",
        "                pass\n",
        (Fault.UPSTREAM_GARBAGE,),
        function="_Relay._intake",
    ),
    Mutation(
        "the inbox is bounded",
        "pipes",
        "        while self._events and (len(self._events) >= BUFFER_EVENTS or self._size + size > BUFFER_BYTES):\n",
        "        while False:\n",
        (
            Fault.FLOOD,
            Fault.GUARD_SLOW,
        ),
        function="UpstreamBuffer.put",
    ),
    Mutation(
        "the reader is woken when there is room",
        "pipes",
        "        self._room.set()\n",
        "",
        (Fault.FLOOD,),
        function="UpstreamBuffer.take",
    ),
    Mutation(
        "the driver is woken when something has come",
        "pipes",
        "        self._size += size\n        self._wakeup.notify()\n",
        "        self._size += size\n",
        function="UpstreamBuffer.put",
    ),
    Mutation(
        "the driver is woken when a check is over",
        "response",
        "((*judgements.values(), *bug), Direction.RESPONSE)\n        self._wakeup.notify()\n",
        "((*judgements.values(), *bug), Direction.RESPONSE)\n",
        function="_Relay._check",
    ),
    Mutation(
        "a check that is over is recorded",
        "response",
        "        self._stats.add(judgement, choice)  # not in `_apply`: the stream may be over before that\n",
        "",
        function="_Relay._check_choice",
    ),
    Mutation(
        "a response has started when its start was sent",
        "pipes",
        "                    await self._send(self._start)\n                    self.started = True ",
        "                    self.started = True\n                    await self._send(self._start) ",
        (Fault.CALLER_SLOW, Fault.UPSTREAM_BUG),
        first=133,
        function="ClientWriter._write",
    ),
    Mutation(
        "the response is finished",
        "pipes",
        '"more_body": False}',
        '"more_body": True}',
        function="ClientWriter.finish",
    ),
    Mutation(
        "a caller who does not read is given up",
        "pipes",
        "            with anyio.fail_after(self._timeout):\n",
        "            with anyio.fail_after(None):\n",
        (Fault.CALLER_STOPS_READING,),
        function="ClientWriter._write",
    ),
)
