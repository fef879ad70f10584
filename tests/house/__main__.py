"""Prints the house: `python -m tests.house [PACKAGE ...]` draws each package's rooms, highest floor first."""

import sys

from tests.house.graph import PACKAGES, circles, rooms


def main(packages: list[str]) -> int:
    """Prints a line a room: floor, files, arrows out, arrows up. Exit status 1 where an arrow runs up."""
    up = 0
    for package in packages or PACKAGES:
        drawn = rooms(package)
        arrows = sum(len(room.imports) for room in drawn.values())
        up += sum(len(room.up) for room in drawn.values())
        print(f"{package}: {len(drawn)} rooms, {arrows} arrows, {len(circles(drawn))} circles")
        print(f"  {'room':<20}{'floor':>6}{'files':>7}{'out':>5}{'up':>4}  imports")
        for room in sorted(drawn.values(), key=lambda room: (-room.floor, room.name)):
            print(
                f"  {room.name:<20}{room.floor:>6}{room.files:>7}{len(room.imports):>5}{len(room.up):>4}"
                f"  {', '.join(sorted(room.imports))}"
            )
    return 1 if up else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
