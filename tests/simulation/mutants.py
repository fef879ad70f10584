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

GATEWAY = Path(__file__).parent.parent.parent / "gateway"
ROOMS = {
    "remedy": "judging",
    "channel": "streaming",
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
    """`old` stands once in the module and becomes `new`. `breaks` says which promise that breaks; `faults` are those of
    a world in which it shows, `first` a seed from which on one is soon found."""

    breaks: str
    module: str
    old: str
    new: str
    faults: tuple[Fault, ...] = ()
    first: int = 0


@contextmanager
def mutant(mutation: Mutation) -> Iterator[type[GuardedStream]]:
    """The guarded stream as it would be with this one line broken."""
    package = f"mutant_{next(_numbers)}"
    try:
        for name, room in ROOMS.items():
            source = (GATEWAY / room / f"{name}.py").read_text(encoding="utf-8")
            if name == mutation.module:
                if source.count(mutation.old) != 1:
                    raise LookupError(f"{mutation.breaks}: {mutation.old!r} stands {source.count(mutation.old)} times")
                source = source.replace(mutation.old, mutation.new)
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
        "gate",
        "return all(piece.end <= piece.text.cleared for piece in held.pieces)",
        "return all(piece.end <= piece.text.length for piece in held.pieces)",
    ),
    Mutation(
        "every piece of an event is cleared before it leaves",
        "gate",
        "return all(piece.end <= piece.text.cleared for piece in held.pieces)",
        "return any(piece.end <= piece.text.cleared for piece in held.pieces) or not held.pieces",
    ),
    Mutation(
        "only what a check has read is cleared by it",
        "channel",
        "        self.checked = self.taken\n",
        "        self.checked = self.taken = self.length\n",
    ),
    Mutation(
        "a check reads the tail of what was cleared",
        "channel",
        'self.context = reach(known[-4 * overlap :] if overlap else "", overlap)',
        'self.context = ""',
    ),
    Mutation(
        "a check does not read the whole answer again",
        "channel",
        'self.context = reach(known[-4 * overlap :] if overlap else "", overlap)',
        "self.context = known",
    ),
    Mutation(
        "a run that may be the first part of a number is held back",
        "channel",
        "            to = self.cleared + run_start(self.fresh, self.checked - self.cleared)\n",
        "",
    ),
    Mutation(
        "a number written in groups is one run",
        "channel",
        '    if text[at] != " ":\n        return text[at] in RUN\n',
        "    return text[at] in RUN\n",
    ),
    Mutation(
        "what a mask covers does not leave",
        "channel",
        "            at = min(mask.end, end)\n",
        "            at = max(mask.start, start)\n",
    ),
    Mutation(
        "a mask leaves one label",
        "channel",
        "            if mask.start >= start:\n                out.append(mask.label)\n",
        "            out.append(mask.label)\n",
    ),
    Mutation(
        "spans count from the tail",
        "channel",
        "        shift = self.cleared - len(self.context)\n",
        "        shift = self.cleared\n",
    ),
    Mutation(
        "a longer number takes the place of the shorter one seen before",
        "channel",
        "self.masks = kept + merged(found)",
        "self.masks = self.masks + merged(found)",
    ),
    Mutation(
        "a run at the end of a whole answer leaves",
        "gate",
        "return (self._ended or self.full) and self.settled and not self._torn",
        "return self.full and self.settled and not self._torn",
    ),
    Mutation(
        "a run at the end of a torn answer does not leave",
        "gate",
        "self._ended or self.full) and self.settled and not self._torn",
        "self._ended or self.full) and self.settled",
        (Fault.UPSTREAM_DIES,),
    ),
    Mutation(
        "a full gate lets go what nothing else can move",
        "gate",
        "return (self._ended or self.full) and self.settled",
        "return self._ended and self.settled",
        first=212,
    ),
    Mutation(
        "the gate knows when it is full",
        "gate",
        "return self._size >= self._settings.max_held or",
        "return False and",
        (
            Fault.FLOOD,
            Fault.GUARD_SLOW,
        ),
    ),
    Mutation(
        "text is checked within the release time",
        "gate",
        "            or now >= self._since + self._wait\n",
        "",
    ),
    Mutation(
        "the driver wakes when the release time is over",
        "gate",
        "            times.append(self._since + self._wait)\n",
        "            pass\n",
    ),
    Mutation(
        "a run that other channels wait for is let go",
        "gate",
        "        for text in self._texts.values():\n            if self._blocks(text) and",
        "        for text in self._texts.values():\n            if self._stuck and self._blocks(text) and",
    ),
    Mutation(
        "nothing leaves before the first check, so that the model can be asked again",
        "gate",
        "        if not (self._opened or self._stuck):\n            return False\n",
        "",
    ),
    Mutation(
        "one check at a time",
        "gate",
        "        if self._since is None or self._reading:\n            return False\n",
        "        if self._since is None:\n            return False\n",
    ),
    Mutation(
        "in async mode the end waits for the checks",
        "gate",
        "            return bool(held.pieces) or self.settled\n",
        "            return True\n",
    ),
    Mutation(
        "a check reads a slice",
        "gate",
        "SLICE = 1024",
        "SLICE = 1024 * 1024",
        (Fault.FLOOD,),
        first=17,
    ),
    Mutation(
        "unreadable fields are put to the policy",
        "gate",
        "            if delta.text is None or has_surrogate(delta.text):\n                added",
        "            if False:\n                added",
        (Fault.UNKNOWN_FIELD,),
    ),
    Mutation(
        "a block stops the stream",
        "response",
        "            case Regenerate(decision) | Replace(decision):\n                return self._replaced(decision)\n",
        "            case Regenerate(decision) | Replace(decision):\n"
        "                if decision.action is Action.BLOCK:\n                    return self._clear(judgement, ())\n"
        "                return self._replaced(decision)\n",
    ),
    Mutation(
        "a rewrite that is no mask stops the stream",
        "response",
        "            case Regenerate(decision) | Replace(decision):\n                return self._replaced(decision)\n",
        "            case Regenerate(decision) | Replace(decision):\n"
        "                if decision.action is Action.REWRITE:\n                    return self._clear(judgement, ())\n"
        "                return self._replaced(decision)\n",
    ),
    Mutation(
        "an astray span is no mask",
        "remedy",
        "    if any(not 0 <= span.start < span.end",
        "    if False and any(not 0 <= span.start < span.end",
        (Fault.SPANS_ASTRAY,),
    ),
    Mutation(
        "an outage has its own ending",
        "response",
        "            case Outage(decision):\n                error",
        "            case Outage(decision):\n                return self._replaced(decision)\n                error",
        (Fault.GUARD_RAISES,),
    ),
    Mutation(
        "a bug in a guard stops the stream",
        "response",
        "            bug = (_outage(bug_place(bugs)),)\n",
        "            bug = (Judgement(Decision(Action.ALLOW, Reason.NO_RULE, Direction.RESPONSE)),)\n",
        (Fault.GUARD_BUG,),
    ),
    Mutation(
        "the model is not asked again once something has left",
        "response",
        "if may_ask_again and not self._sent:",
        "if may_ask_again:",
        first=188,
    ),
    Mutation(
        "the upstream is closed when the stream is over",
        "response",
        "        finally:\n            self._reading.cancel()\n            self._stats",
        "        finally:\n            self._stats",
        first=355,
    ),
    Mutation(
        "a caller who left ends the stream",
        "response",
        "            self._ending = _Ending(Ended.CLIENT_LEFT)\n        scope.cancel()\n",
        "            self._ending = _Ending(Ended.CLIENT_LEFT)\n",
        (Fault.CALLER_LEAVES,),
    ),
    Mutation(
        "a stream has a deadline",
        "response",
        "        if now >= deadline:\n",
        "        if False:\n",
        (Fault.UPSTREAM_HANGS,),
    ),
    Mutation(
        "a silent upstream has a deadline",
        "response",
        "        if now >= self._silence_ends:\n",
        "        if False:\n",
        (Fault.UPSTREAM_HANGS,),
    ),
    Mutation(
        "an upstream that stops in the middle has failed",
        "response",
        "        return self._stream.finished or self._buffer.closed\n",
        "        return True\n",
        (Fault.UPSTREAM_DIES,),
    ),
    Mutation(
        "the record is written whatever happens",
        "response",
        "        try:\n            await self._answer(client, receive)\n        finally:\n            self._on_finish",
        "        if True:\n            await self._answer(client, receive)\n            self._on_finish",
        (Fault.SERVER_STOPS,),
    ),
    Mutation(
        "a bug does not escape",
        "response",
        "        except ExceptionGroup as bugs:\n            # Every expected",
        "        except ZeroDivisionError as bugs:\n            # Every expected",
        (Fault.UPSTREAM_BUG,),
    ),
    Mutation(
        "silence is filled with comments",
        "response",
        "            await self._client.write(KEEP_ALIVE)\n",
        "            pass\n",
        (Fault.GUARD_HANGS,),
    ),
    Mutation(
        "an event that has left is noted",
        "response",
        "            self._stream.sent(event)\n",
        "",
    ),
    Mutation(
        "what has left is counted",
        "response",
        "            self._stats.sent(free.characters, free.texts)\n",
        "",
    ),
    Mutation(
        "edits are written into the event",
        "response",
        "if free.edited else",
        "if False else",
    ),
    Mutation(
        "a caller who is gone is noticed",
        "response",
        "        if self._client.gone:\n            return",
        "        if False:\n            return",
        (Fault.CALLER_STOPS_READING,),
        first=122,
    ),
    Mutation(
        "garbage ends the stream",
        "response",
        "                self._buffer.end(exc, discard=True)\n",
        "                pass\n",
        (Fault.UPSTREAM_GARBAGE,),
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
    ),
    Mutation(
        "the reader is woken when there is room",
        "pipes",
        "        self._room.set()\n",
        "",
        (Fault.FLOOD,),
    ),
    Mutation(
        "the driver is woken when something has come",
        "pipes",
        "        self._size += size\n        self._wakeup.notify()\n",
        "        self._size += size\n",
    ),
    Mutation(
        "the driver is woken when a check is over",
        "response",
        "((*judgements.values(), *bug), Direction.RESPONSE)\n        self._wakeup.notify()\n",
        "((*judgements.values(), *bug), Direction.RESPONSE)\n",
    ),
    Mutation(
        "a check that is over is recorded",
        "response",
        "        self._stats.add(judgement, choice)  # not in `_apply`: the stream may be over before that\n",
        "",
    ),
    Mutation(
        "a response has started when its start was sent",
        "pipes",
        "                    await self._send(self._start)\n                    self.started = True ",
        "                    self.started = True\n                    await self._send(self._start) ",
        (Fault.CALLER_SLOW, Fault.UPSTREAM_BUG),
        first=133,
    ),
    Mutation(
        "the response is finished",
        "pipes",
        '"more_body": False}',
        '"more_body": True}',
    ),
    Mutation(
        "a caller who does not read is given up",
        "pipes",
        "            with anyio.fail_after(self._timeout):\n",
        "            with anyio.fail_after(None):\n",
        (Fault.CALLER_STOPS_READING,),
    ),
)
