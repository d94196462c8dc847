"""What `client.outcome` tells of a call whose end its caller never heard."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar, cast

from mesh.errors import MeshError

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[R]):
    """How a call under a caller's key has ended, for good.

    Attributes:
        executed: it ran, and this is what came of it. False: it never ran, and never will.
    """

    executed: bool
    _reply: R | None = field(default=None, repr=False)
    _error: MeshError | None = field(default=None, repr=False)

    def result(self) -> R:
        """The reply that the call got, or would have got.

        Raises:
            EntityError: the one that it ended in.
            IdempotencyConflict: it was not executed.
        """
        if self._error is not None:
            raise self._error
        return cast("R", self._reply)
