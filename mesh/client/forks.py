"""Clients do not survive a fork: in the child each is cut off from what it shares with its parent.

A child inherits the parent's sockets. One byte that it wrote or read would break the parent's stream, and
a request that it numbered would take the place of one of the parent's. So the child's descriptors are put
on a socket whose other end is closed, before any code of the child runs. Descriptors are replaced, never
closed: the event loop's copy in the child still knows their numbers, and a number that is free is soon
somebody else's file. The parent notices nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from typing import Protocol
from weakref import WeakSet


class Forkable(Protocol):
    """Something whose copy in a forked child has to be cut off."""

    def orphan(self) -> Iterable[int]:
        """In the child: take no more calls. Returns the descriptors of its connections."""
        ...


_living: WeakSet[Forkable] = WeakSet()


def watch(client: Forkable) -> None:
    """Cut it off in every child that is forked from now on."""
    _living.add(client)


def reason(parent: int) -> str:
    """What a call in a child of that process is told."""
    return (
        f"this client belongs to process {parent} and was inherited by its fork {os.getpid()}; "
        f"connect anew in the child"
    )


def _in_child() -> None:
    descriptors = [fd for client in _living for fd in client.orphan()]
    _living.clear()
    if not descriptors:
        return
    dead, other = socket.socketpair()
    other.close()
    with dead:
        for descriptor in descriptors:
            os.dup2(dead.fileno(), descriptor, inheritable=False)


os.register_at_fork(after_in_child=_in_child)
