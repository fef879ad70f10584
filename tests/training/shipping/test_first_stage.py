"""The first stage learns what is harmless, and clears nothing where too little is known to be sure."""

import random

import numpy as np

from guard_runtime.conversation import Source
from guard_runtime.guards.first_stage import FirstStage
from training.shipping.first_stage import BITS, Fitted, Window, card_lines, fitted, threshold

HARMFUL, HARMLESS = range(10, 20), range(100, 400)


def windows(count: int, source: Source = Source.USER) -> list[Window]:
    """Half of them hold one of ten harmful tokens among harmless ones."""
    chance = random.Random(1)
    made = []
    for number in range(count):
        ids = chance.sample(HARMLESS, 12)
        unsafe = number % 2 == 0
        if unsafe:
            ids[chance.randrange(12)] = chance.choice(HARMFUL)
        made.append(Window(tuple(ids), source, "en", unsafe, str(number)))
    return made


def stage(made: Fitted) -> FirstStage:
    thresholds = {part.source: {part.language: part.threshold} for part in made.parts if part.threshold is not None}
    return FirstStage(made.weights.astype(np.float32), BITS, thresholds)  # type: ignore[arg-type]


def test_it_clears_the_harmless_and_loses_hardly_any_harmful_window() -> None:
    seen = windows(4_000)
    made = fitted(seen)
    (part,) = [part for part in made.parts if part.harmful]
    assert part.threshold is not None
    assert part.lost <= 0.003 * part.harmful
    assert part.cleared > 0.9
    clears = [stage(made).clears(window.ids, window.source, window.language) for window in seen]
    assert sum(cleared for cleared, window in zip(clears, seen, strict=True) if not window.unsafe) > 1_800


def test_too_few_harmful_windows_give_no_threshold() -> None:
    assert threshold(np.linspace(0, 1, 997)) is None
    assert threshold(np.linspace(0, 1, 998)) == 0.0
    assert all(part.threshold is None for part in fitted(windows(200)).parts)


def test_more_harmful_windows_allow_a_few_of_them_to_be_cleared() -> None:
    scores = np.arange(10_000, dtype=float)
    limit = threshold(scores)
    assert limit is not None
    assert 10 < limit < 30


def test_the_section_and_the_card_name_each_threshold() -> None:
    made = fitted(windows(4_000, Source.SYSTEM))
    assert set(made.section["thresholds"]) == {"system"}  # type: ignore[call-overload]
    lines = list(card_lines(made))
    assert any(line.startswith("| system | en | 2000 |") for line in lines)
    assert any("none: too few" in line for line in lines)
