"""
Everything the guard runtime raises:

* GuardError
  - GuardOverloaded    the queue is full; nothing was tried
  - GuardTimeout       no answer before the deadline
  - GuardFailed        the guard was asked and gave no usable answer
    + InvalidVerdict   its answer was not finite, out of range or incomplete
  - ArtefactRefused    a guard on disk is not what its manifest says
"""


class GuardError(Exception):
    """The guard gave no verdict. The policy decides what that means; it is never "allow" by accident."""

    result = "failed"


class GuardOverloaded(GuardError):
    result = "overload"


class GuardTimeout(GuardError):
    result = "timeout"


class GuardFailed(GuardError):
    pass


class InvalidVerdict(GuardFailed):
    pass


class ArtefactRefused(GuardError):
    pass
