"""A block and a rewrite, as a dialect is to say them."""

from gateway.dialects.dialect import Refusal
from gateway.errors import GuardUnavailable
from gateway.policy.policy import Action, Decision, Reason
from guard_runtime.conversation import Direction
from guard_runtime.verdict import Category

BLOCKED = Refusal(
    Decision(Action.BLOCK, Reason.RULE, Direction.RESPONSE, Category.PRIVACY_AND_PROPERTY), "抱歉。", id="K7", created=9
)
REWRITTEN = Refusal(Decision(Action.REWRITE, Reason.RULE, Direction.RESPONSE), "换个话题。", id="K7", created=9)
OUTAGE = GuardUnavailable("no verdict within 10 s")
