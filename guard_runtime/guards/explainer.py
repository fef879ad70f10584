"""Why a guard said what it said, in its own words, written while nobody waits for a verdict."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from guard_runtime.conversation import Conversation, Direction
from guard_runtime.guard import Passage
from guard_runtime.serving.batcher import Batcher


@dataclass(frozen=True, slots=True)
class Explainer:
    """`Explaining`, for a model behind a batcher. `steps` begins an explanation: each step is one turn on the model's
    thread, and the last one gives the whole."""

    name: str
    batcher: Batcher
    steps: Callable[[Passage], Iterator[str]]

    async def explain(self, conversation: Conversation) -> str:
        """Of what was judged last, all of its parts together. Raises `GuardFailed`."""
        texts = [part.text for part in conversation.judged if part.text]
        if not texts:
            return ""
        direction = conversation.direction
        context = conversation.question if direction is Direction.RESPONSE else None
        return await self.batcher.idly(self.steps(Passage(direction, "\n".join(texts), context)))
