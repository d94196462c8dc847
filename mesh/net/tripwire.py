"""Knowing that a process dies before the kernel has buried it.

A pidfd becomes readable when the last thread of a process is gone, and most of that time goes into giving
back its memory: 15 ms of a handler of 200 MB on a busy machine, in which partitions wait for an owner. That
the process will not run another instruction of its program is certain much earlier, about 2 ms after the
signal. Two steps tell it from outside:

    the wire    a thread that does nothing but hold the writing end of a pipe, in a descriptor table that
                it shares with nobody. Threads die one by one, and each closes its own table: the pipe
                ends as soon as this thread has died, not when the last one has. That is a hint, no proof.
    the proof   every thread of the process is in the kernel for good: it is exiting, or was killed by a
                signal, or has SIGKILL before it, which is looked at before any return to the program and
                which nothing takes back. Such a thread still ends the system call that it is in, no more.

A process that goes by the exec of another program, or whose wire breaks in any other way, is proved dead by
its pidfd alone. Bytes that it has handed to the kernel may still arrive, as after any death; the store
refuses what is late by the grant.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import logging
import os
import signal
import threading

log = logging.getLogger("mesh.net.tripwire")

_CLOSE_RANGE = 436  # the same number on every architecture; libc has a name for it since glibc 2.34
_UNSHARE = 2
_ALL = 0xFFFFFFFF
_PF_EXITING = 0x4
_PF_SIGNALED = 0x400
_SIGKILL_PENDING = 1 << (signal.SIGKILL - 1)
_PRECEDING = -10


class _Wire:
    """This process's wire, once it is strung."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reading: int | None = None

    def reading(self) -> int | None:
        with self._lock:
            if self._reading is None:
                try:
                    self._reading = _string()
                except OSError as error:
                    log.info("deaths of this process are told by its pidfd alone: %s", error)
            return self._reading

    def forget(self) -> None:
        """In a forked child there is no such thread: its parent's wire is not its own."""
        self._lock = threading.Lock()
        if self._reading is not None:
            os.close(self._reading)
            self._reading = None


_wire = _Wire()
os.register_at_fork(after_in_child=_wire.forget)


def wire() -> int | None:
    """The reading end of this process's wire, strung when it is first asked for; None where the system
    does not let a thread have descriptors of its own. To be passed on, not to be closed.
    """
    return _wire.reading()


def is_doomed(pid: int) -> bool:
    """Whether no thread of that process will ever run its program again. False where it cannot be told."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        return all(_is_leaving(f"/proc/{pid}/task/{thread}") for thread in threads)
    except (OSError, ValueError, IndexError):
        return False


def _is_leaving(task: str) -> bool:
    try:
        with open(f"{task}/stat", "rb") as stat:
            flags = int(stat.read().rpartition(b")")[2].split()[6])
        if flags & (_PF_EXITING | _PF_SIGNALED):
            return True
        with open(f"{task}/status", "rb") as status:
            for line in status:
                if line.startswith(b"SigPnd:"):
                    return bool(int(line.split()[1], 16) & _SIGKILL_PENDING)
    except (FileNotFoundError, ProcessLookupError):
        return True  # gone in between
    return False


def _string() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    strung = threading.Event()
    failed: list[int] = []

    def hold() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        with contextlib.suppress(OSError):
            # First to die: the thread that is last has the memory to give back before its descriptors.
            os.setpriority(os.PRIO_PROCESS, 0, _PRECEDING)
        for first, last, flags in ((writing + 1, _ALL, _UNSHARE), (0, writing - 1, 0)):
            if libc.syscall(_CLOSE_RANGE, first, last, flags):
                failed.append(ctypes.get_errno())
                strung.set()
                return
        strung.set()
        while True:
            libc.pause()

    # In that thread a descriptor's number means another thing: no finalizer may run there.
    collecting = gc.isenabled()
    gc.disable()
    try:
        threading.Thread(target=hold, name="tripwire", daemon=True).start()
        strung.wait()
    except RuntimeError as error:  # no more threads
        failed.append(errno.EAGAIN)
        log.debug("no thread for the wire: %s", error)
    finally:
        if collecting:
            gc.enable()
    os.close(writing)
    if failed:
        os.close(reading)
        raise OSError(failed[0], os.strerror(failed[0]))
    return reading
