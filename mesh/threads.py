"""A few daemon threads for what blocks.

Not concurrent.futures: its threads are waited for when the process exits, and one that hangs in a user's
method would keep a handler from ever ending.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

Work = Callable[[], Callable[[], object]]
"""Returns what tells of its end: called when the thread counts as free, or who hears of it and comes with
more would find none.
"""


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
        """Have it done at once; how many are at work is the caller's to limit. It must not raise.

        Raises:
            RuntimeError: the machine gives no further thread; it will not be done.
        """
        with self._lock:
            if self._idle:
                self._idle -= 1
                self._queue.put(work)
                return
            name = f"{self._name}-{self._made + 1}"
            threading.Thread(target=self._run, args=(work,), name=name, daemon=True).start()
            self._made += 1

    def close(self) -> None:
        """Let the idle ones end, and the others when they have done; nothing is submitted any more."""
        with self._lock:
            for _ in range(self._made):
                self._queue.put(None)

    def _run(self, first: Work) -> None:
        work: Work | None = first
        del first  # or what it holds would stay as long as the thread
        while work is not None:
            tell = work()
            work = None
            with self._lock:
                self._idle += 1
            tell()
            del tell
            work = self._queue.get()
