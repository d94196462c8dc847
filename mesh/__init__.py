"""raymesh: keyed, stateful services that do not go down."""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from mesh import observe
from mesh.client.aio import AsyncClient, connect
from mesh.client.keys import KeyPage
from mesh.client.outcome import Outcome
from mesh.client.stats import ClientStats
from mesh.client.sync import Client
from mesh.context import Context, context
from mesh.entities import KV, MethodRef, TypeCodec, command, entity, health, migrate, query
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
from mesh.lifecycle import down, local, up

if TYPE_CHECKING:
    from mesh import testing

__all__ = [
    "KV",
    "AsyncClient",
    "AuthenticationError",
    "BadRequest",
    "CircuitOpen",
    "Client",
    "ClientStats",
    "Context",
    "DeadlineExceeded",
    "EntityError",
    "IdempotencyConflict",
    "KeyPage",
    "MeshError",
    "MethodRef",
    "Outcome",
    "OutcomeUnknown",
    "Overloaded",
    "SetupError",
    "TypeCodec",
    "Unavailable",
    "command",
    "connect",
    "context",
    "down",
    "entity",
    "health",
    "local",
    "migrate",
    "observe",
    "query",
    "testing",
    "up",
]


def __getattr__(name: str) -> ModuleType:
    # A service has no use for the test kit, which brings handler, supervisor and store along.
    if name == "testing":
        return import_module("mesh.testing")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
