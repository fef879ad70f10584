"""A request's fields beside its content: which there are, and what each may hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.dialects.dialect import Json
from gateway.dialects.fields import refuse_unknown, require_names
from gateway.errors import BadRequest


@dataclass(frozen=True, slots=True)
class Options:
    """Every field of a dialect's request is in one of these; another that carries text is refused.

    `read`: the dialect reads them as parts. `names`: no content, every string in them an identifier. `kept`: the
    caller's own bookkeeping, kept by the provider and never shown to a model. `numbers`: the lowest and the highest.
    `objects` and `lists` say what shape some of the others have.
    """

    read: frozenset[str]
    names: frozenset[str]
    numbers: Mapping[str, tuple[float, float]]
    whole: frozenset[str] = frozenset()
    flags: frozenset[str] = frozenset()
    objects: frozenset[str] = frozenset()
    lists: frozenset[str] = frozenset()
    kept: frozenset[str] = frozenset({"metadata"})

    known: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        known = self.read | self.names | self.kept | self.flags | frozenset(self.numbers)
        object.__setattr__(self, "known", known)

    def check(self, body: Json) -> None:
        """Raises `BadRequest` naming the field that is wrong."""
        model = body.get("model")
        if not isinstance(model, str) or not model:
            raise BadRequest("model must be the name of a model", param="model")
        for name in self.numbers.keys() & body.keys():
            self._check_number(name, body[name])
        for name in self.flags & body.keys():
            if not isinstance(body[name], bool | None):
                raise BadRequest(f"{name} must be true or false", param=name)
        for name in (self.objects | self.kept) & body.keys():
            if not isinstance(body[name], Mapping | None):
                raise BadRequest(f"{name} must be an object", param=name)
        for name in self.lists & body.keys():
            if not isinstance(body[name], list | None):
                raise BadRequest(f"{name} must be a list", param=name)
        require_names(body, self.names, ())
        refuse_unknown(body, self.known, ())

    def _check_number(self, name: str, value: object) -> None:
        if value is None:
            return
        low, high = self.numbers[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise BadRequest(f"{name} must be a number from {low:g} to {high:g}", param=name)
        if name in self.whole and not (isinstance(value, int) or value.is_integer()):
            raise BadRequest(f"{name} must be a whole number", param=name)
