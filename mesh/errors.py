"""What can go wrong with a call, as one tree.

    MeshError
    ├── EntityError          the entity's own method raised; the state is as it was      executed: True
    ├── BadRequest           the caller's mistake: unknown method, wrong types, limits    executed: False
    ├── Overloaded           refused to keep the service up; try after `.retry_after`     executed: False
    │   └── CircuitOpen      refused by this client's own breaker
    ├── Unavailable          no owner could be reached (also ConnectionError)             executed: False
    ├── DeadlineExceeded     time ran out, every attempt was refused (also TimeoutError)  executed: False
    ├── OutcomeUnknown       sent, and no verdict came back (also TimeoutError)           executed: None
    ├── IdempotencyConflict  the same id was used before for another call, or ruled out   executed: False
    ├── AuthenticationError  the endpoint did not accept the token                        executed: False
    ├── SetupError           a mesh, a store or an application cannot be brought up       executed: False
    └── ProtocolError        the peer does not speak this protocol, or over its limits

`executed` says what is known: True (it ran, this is its final outcome), False (no attempt ran and
none will), None (unknown: an attempt was sent, and its connection broke or stayed silent).
"""

from __future__ import annotations

from typing import Any, Literal


class MeshError(Exception):
    """Base of everything that raymesh raises at a user.

    Args:
        message: what went wrong, with which value, and what to do.
        executed: True, False, None for "unknown", or "default" for what the class stands for.
        handler: id of the handler that is concerned, where there is one.
        partition: number of the partition that is concerned, where there is one.
        epoch: epoch of the partition's tenure, where there is one.
        idempotency_key: the caller's own key of the call, where there is one.
    """

    executed: bool | None = False

    def __init__(
        self,
        message: str,
        *,
        executed: bool | Literal["default"] | None = "default",
        handler: str | None = None,
        partition: int | None = None,
        epoch: int | None = None,
        idempotency_key: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if executed != "default":
            self.executed = executed
        self.handler = handler
        self.partition = partition
        self.epoch = epoch
        self.idempotency_key = idempotency_key


class EntityError(MeshError):
    """The entity's method raised; its state is as it was before, and a retry gets the same error.

    Attributes:
        type: name of the exception's class, as raised in the handler.
        details: the exception's arguments where they are plain values.
    """

    executed = True

    def __init__(self, message: str, *, type: str, details: list[Any], **known: Any) -> None:
        super().__init__(message, **known)
        self.type = type
        self.details = details


class BadRequest(MeshError):
    """The request itself is wrong; sending it again cannot help."""


class Overloaded(MeshError):
    """Refused so that the service stays up, or since the store refuses to write; nothing ran.

    Attributes:
        retry_after: seconds after which there may be room.
    """

    def __init__(self, message: str, *, retry_after: float = 0.0, **known: Any) -> None:
        super().__init__(message, **known)
        self.retry_after = retry_after


class CircuitOpen(Overloaded):
    """This client's breaker for the handler is open; nothing was sent."""


class Unavailable(MeshError, ConnectionError):
    """No owner could be reached, or it cannot read the partition in the store; nothing ran."""


class DeadlineExceeded(MeshError, TimeoutError):
    """Time ran out and every attempt had been refused: nothing ran."""


class OutcomeUnknown(MeshError, TimeoutError):
    """An attempt was sent and no verdict came back: it may or may not have run."""

    executed = None


class IdempotencyConflict(MeshError):
    """The id of this call was used before for another one, or was ruled out; this call did not run."""


class AuthenticationError(MeshError):
    """The endpoint did not accept the token."""


class SetupError(MeshError):
    """A mesh, a store or an application could not be brought up."""


class ProtocolError(MeshError):
    """The peer sent bytes that are not this protocol, or over a limit; its connection is closed."""
