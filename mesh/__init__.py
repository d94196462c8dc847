"""raymesh: keyed, stateful services that do not go down."""

from mesh.client.aio import AsyncClient, connect
from mesh.entities import KV, command, entity, query
from mesh.errors import (
    AuthenticationError,
    BadRequest,
    CircuitOpen,
    DeadlineExceeded,
    EntityError,
    IdempotencyConflict,
    MeshError,
    OutcomeUnknown,
    Overloaded,
    SetupError,
    Unavailable,
)

__all__ = [
    "KV",
    "AsyncClient",
    "AuthenticationError",
    "BadRequest",
    "CircuitOpen",
    "DeadlineExceeded",
    "EntityError",
    "IdempotencyConflict",
    "MeshError",
    "OutcomeUnknown",
    "Overloaded",
    "SetupError",
    "Unavailable",
    "command",
    "connect",
    "entity",
    "query",
]
