"""The clock of the shells. Cores get `now` as an argument.

CLOCK_MONOTONIC, read anew at each call: an event loop's own time is cached for the whole turn and, in uvloop,
whole milliseconds, which is too coarse for phases of a takeover.
"""

from __future__ import annotations

import time

now = time.monotonic
"""Seconds; differences only. The same for all processes of one machine."""

wall = time.time
"""Unix seconds, for people to read; never for durations."""
