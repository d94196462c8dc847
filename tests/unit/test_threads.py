"""Threads for what blocks: as many as are needed at once, none that keeps a process from ending."""

import subprocess
import sys
import threading
from queue import SimpleQueue

from mesh.threads import Threads


def test_a_thread_that_is_free_takes_what_comes_next():
    threads, told = Threads("t"), SimpleQueue()
    for number in range(50):
        threads.submit(
            lambda number=number: lambda: told.put((number, threading.current_thread().name))
        )
        assert told.get(timeout=5) == (number, "t-1")
    threads.close()


def test_what_is_at_work_at_the_same_time_has_threads_of_its_own():
    threads, told, go = Threads("t"), SimpleQueue(), threading.Event()

    def work():
        go.wait(5)
        return lambda: told.put(threading.current_thread().name)

    for _ in range(5):
        threads.submit(work)
    go.set()
    assert len({told.get(timeout=5) for _ in range(5)}) == 5
    threads.close()


def test_closed_threads_end():
    threads, told = Threads("closing"), SimpleQueue()
    threads.submit(lambda: lambda: told.put(threading.current_thread()))
    thread = told.get(timeout=5)
    threads.close()
    thread.join(5)
    assert not thread.is_alive()


def test_a_thread_that_hangs_does_not_keep_its_process_from_ending():
    code = (
        "import threading, mesh.threads as t; began = threading.Event();"
        "t.Threads('x').submit(lambda: (began.set(), threading.Event().wait()));"
        "began.wait(); print('leaving')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=20, check=True)
    assert done.stdout == b"leaving\n"
