"""A provider's own words about its error: judged like an answer before a caller reads them."""

import logging

from gateway.bugs import bug_place
from gateway.errors import UpstreamError
from gateway.judging.judge import Judge
from gateway.judging.remedy import Pass, remedy
from gateway.policy.policy import Policy
from guard_runtime.conversation import Conversation, Part

log = logging.getLogger(__name__)


async def judged_error(error: UpstreamError, policy: Policy, conversation: Conversation, judge: Judge) -> UpstreamError:
    """The error with the provider's words where they may be read, and with its status alone where they may not."""
    if not error.quoted:
        return error
    reply = conversation.reply(Part(("error", "message"), error.message))
    try:
        judgement = await judge.judge(policy, reply)
    except ExceptionGroup as bugs:
        log.error("a guard failed: %s", bug_place(bugs))
    else:
        if isinstance(remedy(judgement, reply.judged), Pass):
            return error
    error.message = f"The model's provider answered with an error (status {error.status})."
    error.quoted = False
    return error
