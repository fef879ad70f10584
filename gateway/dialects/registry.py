"""The dialects that are served: a new one is served, documented and guarded once it has its line here."""

from collections.abc import Mapping
from types import MappingProxyType

from gateway.dialects.choices.chat import Chat
from gateway.dialects.choices.completions import Completions
from gateway.dialects.dialect import Dialect
from gateway.dialects.embeddings import Embeddings
from gateway.dialects.messages.messages import Messages
from gateway.dialects.messages.token_count import TokenCount
from gateway.dialects.prompts import Decoder
from gateway.dialects.responses.compaction import Compaction
from gateway.dialects.responses.responses import Responses


def dialects(decoders: Mapping[str, Decoder] = MappingProxyType({})) -> tuple[Dialect, ...]:
    """Every dialect that is served. `decoders` are the tokenizers of those models that take token ids."""
    return (
        Chat(),
        Completions(decoders),
        Responses(),
        Compaction(),
        Messages(),
        TokenCount(),
        Embeddings(decoders),
    )
