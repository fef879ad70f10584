"""What a seed decides: the answer, the chunks it comes in, the faults of the provider, the guards and the caller."""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from gateway.dialects.dialect import Event
from gateway.policy.policy import Action, DirectionPolicy, Policy, Rewrite, Rule, StreamMode, StreamSettings
from guard_runtime.verdict import Category

BAD = "坏词出没"
SAFE = "⟦safe⟧"
MARKS = range(0x20000, 0x2A6D0)
"""Han characters of which each stands once in a world, so that any piece of text says where it comes from."""

PATTERNS = {
    "cn_resident_id": r"(?<!\d)\d{17}[\dX](?!\d)",
    "cn_phone": r"(?<!\d)1\d{10}(?!\d)",
    "bank_card": r"(?<!\d)\d{4}(?: \d{4}){3}(?!\d)",
    "email": r"[A-Za-z0-9._+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+",
}
PRIVATE = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in PATTERNS.items()))


class Fault(StrEnum):
    """What may go wrong. Each seed switches a random few of them on (swarm testing)."""

    UPSTREAM_REFUSES = "upstream_refuses"
    UPSTREAM_DIES = "upstream_dies"
    UPSTREAM_HANGS = "upstream_hangs"
    UPSTREAM_GARBAGE = "upstream_garbage"
    UPSTREAM_BUG = "upstream_bug"
    NO_DONE = "no_done"
    NO_FINISH = "no_finish"
    TEXT_AFTER_FINISH = "text_after_finish"
    UNKNOWN_FIELD = "unknown_field"
    GUARD_SLOW = "guard_slow"
    GUARD_HANGS = "guard_hangs"
    GUARD_NAN = "guard_nan"
    GUARD_COUNT = "guard_count"
    GUARD_RAISES = "guard_raises"
    GUARD_BUG = "guard_bug"
    SPANS_ASTRAY = "spans_astray"
    CALLER_SLOW = "caller_slow"
    CALLER_LEAVES = "caller_leaves"
    CALLER_STOPS_READING = "caller_stops_reading"
    SERVER_STOPS = "server_stops"
    FLOOD = "flood"


@dataclass(frozen=True, slots=True)
class Step:
    """The provider waits `delay` seconds, then sends the event, or does what `fault` says."""

    delay: float
    event: Event | None = None
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class World:
    seed: int
    faults: frozenset[Fault]
    policy: Policy
    attempts: tuple[tuple[Step, ...], ...]
    guard_latency: float
    guard_fails_at: int
    caller_delay: float
    caller_leaves_at: float
    texts: tuple[dict[tuple[Any, ...], str], ...] = field(default=())

    @property
    def masks(self) -> bool:
        return self.policy.response.rules[Category.PRIVACY_AND_PROPERTY][0].rewrite is Rewrite.MASK

    @property
    def hold(self) -> bool:
        return self.policy.stream.mode is StreamMode.HOLD

    @property
    def one_channel(self) -> bool:
        return all(len(texts) == 1 for texts in self.texts) and Fault.UNKNOWN_FIELD not in self.faults


def world(seed: int, force: Sequence[Fault] = ()) -> World:
    """The world of a seed; `force` switches faults on that the seed would not."""
    dice = random.Random(seed)
    faults = frozenset(fault for fault in Fault if dice.random() < _likelihood(fault)) | frozenset(force)
    marks = iter(MARKS)
    policy = replace(_policy(dice), drop_unknown=seed % 2 == 0)
    again = policy.response.rules[Category.ILLEGAL_ACTIVITIES_AND_CRIME][0].rewrite is Rewrite.REGENERATE
    channels = dice.choice([[(0, "content")]] * 3 + [[(0, "reasoning_content"), (0, "content")]] + [_several(dice)])
    tries = range(2 if again else 1)
    attempts, texts = zip(*(_attempt(dice, faults, (f"a{n}", channels), marks) for n in tries), strict=True)
    return World(
        seed=seed,
        faults=faults,
        policy=policy,
        attempts=attempts,
        texts=texts,
        guard_latency=dice.choice([0.0, 0.001, 0.02, 0.2, 0.9]),
        guard_fails_at=dice.randrange(6),
        caller_delay=dice.choice([0.0, 0.0, 0.01, 0.4]),
        caller_leaves_at=dice.choice([0.0, 0.05, dice.uniform(0, 3), dice.uniform(0, 3)]),
    )


def calm(seed: int) -> World:
    """The same world with nothing going wrong in it."""
    made = world(seed)
    return replace(made, faults=frozenset(), guard_latency=0.02, caller_delay=0.0)


def _likelihood(fault: Fault) -> float:
    rare = (Fault.UPSTREAM_BUG, Fault.UPSTREAM_REFUSES, Fault.SERVER_STOPS)
    return 0.005 if fault is Fault.FLOOD else 0.02 if fault in rare else 0.05


def _policy(dice: random.Random) -> Policy:
    block = dice.choice(
        [Rule(0.5, Action.BLOCK)] * 3
        + [Rule(0.5, Action.REWRITE, Rewrite.SAFE_MESSAGE), Rule(0.5, Action.REWRITE, Rewrite.REGENERATE)]
    )
    private = dice.choice([Rule(0.5, Action.REWRITE, Rewrite.MASK)] * 2 + [Rule(0.5, Action.LOG)])
    settings = StreamSettings(
        mode=dice.choice([StreamMode.HOLD] * 4 + [StreamMode.ASYNC]),
        first_window=dice.randint(2, 24),
        window=dice.randint(8, 32),
        max_window=dice.randint(32, 128),
        overlap=dice.randint(8, 48),
        release_after=dice.choice([0.1, 0.3, 0.5]),
        max_held=dice.choice([4_000, 20_000, 262_144]),
        idle_timeout=20.0,
        timeout=dice.choice([60.0, 60.0, 8.0]),
    )
    response = DirectionPolicy(
        rules={Category.ILLEGAL_ACTIVITIES_AND_CRIME: (block,), Category.PRIVACY_AND_PROPERTY: (private,)},
        on_guard_failure=dice.choice([Action.BLOCK] * 4 + [Action.LOG]),
        on_unreadable=dice.choice([Action.BLOCK] * 3 + [Action.LOG]),
    )
    return Policy("simulated", "hash", response=response, refusal={"zh": SAFE, "en": SAFE}, stream=settings)


def _attempt(
    dice: random.Random, faults: frozenset[Fault], what: tuple[str, list[tuple[Any, ...]]], marks: Iterator[int]
) -> tuple[tuple[Step, ...], dict[tuple[Any, ...], str]]:
    """One answer of the provider: its steps, and the text of each channel. Text comes in pieces cut at random, several
    channels interleaved at random; each channel's pieces stay in order."""
    stamp, channels = what
    texts = {channel: _text(dice, marks, flood=Fault.FLOOD in faults) for channel in channels}
    pieces = {channel: list(_cut(dice, text, one=Fault.FLOOD in faults)) for channel, text in texts.items()}
    deltas = [delta for channel in channels for delta in ((channel, piece) for piece in pieces[channel])]
    several = len({channel[0] for channel in channels}) > 1
    if several:
        deltas = list(_shuffled(dice, pieces))
    choices = sorted({int(channel[0]) for channel in channels})
    events = [chunk(stamp, index, {"role": "assistant", "content": ""}) for index in choices]
    spoken = [_spoken(stamp, channel, piece) for channel, piece in deltas]
    events += _paired(spoken) if several and dice.random() < 0.5 else spoken
    if Fault.UNKNOWN_FIELD in faults:
        strange = chunk(stamp, choices[0], {"weird": chr(next(marks))})
        events.insert(dice.randint(len(choices), len(events)), strange)
    if Fault.NO_FINISH not in faults:
        events += [chunk(stamp, index, {}, "stop") for index in choices]
    if Fault.TEXT_AFTER_FINISH in faults:
        late = dice.choice([BAD, chr(next(marks))])
        texts[choices[0], "content"] = texts.get((choices[0], "content"), "") + late
        events.append(chunk(stamp, choices[0], {"content": late}))
    if Fault.NO_DONE not in faults:
        events.append(Event(None))
    return tuple(_paced(dice, faults, events)), texts


def _several(dice: random.Random) -> list[tuple[Any, ...]]:
    made: list[tuple[Any, ...]] = [(index, "content") for index in range(dice.randint(2, 3))]
    if dice.random() < 0.3:
        made.append((0, "tool_calls", 0, "arguments"))
    return made


def _text(dice: random.Random, marks: Iterator[int], *, flood: bool) -> str:
    units = dice.randint(250, 400) if flood else dice.randint(1, dice.choice([3, 12, 60]))
    text = "".join(_unit(dice, marks) for _ in range(units))
    return text.replace(BAD, "，", text.count(BAD) - 1) if flood else text  # else no flood would get far


def _unit(dice: random.Random, marks: Iterator[int]) -> str:
    kind = dice.random()
    if kind < 0.6:
        return "".join(chr(next(marks)) for _ in range(dice.randint(1, 6)))
    if kind < 0.8:
        return dice.choice(["。", "，", "\n", " ", "hello ", "a.b", "😀", "-", " 12 "])
    if kind < 0.83:
        return BAD
    if kind < 0.92:
        return f"{chr(next(marks))}{_private(dice)}{chr(next(marks))}"
    if kind < 0.94:
        return f"{chr(next(marks))}{'k' * dice.randint(50, 400)}{chr(next(marks))}"
    return dice.choice(["word ", "7", "，", "！"])


def _private(dice: random.Random) -> str:
    def digits(count: int) -> str:
        return "".join(dice.choice("0123456789") for _ in range(count))

    card = f"{digits(4)} {digits(4)} {digits(4)} {digits(4)}"
    harmless = "1" + digits(13)
    return dice.choice(["1" + digits(16) + "X", "1" + digits(10), card, f"m{digits(3)}@ex.org", harmless])


def _cut(dice: random.Random, text: str, *, one: bool) -> Iterator[str]:
    most = 1 if one else dice.choice([1, 3, 8, 40, 10_000])
    while text:
        size = dice.randint(1, most)
        yield text[:size]
        text = text[size:]


def _shuffled(dice: random.Random, pieces: dict[tuple[Any, ...], list[str]]) -> Iterator[tuple[tuple[Any, ...], str]]:
    left = {channel: list(found) for channel, found in pieces.items() if found}
    while left:
        channel = dice.choice(sorted(left, key=str))
        yield channel, left[channel].pop(0)
        if not left[channel]:
            del left[channel]


def _spoken(stamp: str, channel: tuple[Any, ...], piece: str) -> Event:
    if channel[1] == "tool_calls":
        return chunk(stamp, channel[0], {"tool_calls": [{"index": channel[2], "function": {"arguments": piece}}]})
    return chunk(stamp, channel[0], {channel[1]: piece})


def _paired(events: Sequence[Event]) -> list[Event]:
    """Two choices' deltas in one event, wherever two such events follow each other."""
    made: list[Event] = []
    for event in events:
        before = made[-1].data["choices"] if made and made[-1].data else []
        choices = event.data["choices"] if event.data else []
        if len(before) == 1 and before[0]["index"] != choices[0]["index"]:
            made[-1] = Event({**(event.data or {}), "choices": [*before, *choices]})
        else:
            made.append(event)
    return made


def chunk(stamp: str, index: int, delta: dict[str, Any], finish: str | None = None) -> Event:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return Event({"id": stamp, "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})


def _paced(dice: random.Random, faults: frozenset[Fault], events: Sequence[Event]) -> Iterator[Step]:
    flood = Fault.FLOOD in faults
    pace = 0.0 if flood else dice.choice([0.0, 0.0, 0.005, 0.05, 0.4])
    fatal = [
        f
        for f in (Fault.UPSTREAM_DIES, Fault.UPSTREAM_HANGS, Fault.UPSTREAM_GARBAGE, Fault.UPSTREAM_BUG)
        if f in faults
    ]
    at = dice.randrange(len(events)) if fatal else -1
    if Fault.UPSTREAM_REFUSES in faults:
        yield Step(dice.choice([0.0, 1.0]), fault=Fault.UPSTREAM_REFUSES)
    for number, event in enumerate(events):
        pause = dice.choice([2.0, 14.0]) if dice.random() < 0.01 and not flood else dice.uniform(0, 2 * pace)
        if number == at:
            fault = dice.choice(fatal)
            yield Step(pause, fault=fault)
            if fault is not Fault.UPSTREAM_GARBAGE:
                return
        yield Step(pause, event)
