"""What is judged of each kind of text in a request, and how turns that were judged before are met."""

from dataclasses import dataclass
from enum import StrEnum

from guard_runtime.conversation import Source


class Treatment(StrEnum):
    """What a text is judged for.

    ALL: every category. ATTACKS: attacks on the model at the rule's own threshold, every other category at the guard's
    `permissive` point. GRAVE: every other category at the `permissive` point, and no attacks. TRUST: it is not read.
    """

    ALL = "all"
    ATTACKS = "attacks"
    GRAVE = "grave"
    TRUST = "trust"


class Trusted(StrEnum):
    """What the tenant itself wrote, and a policy may let pass unread: its system prompt, its tools and schemas."""

    SYSTEM = "system"
    TOOLS = "tools"


class History(StrEnum):
    """ALWAYS judges every turn in every request. ONCE does not judge again what this gateway has judged and let
    through before, under the same policy and guards."""

    ALWAYS = "always"
    ONCE = "once"


class BlockedTurn(StrEnum):
    """What an earlier turn that would be blocked does to the request that still carries it. BLOCK: it blocks it. DROP:
    its text is taken out, and the caller is told. IGNORE: only the last turns are judged."""

    BLOCK = "block"
    DROP = "drop"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class Sources:
    """How each kind of text is read. `system`: the leading system prompt. `tools`: tool definitions and schemas.
    `results`: tool results and documents. What the user and the assistant say is always judged for everything."""

    system: Treatment = Treatment.GRAVE
    tools: Treatment = Treatment.GRAVE
    results: Treatment = Treatment.ATTACKS
    history: History = History.ONCE
    blocked_turn: BlockedTurn = BlockedTurn.BLOCK

    @property
    def trusted(self) -> frozenset[Trusted]:
        """What is not read at all."""
        treatments = {Trusted.SYSTEM: self.system, Trusted.TOOLS: self.tools}
        return frozenset(name for name, treatment in treatments.items() if treatment is Treatment.TRUST)

    def treatment(self, source: Source) -> Treatment:
        """What the text of one source is judged for."""
        match source:
            case Source.SYSTEM:
                return self.system
            case Source.TOOL_DEFINITION:
                return self.tools
            case Source.TOOL_RESULT | Source.DOCUMENT:
                return self.results
            case Source.USER | Source.ASSISTANT | Source.TOOL_CALL:
                return Treatment.ALL


BALANCED = Sources()
