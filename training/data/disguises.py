"""Disguises: every perturbation at every place and strength, and a row with other words."""

import dataclasses
from dataclasses import dataclass
from random import Random

from evaluation.perturbations import PERTURBATIONS, STRENGTHS, Place
from training.data.rows import Row


@dataclass(frozen=True, slots=True)
class Move:
    """One disguise: perturbation, place and strength, by name."""

    operator: str
    place: Place
    strength: str

    def __call__(self, text: str, random: Random) -> str:
        return PERTURBATIONS[self.operator].apply(text, STRENGTHS[self.strength], self.place, random)


MOVES = tuple(Move(o, p, s) for o in PERTURBATIONS for p in Place for s in STRENGTHS)


def spoken(row: Row) -> str:
    """The text a verdict is about."""
    return row.prompt if row.direction == "prompt" else row.response


def saying(row: Row, text: str, name: str) -> Row:
    """The row with other words, under an id of its own."""
    if row.direction == "prompt":
        return dataclasses.replace(row, id=f"{row.id}-{name}", prompt=text)
    return dataclasses.replace(row, id=f"{row.id}-{name}", response=text)
