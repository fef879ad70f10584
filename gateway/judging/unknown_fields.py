"""Fields of an answer that nobody here knows: taken out, so that the rest can go on, and counted by name."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from gateway.dialects.dialect import Choice, Delta, Dialect, DialectStream, Event, Json
from gateway.dialects.fields import dotted, removed
from guard_runtime.conversation import Kind, Part, Path

MOST_NAMES = 32
"""Names of dropped fields that one request's record lists."""


@dataclass(slots=True)
class UnknownFields:
    """Drops unknown fields of one answer, or holds them for the policy (`drop` is false). `passed` are names of fields
    that the tenant lets through unread. `dropped` has the names of those that were taken out."""

    drop: bool = True
    passed: frozenset[str] = frozenset()
    dropped: dict[str, None] = field(default_factory=dict)

    def in_answer(self, dialect: Dialect, answer: Json, request: Json | None = None) -> tuple[Json, tuple[Choice, ...]]:
        """A plain answer without its unknown fields, and what it says. Raises `UpstreamError`."""
        choices = self._known(dialect.read_answer(answer, request))
        paths = [part.path for choice in choices for part in choice.parts if _is_unknown(part)]
        if not (self.drop and paths):
            return answer, choices
        for path in sorted(set(paths), key=_order, reverse=True):
            answer = removed(answer, path)
        self._note(paths)
        # Read again: what is left unknown, wherever it hides, stays for the policy to stop.
        return answer, self._known(dialect.read_answer(answer, request))

    def in_event(
        self, stream: DialectStream, event: Event, deltas: Sequence[Delta]
    ) -> tuple[Event | None, list[Delta]]:
        """An event that was just read, without its unknown fields, and what is left of its deltas; None for an event
        of which nothing can be relayed."""
        kept = [delta for delta in deltas if not (_is_unknown(delta) and self._passes(delta.channel))]
        unknown = {delta.channel for delta in kept if _is_unknown(delta)}
        if not (self.drop and unknown):
            return event, kept
        self._note(unknown)
        changed = stream.without(event, unknown)
        known = [delta for delta in kept if delta.channel not in unknown]
        return (None, []) if changed is None else (changed, known)

    def _known(self, choices: tuple[Choice, ...]) -> tuple[Choice, ...]:
        """The choices without the fields that the tenant lets through."""
        if not self.passed:
            return choices
        return tuple(
            replace(choice, parts=tuple(p for p in choice.parts if not (_is_unknown(p) and self._passes(p.path))))
            for choice in choices
        )

    def _passes(self, path: Path) -> bool:
        return bool(path) and path[-1] in self.passed

    def _note(self, paths: Iterable[Path]) -> None:
        for path in paths:
            if len(self.dropped) < MOST_NAMES:
                self.dropped[_name(path)] = None


def _is_unknown(piece: Part | Delta) -> bool:
    return piece.text is None and piece.kind is Kind.TEXT


def _name(path: Path) -> str:
    """The field's own name; one that is no name is not repeated."""
    return dotted(tuple(step for step in path if isinstance(step, str))[-1:]) or "(key)"


def _order(path: Path) -> tuple[tuple[bool, int, str], ...]:
    """Later elements of a list go first, so that the paths to the others stay right."""
    return tuple((isinstance(step, int), step if isinstance(step, int) else 0, str(step)) for step in path)
