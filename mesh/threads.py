"""A few daemon threads for what blocks.

Not concurrent.futures: its threads are waited for when the process exits, and one that hangs in a user's
method would keep a handler from ever ending.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

Work = Callable[[], None]


class Threads:
    """Threads made when they are needed, and kept for what comes next.

    Args:
        name: what they are called, with a number.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._idle = 0
        self._made = 0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Threads({self._name}, {self._made}, {self._idle} idle)"

    def submit(self, work: Work) -> None:
        """Have it done at once; how many are at work is the caller's to limit. It must not raise."""
        with self._lock:
            is_needed = self._idle == 0
            if is_needed:
                self._made += 1
            else:
                self._idle -= 1
            self._queue.put(work)
        if is_needed:
            name = f"{self._name}-{self._made}"
            threading.Thread(target=self._run, name=name, daemon=True).start()

    def close(self) -> None:
        """Let the idle ones end, and the others when they have done; nothing is submitted any more."""
        with self._lock:
            for _ in range(self._made):
                self._queue.put(None)

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            work()
            del work  # or what it holds would stay until the next
            with self._lock:
                self._idle += 1
