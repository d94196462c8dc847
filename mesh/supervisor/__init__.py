"""A supervisor without Ray: the brain of mesh.core.supervision with sockets, a store and a clock round it.

shell       the supervisor itself: who is heard, and what becomes of it
links       who is connected, and what they are sent
leader      what a leader does: the brain's events and effects, its store calls and starts
opening     how a life is opened on the store's primary
questions   what tools ask
journal     what has happened
tasks       what it has under way
"""

from __future__ import annotations

from mesh.supervisor.settings import Launcher, SupervisorSettings
from mesh.supervisor.shell import Supervisor

__all__ = ["Launcher", "Supervisor", "SupervisorSettings"]
