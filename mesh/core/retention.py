"""How long outcomes are kept, and why no late copy of a call runs once its record is gone.

A record is kept for the window W (24 h by default) from when it was written, and a 24th longer. A copy
of its call was first sent before that. It is run only while it is younger than three quarters of W:

    W/2   its age as its client counts it, sleep of the machine included; older ones are "unknown"
    W/8   on its way: a connection that was silent for longer is closed with what is still to be read from
          it. A client that is stopped between writing down a call's age and sending it finds that out
          when it wakes up, connects anew, and counts again.
    W/8   in a handler's queue, whatever deadline the caller named

What is stored bears wall-clock time, since it outlives processes and hosts. So up to a quarter of W (6 h)
lies between the last moment at which a copy may run and the first at which a record may go: by that much
the clocks of two handlers may differ, and what a caller was promised (W) holds for differences of up to W/24.
A time in the future is taken for now. No record has a TTL in the store: a promoted node's clock would
decide (counterexamples F8).
"""

from __future__ import annotations

DEFAULT_WINDOW_S = 86_400.0
DEFAULT_CALLER_BYTES = 4 * 1024 * 1024
OLDEST_SHARE = 1 / 2
SILENCE_SHARE = 1 / 8
QUEUE_SHARE = 1 / 8
CLOCKS_SHARE = 1 / 24


class Retention:
    """Shared by all that one handler remembers.

    Args:
        window_s: how long an outcome is kept.
        caller_bytes: of one partition's records under callers' keys; beyond it new ones are refused.

    Attributes:
        now: Unix time in whole seconds, as the shell last told it.
        keep_s: after this long a record may go.
        oldest_ms: a request older than this is not executed.
        silence_s: what arrives after a longer silence on its connection is not read.
        queue_ms: the longest that a request may wait here.
    """

    __slots__ = ("caller_bytes", "keep_s", "now", "oldest_ms", "queue_ms", "silence_s")

    def __init__(
        self,
        window_s: float = DEFAULT_WINDOW_S,
        caller_bytes: int = DEFAULT_CALLER_BYTES,
        now: int = 0,
    ) -> None:
        self.keep_s = window_s * (1 + CLOCKS_SHARE)
        self.oldest_ms = window_s * OLDEST_SHARE * 1000
        self.silence_s = window_s * SILENCE_SHARE
        self.queue_ms = int(window_s * QUEUE_SHARE * 1000)
        self.caller_bytes = caller_bytes
        self.now = now

    def __repr__(self) -> str:
        return f"Retention({self.keep_s:g} s, {self.caller_bytes} bytes, now {self.now})"

    def is_over(self, written: int) -> bool:
        """What was written at that time may go."""
        return written + self.keep_s <= self.now
