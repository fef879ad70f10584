"""A second, naive opinion on what a caller may have seen: it has the whole text, and no idea how the gate works."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from gateway.judging.judge import Judgement
from gateway.judging.masks import mask_label
from gateway.policy.policy import Action, Decision, Policy, Reason, Rewrite, worst_of
from gateway.streaming.outcome import Ended, StreamOutcome
from gateway.streaming.pipes import BUFFER_BYTES, BUFFER_EVENTS
from gateway.streaming.response import KEEP_ALIVE_AFTER
from guard_runtime.conversation import Part
from tests.simulation.world import BAD, MARKS, PRIVATE, SAFE, Fault, World

MAX_RUN = 256
MAX_CHECK = 1024
MAX_WAIT_FACTOR = 4
JUDGE_DEADLINE = 5.0
LANGUAGE = "zh"
SLOW = {Fault.UPSTREAM_HANGS, Fault.GUARD_HANGS, Fault.GUARD_SLOW, Fault.CALLER_SLOW, Fault.CALLER_STOPS_READING}
"""Faults that may take all the time a stream has; without them it must not run out."""


class Violation(AssertionError):
    """An invariant does not hold."""


def require(truth: bool, what: str) -> None:
    if not truth:
        raise Violation(what)


@functools.lru_cache(maxsize=64)
def masked(text: str) -> str:
    """The whole text with every private thing in it replaced."""
    return PRIVATE.sub(lambda found: mask_label(str(found.lastgroup), LANGUAGE), text)


def last_mark(text: str) -> int:
    """The last of a text's unique characters, as a number; -1 where it has none."""
    return next((ord(c) for c in reversed(text) if ord(c) in MARKS), -1)


class Oracle:
    """Is told everything that happens, as it happens, and complains at once."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.attempt = 0
        self.now = 0.0
        self._begun: set[int] = set()
        self.heard: dict[tuple[Any, ...], str] = {}
        self.delivered = 0
        self.characters = 0
        self.ending: list[Any] = []
        self.body = b""
        self.started = False
        self.status = 0
        self.finished = False
        self.wrote_at = 0.0
        self.outcomes: list[StreamOutcome] = []
        self.closed_at: float | None = None
        self.left_at: float | None = None
        self.outage = False
        self._steady = _steady(world)
        self._checks = 0
        self._asked_at = 0.0
        self._closed = 0
        self._garbage_at = math.inf
        self._cleared: dict[tuple[Any, ...], int] = {}
        self._readable: set[tuple[Any, ...]] = set()
        self._allowed_unreadable = 0
        self._stopped_at: float | None = None
        self._stops: list[Decision] = []
        self._biggest = 0
        self._sent: list[tuple[float, bytes]] = []
        self._delivered_bytes = 0
        self._emitted_bytes = 0

    # What the actors tell

    def asked(self, attempt: int) -> None:
        require(attempt == 1 or not self.heard, "asked again after text had left")
        self._asked_at = self.now
        self._garbage_at = math.inf
        self.attempt = attempt - 1
        self.delivered = self.characters = 0
        self._sent, self._cleared = [], {}
        self._delivered_bytes = self._emitted_bytes = 0
        self._stopped_at = None
        self._stops = []

    def sent(self, event: Any) -> None:
        wire = orjson.dumps(event.data)
        self._sent.append((self.now, wire))
        self._emitted_bytes += len(wire)
        self._biggest = biggest = max(self._biggest, len(wire))
        if self.world.hold and self._garbage_at == math.inf:  # what comes behind garbage is thrown away
            cap = self.world.policy.stream.max_held + max(BUFFER_BYTES, biggest) + 4 * biggest
            backlog = self._emitted_bytes - self._delivered_bytes
            require(backlog <= cap, f"{backlog} bytes are held, more than {cap}")
            waiting = len(self._sent) - self.delivered
            room = self.world.policy.stream.max_held // 60 + BUFFER_EVENTS + 4
            require(waiting <= room, f"{waiting} events are held, more than {room}")

    def closed(self) -> None:
        self.closed_at = self.now
        self._closed += 1
        if self._closed == 1 and self.attempt == 1:
            require(self.now - self._asked_at <= 1.0, "the first upstream stayed open beside the second")

    def garbage(self) -> None:
        self._garbage_at = len(self._sent)

    def judged(self, policy: Policy, parts: Sequence[Part], judgement: Judgement) -> None:
        """One check is over. From here on its text may leave if it was let through."""
        require(policy is self.world.policy, "a check under another policy")
        self._checks += 1
        decision = judgement.decision
        settings = self.world.policy.stream
        bound = 4 * MAX_CHECK + len(parts) * (4 * settings.overlap + 2 * MAX_RUN + 4)
        require(sum(_weight(part.text or "") for part in parts) <= bound, "a check reads more than its slice")
        for part in parts:
            known = self._cleared.get(part.path, -1)
            again = sum(MARKS.start <= ord(character) <= known for character in part.text or "")
            require(again <= settings.overlap, "a check reads more than the tail again")
        masks = all(d.rewrite is Rewrite.MASK for d in judgement.decisions if d.action is Action.REWRITE)
        let_through = decision.action <= Action.LOG or (decision.action is Action.REWRITE and masks and self.world.hold)
        if not let_through:
            # Choices are judged at the same time, each alone: the worst of what stops them is what ends the stream.
            self._stopped_at = self.now
            self._stops.append(decision)
            self.outage = worst_of(self._stops, decision.direction).reason is Reason.GUARD_FAILURE
            return
        for part in parts:
            if part.text is None:
                self._readable.add(part.path)
            else:
                self._cleared[part.path] = max(self._cleared.get(part.path, -1), last_mark(part.text))

    def got(self, message: Mapping[str, Any]) -> None:
        """Bytes have reached the caller."""
        require(not self.finished, "something was sent after the end")
        if self.started:
            gap = self.now - self.wrote_at
            require(gap <= KEEP_ALIVE_AFTER + 2.0, f"{gap:g} s without a byte")
        self.wrote_at = self.now
        if message["type"] == "http.response.start":
            require(not self.started, "started twice")
            self.started, self.status = True, message["status"]
            return
        self.finished = not message.get("more_body", False)
        if self.status != 200:
            require(not self.heard, "an error status after text")
            return
        for frame in message["body"].decode().split("\n\n"):
            if frame and not frame.startswith(":"):
                self._event(frame.removeprefix("data: "))

    def _event(self, frame: str) -> None:
        data = None if frame == "[DONE]" else orjson.loads(frame)
        expected = self._sent[self.delivered] if self.delivered < len(self._sent) else None
        own = SAFE in frame
        if not self.ending and not own and expected is not None and _bare(data) == self._due(expected[1]):
            self._relayed(data, expected)
            return
        require(not self.ending or self.ending[-1] is not None, "something follows [DONE]")
        self.ending.append(data)
        require(last_mark(frame) < 0, "the ending holds text of the model")
        require(BAD not in frame, "the ending repeats the matched text")
        for choice in (data or {}).get("choices", ()):
            again = choice["index"] in self._begun and "role" in choice["delta"]
            require(not again, "a choice is begun a second time")
            require(choice["index"] in self._unfinished(), "a choice is closed a second time")

    def _due(self, wire: bytes) -> Any:
        """The provider's event as it is to arrive, without its text: without the field that nobody knows, where the
        policy drops such fields."""
        due = _bare(orjson.loads(wire))
        for choice in (due or {}).get("choices", ()) if self.world.policy.drop_unknown else ():
            choice["delta"].pop("weird", None)
        return due

    def _relayed(self, data: Any, expected: tuple[float, bytes]) -> None:
        at, wire = expected
        require(self.delivered < self._garbage_at or data is None, "what came after garbage was relayed")
        early = self.world.hold and not self._checks and self.closed_at is None
        require(not early, "an event has left before the first check")
        if data is None or any(choice["finish_reason"] for choice in data.get("choices", ())):
            self._all_read()
        self.delivered += 1
        for choice in (data or {}).get("choices", ()):
            self._begun.add(choice["index"])
        self._delivered_bytes += len(wire)
        raw = dict(_texts(orjson.loads(wire)))
        self.characters += sum(map(len, raw.values()))
        require(
            "weird" not in str(data) or bool(self._readable) or not self.world.hold,
            "an unreadable field left unanswered",
        )
        for channel, text in _texts(data):
            self.heard[channel] = self.heard.get(channel, "") + text
            self._channel(channel, text, raw[channel])
        self._timely(raw, at)

    def _all_read(self) -> None:
        """Checks have let through all that came before an event that ends a choice, or the stream."""
        for _, wire in self._sent[: self.delivered]:
            for channel, text in _texts(orjson.loads(wire)):
                require(last_mark(text) <= self._cleared.get(channel, -1), "it ends before its text is checked")

    def _channel(self, channel: tuple[Any, ...], text: str, raw: str) -> None:
        world, heard = self.world, self.heard[channel]
        whole = world.texts[self.attempt][channel]
        if not (world.masks and world.hold):
            require(text == raw, "an event was altered that was not to be edited")
            require(whole.startswith(heard), "the caller's text is no prefix of the model's")
        elif world.one_channel:
            require(masked(whole).startswith(heard), "a mask is torn, or later text is harmed")
        elif self._steady:
            private = [found.group() for found in PRIVATE.finditer(whole)]
            require(not any(secret in heard for secret in private), "something private left whole")
        if world.hold:
            require(last_mark(heard) <= self._cleared.get(channel, -1), "text has left that no check has cleared")
            require(bool(heard) is False or bool(self._cleared), "text has left before any check")
            if world.policy.response.on_guard_failure is Action.BLOCK:
                require(BAD not in heard, "the bad word has left whole")

    def _timely(self, raw: Mapping[tuple[Any, ...], str], at: float) -> None:
        """In a calm world with one channel, nothing waits longer than four release times and two checks."""
        world = self.world
        if world.faults or not (world.one_channel and world.hold) or world.policy.stream.max_held < 200_000:
            return
        if any(not _plain(text) for text in raw.values()):
            return
        if raw and max(map(len, raw.values())) < 200:
            most = MAX_WAIT_FACTOR * world.policy.stream.release_after + 3 * (world.guard_latency + 0.01)
            require(self.now - at <= most, f"{self.now - at:g} s held, more than {most:g}")

    # At the end

    def over(self, open_upstreams: int, queued: int, tasks: int) -> None:
        """Everything has come to rest."""
        require(len(self.outcomes) == 1, f"{len(self.outcomes)} records of one stream")
        outcome = self.outcomes[0]
        require(open_upstreams == 0, "the upstream is still open")
        require(queued == 0, "passages still wait for the guard")
        require(tasks == 0, "tasks are left behind")
        require(self.now <= self._longest(), f"it took {self.now:g} s")
        self._counted(outcome)
        here = self.left_at is None and Fault.CALLER_STOPS_READING not in self.world.faults
        if here:
            self._ended_lawfully(outcome)
            require(outcome.ended != Ended.CLIENT_LEFT, "the caller did not leave")
        elif self.left_at is not None and self.closed_at is not None:
            late = self.closed_at - self.left_at
            require(late <= 1.0, f"the upstream was closed {late:g} s after the caller left")

    def _counted(self, outcome: StreamOutcome) -> None:
        world = self.world
        if world.hold:
            require(outcome.stats.unguarded == 0, "characters have left unguarded")
            require(outcome.stats.released <= outcome.stats.cleared, "more was released than cleared")
            if outcome.attempts == 1:
                require(outcome.stats.released == self.characters, "the record and the caller count differently")
        settings = world.policy.stream
        require(outcome.stats.checks >= self._checks, f"{outcome.stats.checks} checks are recorded of {self._checks}")
        if self._stopped_at is not None:
            told = (Ended.GUARD_UNAVAILABLE,) if self.outage else (Ended.BLOCKED, Ended.REWRITTEN)
            overtaken = (Ended.CLIENT_LEFT, Ended.SHUT_DOWN, Ended.FAILED)
            beside = (Ended.GUARD_UNAVAILABLE,) if Fault.GUARD_BUG in self.world.faults else ()
            late = (Ended.TIMEOUT,) if self._stopped_at >= settings.timeout - 0.001 else ()
            require(outcome.ended in (*told, *overtaken, *beside, *late), f"a stop ended as {outcome.ended}")
        tokens = 2 + sum(len(text) for texts in world.texts for text in texts.values())
        checks = outcome.attempts * (3 + self.now / settings.release_after) + tokens / max(1, settings.first_window)
        require(outcome.stats.checks <= checks + tokens / 8, f"{outcome.stats.checks} checks")
        most = tokens + outcome.stats.checks * (4 * settings.overlap + MAX_RUN) * 4
        require(outcome.stats.judged <= most, "text is judged again and again")

    def _ended_lawfully(self, outcome: StreamOutcome) -> None:
        require(self.finished, "the response was never finished")
        if self.status != 200:
            require(outcome.error is not None and outcome.error.status == self.status, "another status than recorded")
            require(self.status in (502, 503, 504), f"status {self.status}")
            return
        last = self.ending[-1] if self.ending else None
        done = self.delivered and self._sent[self.delivered - 1][1] == b"null"
        require(last is None and (bool(self.ending) or bool(done)), "no [DONE] at the end")
        said = orjson.dumps(self.ending).decode()
        if outcome.ended in (Ended.BLOCKED, Ended.REWRITTEN):
            closed = [
                c["index"] for event in self.ending for c in (event or {}).get("choices", ()) if c["finish_reason"]
            ]
            require(sorted(closed) == sorted(self._unfinished()), "not every open choice is closed once")
        calm = not self.world.faults & SLOW and self.world.guard_latency <= 0.02
        lasts = sum(step.delay for steps in self.world.attempts for step in steps)
        half = self.world.policy.stream.timeout / 2
        late = outcome.ended == Ended.TIMEOUT and lasts < half and outcome.seconds.get("guard", 0.0) < half
        require(not (calm and late), "a timeout with nothing wrong")
        match outcome.ended:
            case Ended.COMPLETE:
                self._complete()
            case Ended.BLOCKED:
                require("content_filter" in said or not self._unfinished(), "a block that does not say so")
            case Ended.REWRITTEN:
                require(SAFE in said or not self._unfinished(), "no safe message")
            case Ended.GUARD_UNAVAILABLE:
                require("guard_unavailable" in said, "an outage that does not say so")
            case Ended.UPSTREAM_FAILED | Ended.TIMEOUT | Ended.FAILED:
                require('"error"' in said, "a failure that does not say so")
            case _:
                raise Violation(f"ended as {outcome.ended} with the caller still there")

    def _unfinished(self) -> set[int]:
        """The choices whose finish reason the caller has not seen among the model's own events."""
        choices = {int(channel[0]) for channel in self.world.texts[self.attempt]}
        for _, wire in self._sent[: self.delivered]:
            for choice in (orjson.loads(wire) or {}).get("choices", ()):
                choices -= {choice["index"]} if choice["finish_reason"] else set()
        return choices

    def _complete(self) -> None:
        world = self.world
        require(not [event for event in self.ending if event is not None], "complete, and something was added")
        wholes: dict[tuple[Any, ...], str] = {}
        understood = self._sent if self._garbage_at == math.inf else self._sent[: int(self._garbage_at)]
        for _, wire in understood:
            for channel, text in _texts(orjson.loads(wire)):
                wholes[channel] = wholes.get(channel, "") + text
        for channel, whole in wholes.items():
            heard = self.heard.get(channel, "")
            if not (world.masks and world.hold):
                require(heard == whole, "complete, and not the whole text")
            elif world.one_channel:
                require(heard == masked(whole), "complete, and not the whole text masked")

    def _longest(self) -> float:
        settings = self.world.policy.stream
        return settings.timeout + 2 * settings.idle_timeout + JUDGE_DEADLINE + 14.0


def _steady(world: World) -> bool:
    """Whether no channel pauses, while others go on, for so long that a run of it is let go."""
    patience = 2 * world.policy.stream.release_after
    if world.faults & {Fault.CALLER_SLOW, Fault.CALLER_STOPS_READING, Fault.FLOOD}:
        return False
    for steps in world.attempts:
        since: dict[tuple[Any, ...], float] = {}
        now = 0.0
        for step in steps:
            now += step.delay
            for channel, _ in _texts(step.event.data) if step.event is not None else ():
                if now - since.get(channel, now) >= patience - 0.01:
                    return False
                since[channel] = now
    return True


def _texts(data: Any) -> list[tuple[tuple[Any, ...], str]]:
    """The text in an event, by channel."""
    found: list[tuple[tuple[Any, ...], str]] = []
    for choice in (data or {}).get("choices", ()):
        delta = choice["delta"]
        for field in ("content", "reasoning_content"):
            if delta.get(field):
                found.append(((choice["index"], field), delta[field]))
        for call in delta.get("tool_calls", ()):
            found.append(((choice["index"], "tool_calls", call["index"], "arguments"), call["function"]["arguments"]))
    return found


def _bare(data: Any) -> Any:
    """An event without its text."""
    if isinstance(data, dict):
        return {
            key: "" if key in ("content", "reasoning_content", "arguments") else _bare(v) for key, v in data.items()
        }
    if isinstance(data, list):
        return [_bare(value) for value in data]
    return data


def _weight(text: str) -> int:
    """Four for a Chinese character, one for any other."""
    return sum(4 if "\u2e80" <= character <= "\u9fff" or ord(character) in MARKS else 1 for character in text)


def _plain(text: str) -> bool:
    return all(ord(c) in MARKS or c in "。，\n！" for c in text)
