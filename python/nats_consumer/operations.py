"""Operations on streams and durables, for setup() and for migrations."""

from .streams.operation import StreamOperation
from .streams.operations import (
    CreateConsumer,
    CreateOrUpdateStream,
    CreateStream,
    DeleteConsumer,
    DeleteStream,
    UpdateStream,
    api,
)

__all__ = [
    "CreateConsumer",
    "CreateOrUpdateStream",
    "CreateStream",
    "DeleteConsumer",
    "DeleteStream",
    "StreamOperation",
    "UpdateStream",
    "api",
]

# A migration that Django writes names an operation by its module: this one, wherever the class is.
for _operation in (
    CreateConsumer,
    CreateOrUpdateStream,
    CreateStream,
    DeleteConsumer,
    DeleteStream,
    StreamOperation,
    UpdateStream,
):
    _operation.__module__ = __name__
