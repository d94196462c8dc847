"""raymesh: keyed, stateful services that do not go down."""

from mesh.client.aio import AsyncClient, connect
from mesh.client.stats import ClientStats
from mesh.client.sync import Client
from mesh.entities import KV, MethodRef, TypeCodec, command, entity, migrate, query
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
    "Client",
    "ClientStats",
    "DeadlineExceeded",
    "EntityError",
    "IdempotencyConflict",
    "MeshError",
    "MethodRef",
    "OutcomeUnknown",
    "Overloaded",
    "SetupError",
    "TypeCodec",
    "Unavailable",
    "command",
    "connect",
    "entity",
    "migrate",
    "query",
]
