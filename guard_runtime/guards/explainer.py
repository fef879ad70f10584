"""Explanations of a guard's verdicts in its own words, written while no verdict is waited for."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from guard_runtime.conversation import Conversation, Direction
from guard_runtime.guard import Passage
from guard_runtime.serving.batcher import Batcher


@dataclass(frozen=True, slots=True)
class Explainer:
    """An `ExplainingGuard` for a model behind a batcher. `steps` begins an explanation: each step runs once on the
    model's thread, and the last one returns the whole text."""

    name: str
    batcher: Batcher
    steps: Callable[[Passage], Iterator[str]]

    async def explain(self, conversation: Conversation) -> str:
        """Explains the judged parts, joined. Raises `GuardFailed`."""
        texts = [part.text for part in conversation.judged if part.text]
        if not texts:
            return ""
        direction = conversation.direction
        context = conversation.question if direction is Direction.RESPONSE else None
        return await self.batcher.run_when_idle(self.steps(Passage(direction, "\n".join(texts), context)))
