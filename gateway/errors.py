"""
Everything the gateway raises at a caller. A blocked answer is not here: that is a Decision, and an ordinary reply.

* GatewayError
  - BadRequest            400  the body is not one this API takes
    + DeadlineMissed      408  the body did not arrive in time
    + TooLarge            413
    + EncodedBody         415  a body compressed in a way that is not read here
  - UnknownKey            401
  - ModelNotAllowed       403
  - NotFound              404  no such route or receipt
    + ModelNotFound       404
  - NoWebSocket           426  an upgrade to a WebSocket: callers go on over HTTP
  - TooManyRequests       429
  - UpstreamError         502  the model's provider failed (or its own 4xx/5xx, passed on)
    + UpstreamTimeout     504
  - GuardUnavailable      503  the safety check could not be completed, and the policy says that this stops the request
  - InternalError         500  a bug in the gateway
* ConfigError                  config.yaml or a policy is wrong; the gateway does not start
"""

from collections.abc import Mapping
from types import MappingProxyType


class GatewayError(Exception):
    """`param` names the field at fault. `status`, `type` and `code` go out in OpenAI's error shape."""

    status = 500
    type = "server_error"
    code = "internal_error"
    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class BadRequest(GatewayError):
    status = 400
    type = "invalid_request_error"
    code = "invalid_value"


class DeadlineMissed(BadRequest):
    status = 408
    code = "request_timeout"


class TooLarge(BadRequest):
    status = 413
    code = "request_too_large"


class EncodedBody(BadRequest):
    status = 415
    code = "unsupported_content_encoding"


class UnknownKey(GatewayError):
    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class ModelNotAllowed(GatewayError):
    status = 403
    type = "invalid_request_error"
    code = "model_not_allowed"


class NotFound(GatewayError):
    status = 404
    type = "invalid_request_error"
    code = "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class NoWebSocket(GatewayError):
    status = 426
    type = "invalid_request_error"
    code = "websocket_not_served"


class TooManyRequests(GatewayError):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class UpstreamError(GatewayError):
    """The provider's failure. `status` may be the provider's own. `quoted`: the message is the provider's own words,
    which no guard has read yet."""

    status = 502
    quoted = False
    type = "upstream_error"
    code = "upstream_error"


class UpstreamTimeout(UpstreamError):
    status = 504
    code = "upstream_timeout"


class GuardUnavailable(GatewayError):
    """SDKs retry 5xx; a retry would only queue the guard again, so they are told not to."""

    status = 503
    type = "guard_error"
    code = "guard_unavailable"
    headers: Mapping[str, str] = MappingProxyType({"x-should-retry": "false"})


class InternalError(GatewayError):
    """A bug. SDKs are told not to retry: the same request would meet it again, perhaps after the model was asked."""

    headers: Mapping[str, str] = MappingProxyType({"x-should-retry": "false"})


class ConfigError(Exception):
    """Every mistake found, a line each: `file:line:column key: what is wrong -- what to do`."""

    def __init__(self, mistakes: tuple[str, ...]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes
