"""Whether new commands are taken up while the store refuses to write.

A store that is out of memory, or cannot write to its disk, stays so until somebody sees to it. Commands taken
up meanwhile would wait for their deadline and end as "unknown"; refused before they are run, their callers
know that nothing happened, why, and what to do. So from the first such refusal until a commit succeeds the
gate is shut to them. Refusals that pass by themselves, as while a store fails over, shut it only once they
have lasted: waiting is what carries callers over a failover.

Nobody has to ask the store whether it is well again: the batch that it refused is sent again until it is
taken. Should that one batch be all that the store refuses, the others must go on, so whatever could be sent
at once is let through, and its success opens the gate. With two lanes, one more call at most has to wait.
"""

from __future__ import annotations

PATIENCE_S = 5.0
"""Half of the time that a call has by default."""
TRY_AGAIN_S = 1.0
"""A refused batch is sent again at least twice in this time."""


class WriteGate:
    """Shut or open.

    Attributes:
        reason: why the store refuses, and what to do about it; empty while the gate is open.
    """

    __slots__ = ("_since", "reason")

    def __init__(self) -> None:
        self.reason = ""
        self._since: float | None = None

    def __repr__(self) -> str:
        return f"WriteGate({self.reason or 'open'})"

    def refused(self, reason: str, now: float, *, transient: bool) -> None:
        """The store refused a batch, and wrote nothing of it.

        Args:
            reason: in its words and ours.
            transient: it may pass without anyone's doing.
        """
        if self._since is None:
            self._since = now
        if not transient or self.reason or now - self._since >= PATIENCE_S:
            self.reason = reason

    def wrote(self) -> None:
        """The store took a batch."""
        self.reason = ""
        self._since = None
